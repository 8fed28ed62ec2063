"""Load that remembers every acknowledgement, and the audit that asks a control plane for all of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from trunkline.api import convert
from trunkline.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    discovery_pb2,
    discovery_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from trunkline.client import BackoffOptions, ClientOptions, Event, Published, connect
from trunkline.core.model import Sync

NAMESPACE = "default"
OPTIONS = ClientOptions(timeout_s=60, backoff=BackoffOptions(initial_backoff_s=0.05, max_backoff_s=0.3))
CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.max_receive_message_length", 64 << 20),
]
TTL_S = 300
AUDIT_WITHIN_S = 60


@dataclass
class Ledger:
    """What a control plane has acknowledged, and who it said it was."""

    sent: dict[str, Event] = field(default_factory=dict)
    """Every event that was ever sent, by id."""
    events: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """By stream: offset to event id."""
    instances: dict[tuple[str, str], int] = field(default_factory=dict)
    """(service, id) to lease."""
    streams: set[str] = field(default_factory=set)
    subscriptions: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    identities: set[tuple[str, int]] = field(default_factory=set)
    """(journal id, incarnation of control): one, as long as nothing was restored."""

    @property
    def published(self) -> int:
        return sum(map(len, self.events.values()))

    def publish(self, published: Published) -> None:
        for event in published.events:
            known = self.events[published.stream].setdefault(event.offset, event.id)
            assert known == event.id, f"offset {event.offset} was acknowledged for {known} and for {event.id}"

    def meet(self, header: common_pb2.ResponseHeader) -> None:
        self.identities.add((header.journal_id, header.incarnation))


class Plane:
    """Plain generated stubs on one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.registry: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        self.discovery: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        self.events: Any = events_pb2_grpc.EventServiceStub(channel)
        self.admin: Any = admin_pb2_grpc.AdminServiceStub(channel)


@contextlib.asynccontextmanager
async def plain(address: str) -> AsyncIterator[Plane]:
    """Stubs as any client in any language has them."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield Plane(channel)


async def insist(method: Any, request: Any) -> Any:
    """Repeat a call, the same request every time, for as long as the control plane is away."""
    while True:
        try:
            return await method(request, timeout=20, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.05)


class Load:
    """Publishers, pipelined and one by one, registrars, and a maker of streams, subscriptions and tokens."""

    def __init__(self, address: str, ledger: Ledger, *, streams: tuple[str, ...] = ("events",)) -> None:
        self._address = address
        self._ledger = ledger
        self._streams = streams

    async def run(self) -> None:
        """Until cancelled."""
        async with (
            connect(self._address, options=OPTIONS, name="load") as trunkline,
            plain(self._address) as plane,
            asyncio.TaskGroup() as tasks,
        ):
            for stream in self._streams:
                tasks.create_task(self._pipeline(trunkline, stream))
                for _ in range(3):
                    tasks.create_task(self._publish(trunkline, stream))
            for number in range(4):
                tasks.create_task(self._register(plane, f"service-{number}"))
            tasks.create_task(self._make(plane))

    def _new_events(self, count: int) -> list[Event]:
        events = []
        for _ in range(count):
            id = os.urandom(8).hex()
            event = Event(
                type=f"load.{id[0]}", id=id, source="/load", key=id[:2], data=os.urandom(int(id[1:3], 16)),
                attributes={"number": len(self._ledger.sent)},
            )  # fmt: skip
            self._ledger.sent[id] = event
            events.append(event)
        return events

    async def _publish(self, trunkline: Any, stream: str) -> None:
        while True:
            self._ledger.publish(await trunkline.publish(self._new_events(5), stream=stream))

    async def _pipeline(self, trunkline: Any, stream: str) -> None:
        async with trunkline.publisher(stream=stream, timeout_s=60) as publisher:
            while True:
                answers = [await publisher.send(self._new_events(3)) for _ in range(20)]
                try:
                    for answer in answers:
                        self._ledger.publish(await answer)
                finally:
                    for answer in answers:
                        answer.cancel()

    async def _register(self, plane: Plane, service: str) -> None:
        while True:
            id = f"{service}-{os.urandom(5).hex()}"
            request = registry_pb2.RegisterRequest(
                instance=common_pb2.Instance(
                    namespace=NAMESPACE, service=service, id=id, version="1.2.3",
                    endpoints=[common_pb2.Endpoint(host="127.0.0.1", port=8080)], labels={"born": id},
                ),
                lease_secret=os.urandom(16),
                ttl=convert.ms_to(TTL_S * 1_000),
            )  # fmt: skip
            answer = await insist(plane.registry.Register, request)
            self._ledger.instances[service, id] = answer.lease_id
            self._ledger.meet(answer.header)

    async def _make(self, plane: Plane) -> None:
        while True:
            name = f"made-{os.urandom(5).hex()}"
            await insist(plane.events.CreateStream, events_pb2.CreateStreamRequest(
                stream=events_pb2.StreamConfig(namespace=NAMESPACE, name=name, sync=common_pb2.SYNC_FSYNCED),
                request_id=f"{name}-stream",
            ))  # fmt: skip
            self._ledger.streams.add(name)
            await insist(plane.events.CreateSubscription, events_pb2.CreateSubscriptionRequest(
                namespace=NAMESPACE, stream=name, name=name, request_id=f"{name}-subscription",
                config=events_pb2.SubscriptionConfig(filters=[f"{name}.*"]),
            ))  # fmt: skip
            self._ledger.subscriptions.add(name)
            made = await insist(plane.admin.CreateToken, admin_pb2.CreateTokenRequest(
                role=admin_pb2.ROLE_READER, namespaces=[NAMESPACE], description=name, request_id=f"{name}-token",
            ))  # fmt: skip
            self._ledger.tokens.add(made.token.id)
            await asyncio.sleep(0.1)


async def make_stream(address: str, name: str, sync: Sync) -> None:
    """A stream of this durability."""
    async with plain(address) as plane:
        config = events_pb2.StreamConfig(namespace=NAMESPACE, name=name, sync=common_pb2.Sync.ValueType(sync))
        await plane.events.CreateStream(events_pb2.CreateStreamRequest(stream=config, request_id=name), timeout=20)


async def audit(address: str, ledger: Ledger, *, streams: tuple[str, ...] = ("events",)) -> list[str]:
    """One line for everything that was acknowledged and is not there, or not as it was."""
    async with asyncio.timeout(AUDIT_WITHIN_S), plain(address) as plane:
        status = await plane.admin.Status(admin_pb2.StatusRequest(), timeout=20)
        ledger.meet(status.header)
        broken = [f"one journal became {ledger.identities}"] if len(ledger.identities) > 1 else []
        broken += await _missing_instances(plane, ledger)
        broken += await _missing_made(plane, ledger)
    for stream in streams:
        broken += await _missing_events(address, stream, ledger)
        broken += await _forgotten_ids(address, stream, ledger)
    return broken


async def _missing_instances(plane: Plane, ledger: Ledger) -> list[str]:
    acknowledged = dict(ledger.instances)
    found: set[tuple[str, str]] = set()
    for service in {service for service, _ in acknowledged}:
        request = discovery_pb2.ResolveRequest(namespace=NAMESPACE, service=service)
        for one in (await plane.discovery.Resolve(request, timeout=20)).instances:
            if dict(one.instance.labels) == {"born": one.instance.id} and one.instance.version == "1.2.3":
                found.add((service, one.instance.id))
    broken = [f"instance {service}/{id} is gone" for service, id in acknowledged.keys() - found]
    leases = list(acknowledged.values())
    for begin in range(0, len(leases), 10_000):
        renewal = registry_pb2.KeepAliveOnceRequest(lease_ids=leases[begin : begin + 10_000])
        answer = await plane.registry.KeepAliveOnce(renewal, timeout=20)
        broken += [f"lease {lost.lease_id} is lost" for lost in answer.lost]
    return broken


async def _missing_made(plane: Plane, ledger: Ledger) -> list[str]:
    expected = (set(ledger.streams), set(ledger.subscriptions), set(ledger.tokens))
    streams = await plane.events.ListStreams(events_pb2.ListStreamsRequest(namespace=NAMESPACE), timeout=20)
    found = {one.config.name for one in streams.streams}
    broken = [f"stream {name} is gone" for name in expected[0] - found]
    asked = events_pb2.ListSubscriptionsRequest(namespace=NAMESPACE)
    subscriptions = await plane.events.ListSubscriptions(asked, timeout=20)
    found = {one.name for one in subscriptions.subscriptions if list(one.config.filters) == [f"{one.name}.*"]}
    broken += [f"subscription {name} is gone" for name in expected[1] - found]
    tokens = await plane.admin.ListTokens(admin_pb2.ListTokensRequest(), timeout=20)
    return broken + [f"token {id} is gone" for id in expected[2] - {token.id for token in tokens.tokens}]


async def _missing_events(address: str, stream: str, ledger: Ledger) -> list[str]:
    acknowledged = dict(ledger.events[stream])
    if not acknowledged:
        return [f"nothing was acknowledged in {stream}: nothing can be checked"]
    broken: list[str] = []
    found: dict[int, str] = {}
    async with plain(address) as plane:
        request = events_pb2.ListStreamsRequest(namespace=NAMESPACE)
        streams = (await plane.events.ListStreams(request, timeout=20)).streams
    last = min(max(acknowledged), *(one.next_offset - 1 for one in streams if one.config.name == stream))
    async with connect(address, options=OPTIONS, name="audit") as trunkline, asyncio.timeout(AUDIT_WITHIN_S):
        subscription = trunkline.subscribe(stream=stream, start="earliest", acknowledge=False, credit=5_000)
        async for delivery in subscription:
            found[delivery.offset] = delivery.event.id
            sent = ledger.sent.get(delivery.event.id)
            if sent != delivery.event:
                broken.append(f"{stream} {delivery.offset} holds {delivery.event}, sent was {sent}")
            if delivery.offset >= last:
                break
    broken += [
        f"{stream} {offset} was acknowledged for {id} and holds {found.get(offset)}"
        for offset, id in acknowledged.items()
        if found.get(offset) != id
    ]
    return broken + [f"{stream} holds {id} {n} times" for id, n in Counter(found.values()).items() if n > 1]


async def _forgotten_ids(address: str, stream: str, ledger: Ledger) -> list[str]:
    """Repeat some of the oldest and the latest: each is recognised, and its place told."""
    known = sorted(ledger.events[stream].items())
    chosen = dict(known[:100] + known[-300:])
    async with connect(address, options=OPTIONS, name="audit") as trunkline:
        again = await trunkline.publish([ledger.sent[id] for id in chosen.values()], stream=stream)
    return [
        f"{stream} {offset}: a repeat of {event.id} was kept anew at {event.offset}"
        for offset, event in zip(chosen, again.events, strict=True)
        if not event.duplicate or event.offset != offset
    ]
