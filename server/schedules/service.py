"""ScheduleService. Requests are checked and callers known before they come here; topics are authorized here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from trunkline.api.v1 import common_pb2, schedules_pb2
from trunkline.api.v1.schedules_pb2_grpc import ScheduleServiceServicer
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.journal.control.requests import request_id_by
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.security.principal import Principal, Resource, Verb, authorize

from .schedules import Schedules
from .spec import Spec

Context = grpc.aio.ServicerContext[Any, Any]


class ScheduleService(ScheduleServiceServicer):
    """Thin: converts, asks the schedules, converts back."""

    def __init__(self, schedules: Schedules, header: Callable[[], common_pb2.ResponseHeader]) -> None:
        self._schedules = schedules
        self._header = header

    async def CreateSchedule(
        self, request: schedules_pb2.CreateScheduleRequest, context: Context
    ) -> schedules_pb2.CreateScheduleResponse:
        state, created = await self._schedules.create(
            request.schedule,
            _origin(context, request),
            allow=_may_publish(principal_of(context)),
            deadline_ns=deadline_ns_of(context),
        )
        return schedules_pb2.CreateScheduleResponse(header=self._header(), schedule=state, created=created)

    async def ListSchedules(
        self, request: schedules_pb2.ListSchedulesRequest, context: Context
    ) -> schedules_pb2.ListSchedulesResponse:
        page = await self._schedules.page(
            request.namespace,
            page_size=request.page_size,
            page_token=request.page_token,
            may_touch=_may_read(principal_of(context)),
        )
        return schedules_pb2.ListSchedulesResponse(
            header=self._header(), schedules=page.schedules, next_page_token=page.next_page_token
        )

    async def DeleteSchedule(
        self, request: schedules_pb2.DeleteScheduleRequest, context: Context
    ) -> schedules_pb2.DeleteScheduleResponse:
        await self._schedules.delete(
            request.namespace,
            request.name,
            _origin(context, request),
            allow=_may_publish(principal_of(context)),
            deadline_ns=deadline_ns_of(context),
        )
        return schedules_pb2.DeleteScheduleResponse(header=self._header())


def _origin(context: Context, request: Any) -> Origin:
    author = principal_of(context).name
    return Origin(author=author, request_id=request_id_by(author, request))


def _may_publish(principal: Principal) -> Callable[[Spec], None]:
    def allow(spec: Spec) -> None:
        authorize(principal, Verb.PUBLISH, Resource(spec.namespace, (spec.topic,)))

    return allow


def _may_read(principal: Principal) -> Callable[[Spec], bool]:
    """A schedule shows its event: it is seen by whoever may read the event."""

    def may_touch(spec: Spec) -> bool:
        return principal.sees(spec.namespace) and principal.may_touch(spec.topic)

    return may_touch
