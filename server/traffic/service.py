"""TrafficService. Requests are checked and callers known before they come here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, policy_pb2, traffic_pb2
from trunkline.api.v1.traffic_pb2_grpc import TrafficServiceServicer
from trunkline.core.work import Work
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.journal.control.requests import request_id_by
from trunkline.server.journal.control.sequencer import Origin

from ..slices import in_slices
from .blast_radius import LIMIT_DEFAULT, Limits, Radius
from .calls import Calls
from .fold import PolicyEntity
from .traffic import PastChange, Traffic, Wish

RADII_SHOWN = 100
SLICE_POLICIES = 250
"""Written down between two turns of the loop."""

Context = grpc.aio.ServicerContext[Any, Any]


class Explainer(Protocol):
    """Says which instance a call would go to, and why to none of the others."""

    def explain(self, request: traffic_pb2.ExplainPickRequest) -> Work[traffic_pb2.ExplainPickResponse]:
        """The whole answer, a piece at a time."""


class TrafficService(TrafficServiceServicer):
    """Thin: converts, asks the traffic, converts back."""

    def __init__(
        self,
        traffic: Traffic,
        calls: Calls,
        explainer: Explainer,
        header: Callable[[], common_pb2.ResponseHeader],
    ) -> None:
        self._traffic = traffic
        self._calls = calls
        self._header = header
        self._explainer = explainer

    async def ApplyPolicy(
        self, request: traffic_pb2.ApplyPolicyRequest, context: Context
    ) -> traffic_pb2.ApplyPolicyResponse:
        made = await self._traffic.apply(
            request.policy, _wish(request), _origin(context, request), deadline_ns=deadline_ns_of(context)
        )
        return traffic_pb2.ApplyPolicyResponse(
            header=self._header(),
            policy=None if made.entity is None else _kept_to(made.entity),
            changed=made.changed,
            blast_radius=_radii_to(made.radii),
        )

    async def GetPolicy(self, request: traffic_pb2.GetPolicyRequest, context: Context) -> traffic_pb2.GetPolicyResponse:
        namespace, service = request.namespace, request.service
        if request.HasField("revision"):
            change = await self._traffic.change_at(namespace, service, request.revision)
            return traffic_pb2.GetPolicyResponse(header=self._header(), own=_past_to(change))
        held = self._traffic.policies.get(namespace, service)
        own = self._traffic.own(namespace, service)
        return traffic_pb2.GetPolicyResponse(
            header=self._header(),
            own=None if own is None else _kept_to(own),
            effective=policy_pb2.EffectivePolicy(service=service, policy=held.message, revision=held.revision),
        )

    async def ListPolicies(
        self, request: traffic_pb2.ListPoliciesRequest, context: Context
    ) -> traffic_pb2.ListPoliciesResponse:
        policies, token = self._traffic.page(
            request.namespace,
            page_size=request.page_size,
            page_token=request.page_token,
            sees=principal_of(context).sees,
        )
        answer = traffic_pb2.ListPoliciesResponse(header=self._header(), next_page_token=token)
        for first in range(0, len(policies), SLICE_POLICIES):
            answer.policies.extend(map(_kept_to, policies[first : first + SLICE_POLICIES]))
            await asyncio.sleep(0)
        return answer

    async def DeletePolicy(
        self, request: traffic_pb2.DeletePolicyRequest, context: Context
    ) -> traffic_pb2.DeletePolicyResponse:
        made = await self._traffic.delete(
            request.namespace,
            request.service,
            _wish(request),
            _origin(context, request),
            deadline_ns=deadline_ns_of(context),
        )
        return traffic_pb2.DeletePolicyResponse(header=self._header(), blast_radius=_radii_to(made.radii))

    async def ListPolicyChanges(
        self, request: traffic_pb2.ListPolicyChangesRequest, context: Context
    ) -> traffic_pb2.ListPolicyChangesResponse:
        changes, truncated = await self._traffic.changes(
            request.namespace, request.service, max_changes=request.max_changes
        )
        return traffic_pb2.ListPolicyChangesResponse(
            header=self._header(), changes=map(_change_to, changes), truncated=truncated
        )

    async def RollBackPolicy(
        self, request: traffic_pb2.RollBackPolicyRequest, context: Context
    ) -> traffic_pb2.RollBackPolicyResponse:
        made = await self._traffic.roll_back(
            request.namespace,
            request.service,
            request.revision,
            _wish(request),
            _origin(context, request),
            deadline_ns=deadline_ns_of(context),
        )
        return traffic_pb2.RollBackPolicyResponse(
            header=self._header(),
            policy=None if made.entity is None else _kept_to(made.entity),
            changed=made.changed,
            blast_radius=_radii_to(made.radii),
        )

    async def GetCalls(self, request: traffic_pb2.GetCallsRequest, context: Context) -> traffic_pb2.GetCallsResponse:
        answer = await self._calls.look(request.namespace, request.service)
        answer.header.CopyFrom(self._header())
        return answer

    async def ExplainPick(
        self, request: traffic_pb2.ExplainPickRequest, context: Context
    ) -> traffic_pb2.ExplainPickResponse:
        response = await in_slices(self._explainer.explain(request))
        await self._calls.note(response, request.namespace, request.service)
        return response


def _origin(context: Context, request: Any) -> Origin:
    author = principal_of(context).name
    return Origin(author=author, reason=request.reason, request_id=request_id_by(author, request))


def _wish(request: Any) -> Wish:
    said = request.limits
    capacity, keys = LIMIT_DEFAULT, LIMIT_DEFAULT
    if said.HasField("max_capacity_removed_percent"):
        capacity = said.max_capacity_removed_percent
    if said.HasField("max_keys_moved_percent"):
        keys = said.max_keys_moved_percent
    has_expectation = "expected_revision" in request.DESCRIPTOR.fields_by_name and request.HasField("expected_revision")
    return Wish(
        expected=request.expected_revision if has_expectation else None,
        dry_run=request.dry_run,
        force=request.force,
        limits=Limits(capacity, keys),
    )


def _kept_to(entity: PolicyEntity) -> traffic_pb2.KeptPolicy:
    return traffic_pb2.KeptPolicy(
        policy=entity.policy,
        revision=entity.revision,
        changed_at=convert.time_ns_to(entity.time_ns) if entity.time_ns else None,
        author=entity.author,
        reason=entity.reason,
    )


def _past_to(change: PastChange | None) -> traffic_pb2.KeptPolicy | None:
    """As it was kept; None when it had been deleted."""
    if change is None or change.policy is None:
        return None
    record = change.record
    return traffic_pb2.KeptPolicy(
        policy=change.policy,
        revision=record.offset,
        changed_at=convert.time_ns_to(record.time_ns),
        author=record.author,
        reason=record.reason,
    )


def _change_to(change: PastChange) -> traffic_pb2.PolicyChange:
    record = change.record
    return traffic_pb2.PolicyChange(
        policy=change.policy,
        revision=record.offset,
        changed_at=convert.time_ns_to(record.time_ns),
        author=record.author,
        reason=record.reason,
    )


def _radii_to(radii: Sequence[Radius]) -> list[traffic_pb2.BlastRadius]:
    return [
        traffic_pb2.BlastRadius(
            service=radius.service,
            capacity_before=radius.capacity_before,
            capacity_after=radius.capacity_after,
            capacity_removed_percent=radius.capacity_removed,
            keys_moved_percent=radius.keys_moved,
        )
        for radius in radii[:RADII_SHOWN]
    ]
