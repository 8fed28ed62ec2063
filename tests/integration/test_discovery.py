"""DiscoveryService over real sockets, behind the real chain."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from integration.transports import new_transport

from reference.registry_facts import Journal, instance
from reference.watch import ModelWatcher
from trunkline.api.v1 import discovery_pb2, discovery_pb2_grpc
from trunkline.core.clock import Rng, SystemClock
from trunkline.core.model import Declared
from trunkline.core.records import Record
from trunkline.server.chain.chain import Chain
from trunkline.server.chain.config import ChainConfig
from trunkline.server.chain.gate import House
from trunkline.server.chain.metrics import ChainMetrics
from trunkline.server.chain.readiness import Readiness
from trunkline.server.discovery.discovery import Discovery
from trunkline.server.discovery.service import DiscoveryService
from trunkline.server.registry.changes import RegistryStep
from trunkline.server.registry.fold import RegistryFold
from trunkline.server.security.authenticate import Authenticator
from trunkline.server.security.config import SecurityConfig, TokenGrant
from trunkline.server.security.tokens_fold import TokensFold
from trunkline.server.traffic.outcomes import VERSIONS_MAX
from trunkline.server.transport.sink import SinkConfig

EACH_TRANSPORT = True

JOURNAL_ID = "0123456789abcdef" * 2
A = "instance/default/orders/a"


@dataclass
class Running:
    """A server whose registry the test writes, and a stub for it."""

    fold: RegistryFold
    journal: Journal
    discovery: Discovery
    stub: Any

    def apply(self, *records: Record) -> None:
        for record in records:
            self.fold.apply(record)
        changes, self.fold.changes = tuple(self.fold.changes), []
        last = records[-1]
        self.discovery.apply(RegistryStep(revision=last.offset, time_ns=last.time_ns, changes=changes))

    def watch(self, metadata: tuple[tuple[str, str], ...] = ()) -> Stream:
        return Stream(self.stub.Watch(metadata=metadata))


class Stream:
    """A Watch call and the watchers on it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.watchers: dict[int, ModelWatcher] = {}

    async def open(self, watch_id: int = 1, **order: Any) -> ModelWatcher:
        order.setdefault("namespace", "default")
        order.setdefault("service", "orders")
        watcher = self.watchers[watch_id] = ModelWatcher(watch_id)
        open_watch = discovery_pb2.OpenWatch(watch_id=watch_id, **order)
        await self.call.write(discovery_pb2.WatchRequest(open=open_watch))
        return watcher

    async def acknowledge(self, watcher: ModelWatcher) -> None:
        told = discovery_pb2.AcknowledgeWatch(watch_id=watcher.watch_id, revision=watcher.revision)
        await self.call.write(discovery_pb2.WatchRequest(acknowledge=told))

    async def read(self) -> None:
        """The next message."""
        async with asyncio.timeout(10):
            response = await self.call.read()
        assert response is not grpc.aio.EOF
        for event in response.events:
            self.watchers[event.watch_id].apply(event)

    async def read_until(self, watcher: ModelWatcher, revision: int) -> None:
        while watcher.revision < revision and not watcher.ended:
            await self.read()


@contextlib.asynccontextmanager
async def running(security: SecurityConfig | None = None) -> AsyncIterator[Running]:
    clock = SystemClock()
    fold = RegistryFold(collecting=True)
    discovery = Discovery(fold, journal_id=JOURNAL_ID, incarnation=1, clock=clock, rng=Rng(1))
    authenticator = Authenticator(security or SecurityConfig(), TokensFold(), clock, loopback_is_open=True)
    readiness = Readiness()
    house = House(authenticator=authenticator, readiness=readiness, clock=clock, config=ChainConfig())
    transport = new_transport()
    chain: Any = Chain(transport, house, ChainMetrics())
    discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(DiscoveryService(discovery, SinkConfig()), chain)
    [address] = await transport.start()
    readiness.open()
    working = asyncio.create_task(discovery.watches.run())
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
            yield Running(fold, Journal(), discovery, stub)
    finally:
        await transport.stop(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_resolve_pick_and_list() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a", version="1.0.0")))
        resolved = await server.stub.Resolve(discovery_pb2.ResolveRequest(namespace="default", service="orders"))
        assert [one.instance.id for one in resolved.instances] == ["a"]
        assert (resolved.header.journal_id, resolved.header.revision) == (JOURNAL_ID, 1)
        picked = await server.stub.Pick(discovery_pb2.PickRequest(namespace="default", service="orders"))
        assert (picked.instance.instance.id, picked.candidates) == ("a", 1)
        listed = await server.stub.ListServices(discovery_pb2.ListServicesRequest())
        assert [(one.service, list(one.versions)) for one in listed.services] == [("orders", ["1.0.0"])]
        outcome = discovery_pb2.CallOutcomes(service="orders", count=3)
        reported = await server.stub.ReportOutcomes(
            discovery_pb2.ReportOutcomesRequest(namespace="default", outcomes=[outcome])
        )
        assert reported.dropped == 0
        assert server.discovery.outcomes.lately("default", "orders", 0)[""].calls == 3


async def test_made_up_versions_do_not_keep_registered_ones_from_being_counted() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a", version="1.0.0")))
        for version in (*(f"9.{n}.0" for n in range(VERSIONS_MAX + 1)), "1.0.0"):
            outcome = discovery_pb2.CallOutcomes(service="orders", version=version, count=3)
            reported = await server.stub.ReportOutcomes(
                discovery_pb2.ReportOutcomesRequest(namespace="default", outcomes=[outcome])
            )
        assert reported.dropped == 0
        found = server.discovery.outcomes.lately("default", "orders", 0)
        assert (len(found), found["1.0.0"].calls) == (VERSIONS_MAX, 3)


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("Pick", discovery_pb2.PickRequest(namespace="default", service="nobody"), "UNAVAILABLE"),
        (
            "Pick",
            discovery_pb2.PickRequest(
                namespace="default", service="orders", load_balancing=discovery_pb2.LOAD_BALANCING_RING_HASH
            ),
            "INVALID_ARGUMENT",
        ),
        (
            "Pick",
            discovery_pb2.PickRequest(
                namespace="default", service="orders", load_balancing=discovery_pb2.LOAD_BALANCING_LEAST_REQUEST
            ),
            "FAILED_PRECONDITION",
        ),
        ("Resolve", discovery_pb2.ResolveRequest(namespace="default", service="Not A Name"), "INVALID_ARGUMENT"),
        ("ListServices", discovery_pb2.ListServicesRequest(page_token="nonsense"), "INVALID_ARGUMENT"),
        ("WaitUntilApplied", discovery_pb2.WaitUntilAppliedRequest(namespace="default", revision=99), "OUT_OF_RANGE"),
    ],
)
async def test_bad_requests(method: str, request_: Any, code: str) -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a")))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await getattr(server.stub, method)(request_)
        assert failed.value.code().name == code


async def test_many_watches_on_one_stream() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a")))
        stream = server.watch()
        orders, everything = await stream.open(1), await stream.open(2, service="")
        await stream.read_until(everything, 1)
        await stream.read_until(orders, 1)
        server.apply(
            server.journal.registered(instance("b"), lease_id=2),
            server.journal.registered(instance("x", "cart"), lease_id=3),
        )
        await stream.read_until(everything, 3)
        await stream.read_until(orders, 3)
        assert sorted(orders.view) == [("orders", "a"), ("orders", "b")]
        assert sorted(everything.view) == [("cart", "x"), ("orders", "a"), ("orders", "b")]
        await stream.call.write(discovery_pb2.WatchRequest(cancel=discovery_pb2.CancelWatch(watch_id=1)))
        while not orders.ended:
            await stream.read()
        server.apply(server.journal.removed(A))
        await stream.read_until(everything, 4)
        assert ("orders", "a") not in everything.view


async def test_a_refused_watch_leaves_the_others() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a")))
        stream = server.watch()
        good, bad = await stream.open(1), await stream.open(2, resume_token=b"nonsense")
        while not bad.ended:
            await stream.read()
        assert bad.error is not None
        assert bad.error.reason == "TOKEN_MALFORMED"
        assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        server.apply(server.journal.removed(A))
        await stream.read_until(good, 2)
        assert not good.view


async def test_a_watch_that_is_not_allowed_leaves_the_others() -> None:
    secret = hashlib.sha256(b"secret").hexdigest()
    grant = TokenGrant(id="one", secret_sha256=secret, role="reader", namespaces=("default",))
    async with running(SecurityConfig(tokens=(grant,))) as server:
        server.apply(server.journal.registered(instance("a")))
        stream = server.watch((("authorization", "Bearer tl_one_secret"),))
        good, bad = await stream.open(1), await stream.open(2, namespace="elsewhere")
        while not bad.ended:
            await stream.read()
        assert bad.error is not None
        assert bad.error.reason == "PERMISSION_DENIED"
        server.apply(server.journal.removed(A))
        await stream.read_until(good, 2)
        assert not good.view


async def test_waiting_for_those_who_watch() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a")))
        stream = server.watch()
        watcher = await stream.open(client="the-client")
        await stream.read_until(watcher, 1)
        server.apply(server.journal.declared(A, Declared.DRAINING))
        request = discovery_pb2.WaitUntilAppliedRequest(namespace="default", service="orders", revision=2)
        request.limit.FromMilliseconds(20)
        late = await server.stub.WaitUntilApplied(request)
        assert not late.complete
        assert [one.client for one in late.late] == ["the-client"]
        request.limit.FromMilliseconds(10_000)
        waiting = asyncio.ensure_future(server.stub.WaitUntilApplied(request))
        await stream.read_until(watcher, 2)
        await stream.acknowledge(watcher)
        answer = await waiting
        assert answer.complete
        assert not answer.late


async def test_a_client_that_goes_leaves_nothing() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a")))
        stream = server.watch()
        watcher = await stream.open()
        await stream.read_until(watcher, 1)
        request = discovery_pb2.WaitUntilAppliedRequest(namespace="default", service="orders", revision=1)
        waiting = asyncio.ensure_future(server.stub.WaitUntilApplied(request))
        while not server.discovery.watches.hub.waits:  # noqa: ASYNC110 - nothing tells when a call has arrived
            await asyncio.sleep(0)
        stream.call.cancel()
        assert (await waiting).complete
        counts = server.discovery.watches.hub.counts
        assert (counts.watches, counts.connections) == (0, 0)


async def test_a_large_registry_comes_in_parts() -> None:
    async with running() as server:
        labels = {f"label-{number}": "x" * 200 for number in range(20)}
        server.apply(
            *(server.journal.registered(instance(f"i{n}", labels=labels), lease_id=n + 1) for n in range(2_000))
        )
        stream = server.watch()
        watcher = await stream.open()
        await stream.read_until(watcher, 2_000)
        assert len(watcher.view) == 2_000
        assert [event.kind for event in watcher.seen] == ["snapshot"]


async def test_a_client_that_closes_its_side_is_still_told() -> None:
    async with running() as server:
        server.apply(server.journal.registered(instance("a")))
        stream = server.watch()
        watcher = await stream.open()
        await stream.call.done_writing()
        await stream.read_until(watcher, 1)
        server.apply(server.journal.removed(A))
        await stream.read_until(watcher, 2)
        assert not watcher.view
