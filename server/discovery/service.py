"""DiscoveryService on grpc.aio. Requests are checked and callers known before they come here."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

import grpc

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, discovery_pb2
from trunkline.api.v1.discovery_pb2_grpc import DiscoveryServiceServicer
from trunkline.core.policy import Algorithm
from trunkline.server.chain.call import principal_of
from trunkline.server.security.principal import Resource, Verb, authorize
from trunkline.server.slices import in_slices
from trunkline.server.traffic.outcomes import Reported
from trunkline.server.transport.sink import SinkConfig, sink_of

from .applied import LateWatcher
from .catalogue import ServiceSummary
from .discovery import Discovery
from .watch_stream import serve_watches

PAGE_SIZE_DEFAULT = 1_000
WAIT_LIMIT_MS_DEFAULT = 30_000

Context = grpc.aio.ServicerContext[Any, Any]


class DiscoveryService(DiscoveryServiceServicer):
    """Thin: converts, asks Discovery, converts back."""

    def __init__(self, discovery: Discovery, sink_config: SinkConfig) -> None:
        self._discovery = discovery
        self._sink_config = sink_config

    async def Resolve(self, request: discovery_pb2.ResolveRequest, context: Context) -> bytes:  # type: ignore[override]
        return self._discovery.resolve(request)

    async def Pick(self, request: discovery_pb2.PickRequest, context: Context) -> discovery_pb2.PickResponse:
        picked = await self._discovery.pickers.pick(
            request.namespace,
            request.service,
            convert.selector_from(request.selector),
            Algorithm(request.load_balancing) if request.load_balancing else None,
            request.hash_key,
            metadata=request.metadata,
            locality=convert.locality_from(request.locality),
        )
        return discovery_pb2.PickResponse(
            header=self._discovery.headers.message(),
            instance=convert.registered_to(picked.instance),
            candidates=picked.candidates,
        )

    async def Watch(self, request_iterator: AsyncIterable[discovery_pb2.WatchRequest], context: Context) -> None:  # type: ignore[override]
        principal = principal_of(context)
        async with sink_of(context, self._sink_config) as sink:
            await serve_watches(
                self._discovery.watches.hub,
                request_iterator,
                sink,
                client=context.peer() or "unknown",
                allow=lambda namespace: authorize(principal, Verb.READ, Resource(namespace)),
            )

    async def ListServices(
        self, request: discovery_pb2.ListServicesRequest, context: Context
    ) -> discovery_pb2.ListServicesResponse:
        page = await self._discovery.catalogue.page(
            request.namespace,
            page_size=request.page_size or PAGE_SIZE_DEFAULT,
            page_token=request.page_token,
            sees=principal_of(context).sees,
        )
        return discovery_pb2.ListServicesResponse(
            header=self._discovery.headers.message(),
            services=map(_summary_to, page.services),
            next_page_token=page.next_page_token,
        )

    async def ReportOutcomes(
        self, request: discovery_pb2.ReportOutcomesRequest, context: Context
    ) -> discovery_pb2.ReportOutcomesResponse:
        reports = map(_reported_from, request.outcomes)
        now_ns = self._discovery.clock.now_ns()
        work = self._discovery.outcomes.report_in_slices(request.namespace, reports, now_ns, caller=request.caller)
        dropped = await in_slices(work)
        client = request.client or context.peer() or "unknown"
        dropped += not self._discovery.caller_states.say(request.namespace, client, request.states, now_ns)
        return discovery_pb2.ReportOutcomesResponse(header=self._discovery.headers.message(), dropped=dropped)

    async def WaitUntilApplied(
        self, request: discovery_pb2.WaitUntilAppliedRequest, context: Context
    ) -> discovery_pb2.WaitUntilAppliedResponse:
        limit_ns = convert.ms_from(request, "limit", WAIT_LIMIT_MS_DEFAULT) * 1_000_000
        result = await self._discovery.watches.wait_applied(
            request.namespace, request.service, None, request.revision, limit_ns
        )
        return discovery_pb2.WaitUntilAppliedResponse(
            header=self._discovery.headers.message(), complete=result.complete, late=map(late_to, result.late)
        )


def late_to(late: LateWatcher) -> common_pb2.LateWatcher:
    """A late watcher as WaitUntilApplied and Drain name it."""
    return common_pb2.LateWatcher(
        client=late.client,
        applied_revision=late.applied_revision,
        late_by=convert.ms_to(late.late_by_ns // 1_000_000),
    )


def _summary_to(summary: ServiceSummary) -> discovery_pb2.ServiceSummary:
    return discovery_pb2.ServiceSummary(
        namespace=summary.namespace,
        service=summary.service,
        counts=[
            discovery_pb2.StatusCount(status=convert.status_to(status), count=count)
            for status, count in summary.counts.items()
        ],
        versions=summary.versions,
    )


def _reported_from(outcomes: discovery_pb2.CallOutcomes) -> Reported:
    return Reported(
        service=outcomes.service,
        version=outcomes.version,
        status_code=outcomes.status_code,
        calls=outcomes.count,
        latency_ns=outcomes.total_latency.seconds * 1_000_000_000 + outcomes.total_latency.nanos,
        instance_id=outcomes.instance_id,
        buckets=dict(outcomes.latency_buckets),
    )
