"""ReleaseService. Requests are checked and callers known before they come here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from trunkline.api.v1 import common_pb2, releases_pb2
from trunkline.api.v1.releases_pb2_grpc import ReleaseServiceServicer
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.journal.control.requests import request_id_by
from trunkline.server.journal.control.sequencer import Origin

from .releases import Releases

Context = grpc.aio.ServicerContext[Any, Any]


class ReleaseService(ReleaseServiceServicer):
    """Thin: converts, asks the releases, converts back."""

    def __init__(self, releases: Releases, header: Callable[[], common_pb2.ResponseHeader]) -> None:
        self._releases = releases
        self._header = header

    async def StartRelease(
        self, request: releases_pb2.StartReleaseRequest, context: Context
    ) -> releases_pb2.StartReleaseResponse:
        state = await self._releases.start(
            request.release, _origin(context, request), deadline_ns=deadline_ns_of(context)
        )
        return releases_pb2.StartReleaseResponse(header=self._header(), state=state)

    async def GetRelease(
        self, request: releases_pb2.GetReleaseRequest, context: Context
    ) -> releases_pb2.GetReleaseResponse:
        state = self._releases.get(request.namespace, request.service)
        return releases_pb2.GetReleaseResponse(header=self._header(), state=state)

    async def ListReleases(
        self, request: releases_pb2.ListReleasesRequest, context: Context
    ) -> releases_pb2.ListReleasesResponse:
        found = await self._releases.listed(request.namespace, sees=principal_of(context).sees)
        return releases_pb2.ListReleasesResponse(header=self._header(), releases=found)

    async def SteerRelease(
        self, request: releases_pb2.SteerReleaseRequest, context: Context
    ) -> releases_pb2.SteerReleaseResponse:
        state = await self._releases.steer(
            request.namespace,
            request.service,
            request.action,
            _origin(context, request),
            deadline_ns=deadline_ns_of(context),
        )
        return releases_pb2.SteerReleaseResponse(header=self._header(), state=state)


def _origin(context: Context, request: Any) -> Origin:
    author = principal_of(context).name
    return Origin(author=author, reason=request.reason, request_id=request_id_by(author, request))
