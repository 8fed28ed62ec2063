"""RegistryService and DiscoveryService over MemoryRegistry."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from grpc_status import rpc_status

from trunkline.api import convert
from trunkline.api.status import failure_to, status_to
from trunkline.api.v1 import common_pb2, discovery_pb2, discovery_pb2_grpc, registry_pb2, registry_pb2_grpc
from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.core.clock import Clock
from trunkline.core.errors import InstanceNotFound, LeaseNotFound, RevisionCompacted, RevisionInFuture, TrunklineError
from trunkline.core.model import Declared, RegisteredInstance
from trunkline.core.selector import Selector

from ._policies import MemoryPolicies
from ._registry import DEREGISTERED, Key, MemoryRegistry

Answer = TypeVar("Answer")

BOOKMARK_AFTER_S = 5.0
SNAPSHOT_PART = 100
TTL_MS_DEFAULT = 10_000
TOKEN_PREFIX = b"memory:"


async def answered(context: Any, answer: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer, or the call's end with the error's status."""
    try:
        return await answer()
    except TrunklineError as error:
        await context.abort_with_status(rpc_status.to_status(status_to(error)))
        raise AssertionError("abort returned") from None


class Watcher:
    """One watch and what it has applied."""

    def __init__(self, opened: discovery_pb2.OpenWatch) -> None:
        self.id = opened.watch_id
        self.namespace = opened.namespace
        self.service = opened.service
        self.selector: Selector = convert.selector_from(opened.selector)
        self.client = opened.client
        self.told = 0
        self.applied = 0

    def is_of(self, namespace: str, service: str) -> bool:
        """Whether it watches a service, or with an empty one any of the namespace."""
        return self.namespace == namespace and (not service or self.service in ("", service))

    def sees(self, registered: RegisteredInstance | None) -> bool:
        """Whether the instance is in this watch."""
        if registered is None:
            return False
        instance = registered.instance
        return (
            instance.namespace == self.namespace
            and self.service in ("", instance.service)
            and self.selector.matches(registered)
        )


def late_to(watcher: Watcher) -> common_pb2.LateWatcher:
    """One that has not applied what is waited for."""
    return common_pb2.LateWatcher(client=watcher.client, applied_revision=watcher.applied)


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Registrations. Drain waits for `watchers`."""

    def __init__(self, registry: MemoryRegistry, clock: Clock, header: Callable[[], common_pb2.ResponseHeader]) -> None:
        self._registry = registry
        self._clock = clock
        self._header = header
        self.watchers: set[Watcher] = set()
        self.acknowledged = asyncio.Event()
        self.kept: dict[int, int] = {}
        """Leases on open KeepAlive streams, and on how many."""

    async def Register(self, request: registry_pb2.RegisterRequest, context: Any) -> registry_pb2.RegisterResponse:
        async def answer() -> registry_pb2.RegisterResponse:
            before = self._registry.revision
            held = self._registry.register(
                convert.instance_from(request.instance),
                request.lease_secret,
                convert.ms_from(request, "ttl", TTL_MS_DEFAULT),
                take_over=request.take_over,
                now_ns=self._clock.now_ns(),
                time_ns=self._clock.time_ns(),
            )
            return registry_pb2.RegisterResponse(
                header=self._header(),
                lease_id=held.lease_id,
                ttl=convert.ms_to(held.ttl_ms),
                modified_revision=held.registered.modified_revision,
                changed=self._registry.revision != before,
            )

        return await answered(context, answer)

    async def KeepAlive(
        self, request_iterator: AsyncIterator[registry_pb2.KeepAliveRequest], context: Any
    ) -> AsyncIterator[registry_pb2.KeepAliveResponse]:
        mine: set[int] = set()
        try:
            async for request in request_iterator:
                for lease_id in set(request.lease_ids) - mine:
                    mine.add(lease_id)
                    self.kept[lease_id] = self.kept.get(lease_id, 0) + 1
                yield self._renew(request.lease_ids)
        finally:
            for lease_id in mine:
                self.kept[lease_id] -= 1

    def _renew(self, lease_ids: Any) -> registry_pb2.KeepAliveResponse:
        response = registry_pb2.KeepAliveResponse(header=self._header())
        shortest_ms = 0
        for lease_id in lease_ids:
            held = self._registry.renew(lease_id, now_ns=self._clock.now_ns())
            if held is None:
                reason = self._registry.ended.get(lease_id, registry_pb2.LostLease.REASON_UNKNOWN)
                response.lost.add(lease_id=lease_id, reason=registry_pb2.LostLease.Reason.ValueType(reason))
                continue
            response.renewed += 1
            shortest_ms = min(shortest_ms or held.ttl_ms, held.ttl_ms)
        if shortest_ms:
            response.next_within.CopyFrom(convert.ms_to(shortest_ms // 3))
        return response

    async def Deregister(
        self, request: registry_pb2.DeregisterRequest, context: Any
    ) -> registry_pb2.DeregisterResponse:
        async def answer() -> registry_pb2.DeregisterResponse:
            key = self._key_of(request.registration)
            changed = key is not None and self._registry.remove(key, DEREGISTERED)
            return registry_pb2.DeregisterResponse(header=self._header(), changed=changed)

        return await answered(context, answer)

    async def Drain(self, request: registry_pb2.DrainRequest, context: Any) -> registry_pb2.DrainResponse:
        async def answer() -> registry_pb2.DrainResponse:
            key = self._key_of(request.registration)
            if key is None or key not in self._registry.held:
                raise InstanceNotFound("nothing to drain")
            before = self._registry.held[key].registered
            self._registry.declare(key, Declared.DRAINING)
            revision = self._registry.revision
            concerned = [watcher for watcher in self.watchers if watcher.sees(before)]
            late = await self.applied(concerned, revision, convert.ms_from(request, "limit", 30_000))
            return registry_pb2.DrainResponse(
                header=self._header(),
                drained_revision=revision,
                complete=not late,
                late=map(late_to, late),
            )

        return await answered(context, answer)

    async def applied(self, concerned: list[Watcher], revision: int, limit_ms: int) -> list[Watcher]:
        """Wait until these have applied a revision, or are gone; who had not at the limit."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_ms / 1_000):
                while self._late(concerned, revision):
                    self.acknowledged.clear()
                    await self.acknowledged.wait()
        return self._late(concerned, revision)

    def _late(self, concerned: list[Watcher], revision: int) -> list[Watcher]:
        return [watcher for watcher in concerned if watcher in self.watchers and watcher.applied < revision]

    def _key_of(self, ref: registry_pb2.RegistrationRef) -> Key | None:
        if not ref.lease_id:
            return ref.namespace, ref.service, ref.instance_id
        key = self._registry.leases.get(ref.lease_id)
        if key is None and ref.lease_id not in self._registry.ended:
            raise LeaseNotFound(f"no lease {ref.lease_id}")
        return key


REPORTS_MAX = 1_000


class DiscoveryServicer(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Resolve, Watch, WaitUntilApplied and ReportOutcomes."""

    def __init__(
        self,
        registry: MemoryRegistry,
        policies: MemoryPolicies,
        registrations: RegistryServicer,
        header: Callable[[], common_pb2.ResponseHeader],
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._registrations = registrations
        self._header = header
        self.reports: deque[discovery_pb2.ReportOutcomesRequest] = deque(maxlen=REPORTS_MAX)
        """What callers said became of their calls, the latest last."""

    async def ReportOutcomes(
        self, request: discovery_pb2.ReportOutcomesRequest, context: Any
    ) -> discovery_pb2.ReportOutcomesResponse:
        async def answer() -> discovery_pb2.ReportOutcomesResponse:
            self.reports.append(request)
            return discovery_pb2.ReportOutcomesResponse(header=self._header())

        return await answered(context, answer)

    async def Resolve(self, request: discovery_pb2.ResolveRequest, context: Any) -> discovery_pb2.ResolveResponse:
        async def answer() -> discovery_pb2.ResolveResponse:
            opened = discovery_pb2.OpenWatch(
                namespace=request.namespace, service=request.service, selector=request.selector
            )
            return discovery_pb2.ResolveResponse(header=self._header(), instances=self._seen_by(Watcher(opened)))

        return await answered(context, answer)

    async def WaitUntilApplied(
        self, request: discovery_pb2.WaitUntilAppliedRequest, context: Any
    ) -> discovery_pb2.WaitUntilAppliedResponse:
        async def answer() -> discovery_pb2.WaitUntilAppliedResponse:
            if request.revision > self._registry.revision:
                raise RevisionInFuture(f"revision {request.revision} is waited for")
            for wake in self._registry.listeners:
                wake.set()
            late = await self._registrations.applied(
                [one for one in self._registrations.watchers if one.is_of(request.namespace, request.service)],
                request.revision,
                convert.ms_from(request, "limit", 30_000),
            )
            return discovery_pb2.WaitUntilAppliedResponse(
                header=self._header(), complete=not late, late=map(late_to, late)
            )

        return await answered(context, answer)

    async def ListServices(
        self, request: discovery_pb2.ListServicesRequest, context: Any
    ) -> discovery_pb2.ListServicesResponse:
        services = sorted({key[:2] for key in self._registry.held if request.namespace in ("", key[0])})
        return discovery_pb2.ListServicesResponse(
            header=self._header(),
            services=[discovery_pb2.ServiceSummary(namespace=one, service=service) for one, service in services],
        )

    async def Watch(
        self, request_iterator: AsyncIterator[discovery_pb2.WatchRequest], context: Any
    ) -> AsyncIterator[discovery_pb2.WatchResponse]:
        watchers: dict[int, Watcher] = {}
        greetings: list[WatchEvent] = []
        wake = asyncio.Event()
        reading = asyncio.get_running_loop().create_task(self._read(request_iterator, watchers, greetings, wake))
        self._registry.listeners.add(wake)
        try:
            while not reading.done():
                events, greetings[:] = list(greetings), []
                events += [event for watcher in watchers.values() for event in self._news(watcher)]
                if events:
                    yield discovery_pb2.WatchResponse(header=self._header(), events=events)
                if not await self._woken(wake):
                    marks = [self._bookmark(watcher) for watcher in watchers.values()]
                    yield discovery_pb2.WatchResponse(header=self._header(), events=marks)
        finally:
            self._registry.listeners.discard(wake)
            self._registrations.watchers.difference_update(watchers.values())
            self._registrations.acknowledged.set()
            reading.cancel()

    async def _woken(self, wake: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(BOOKMARK_AFTER_S):
                await wake.wait()
        except TimeoutError:
            return False
        wake.clear()
        return True

    async def _read(
        self,
        requests: AsyncIterator[discovery_pb2.WatchRequest],
        watchers: dict[int, Watcher],
        greetings: list[WatchEvent],
        wake: asyncio.Event,
    ) -> None:
        async for request in requests:
            match request.WhichOneof("command"):
                case "open":
                    greetings += self._open(request.open, watchers)
                case "acknowledge" if request.acknowledge.watch_id in watchers:
                    watchers[request.acknowledge.watch_id].applied = request.acknowledge.revision
                    self._registrations.acknowledged.set()
                case "cancel" if request.cancel.watch_id in watchers:
                    self._registrations.watchers.discard(watchers.pop(request.cancel.watch_id))
                    self._registrations.acknowledged.set()
            wake.set()
        wake.set()

    def _open(self, opened: discovery_pb2.OpenWatch, watchers: dict[int, Watcher]) -> list[WatchEvent]:
        try:
            watcher = Watcher(opened)
            told = self._told_by(opened.resume_token)
        except TrunklineError as error:
            return [
                WatchEvent(watch_id=opened.watch_id, kind=WatchEvent.KIND_ENDED, error=failure_to(error)),
            ]
        watchers[watcher.id] = watcher
        self._registrations.watchers.add(watcher)
        if told is None:
            return self._snapshot(watcher)
        watcher.told = told
        return [self._changes(watcher) or self._bookmark(watcher)]

    def _told_by(self, token: bytes) -> int | None:
        """The revision of a resume token; RevisionCompacted when the log does not reach back to it."""
        if not token.startswith(TOKEN_PREFIX):
            return None
        revision = int(token.removeprefix(TOKEN_PREFIX))
        self._registry.since(revision)
        return revision if revision <= self._registry.revision else None

    def _seen_by(self, watcher: Watcher) -> list[common_pb2.RegisteredInstance]:
        held = self._registry.held.values()
        return [convert.registered_to(one.registered) for one in held if watcher.sees(one.registered)]

    def _snapshot(self, watcher: Watcher) -> list[WatchEvent]:
        instances = self._seen_by(watcher)
        parts = [instances[start : start + SNAPSHOT_PART] for start in range(0, len(instances), SNAPSHOT_PART)] or [[]]
        events = [WatchEvent(watch_id=watcher.id, kind=WatchEvent.KIND_SNAPSHOT, upserted=part) for part in parts]
        events[0].policies.extend(self._policies.since(watcher.namespace, watcher.service, 0))
        self._mark(watcher, events[-1])
        events[-1].complete = True
        return events

    def _news(self, watcher: Watcher) -> list[WatchEvent]:
        try:
            changes = self._changes(watcher)
        except RevisionCompacted:
            return self._snapshot(watcher)
        return [] if changes is None else [changes]

    def _changes(self, watcher: Watcher) -> WatchEvent | None:
        event = WatchEvent(watch_id=watcher.id, kind=WatchEvent.KIND_CHANGES)
        latest: dict[Key, tuple[bool, RegisteredInstance | None]] = {}
        for step in self._registry.since(watcher.told):
            seen = latest.get(step.key, (watcher.sees(step.before), None))[0]
            latest[step.key] = (seen, step.after)
        for key, (seen, after) in latest.items():
            if after is not None and watcher.sees(after):
                event.upserted.append(convert.registered_to(after))
            elif seen:
                event.removed.add(service=key[1], id=key[2])
        event.policies.extend(self._policies.since(watcher.namespace, watcher.service, watcher.told))
        if not event.upserted and not event.removed and not event.policies:
            return None
        return self._mark(watcher, event)

    def _bookmark(self, watcher: Watcher) -> WatchEvent:
        return self._mark(watcher, WatchEvent(watch_id=watcher.id, kind=WatchEvent.KIND_BOOKMARK))

    def _mark(self, watcher: Watcher, event: WatchEvent) -> WatchEvent:
        watcher.told = event.revision = self._registry.revision
        event.resume_token = TOKEN_PREFIX + str(watcher.told).encode()
        return event
