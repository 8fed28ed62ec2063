"""One publisher, many subscribers, nothing stored: the fan-out of a MEMORY stream beside core NATS.

Publisher and subscribers are one process on one core, for both sides: subscribers are plain connections whose bytes are
searched for a mark that stands in each event.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import grpc

from bench.load import h2
from bench.load.batches import EVENT_BYTES, MARK, Batches
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import Server
from bench.load.unary import Counts, Load, UnaryConnection
from bench.load.world import NAMESPACE
from bench.peers import nats
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc

PUBLISH = "/trunkline.api.v1.EventService/Publish"
SUBSCRIBE = "/trunkline.api.v1.EventService/Subscribe"
STREAM = "fanout"
BATCH = 100
IN_FLIGHT = 16
CREDIT = 1_000_000
WITHIN_S = 60


class Deliveries:
    """Counts marks until all that were expected are there."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()
        self.at = 0.0

    def expect(self, count: int) -> None:
        """From now on."""
        self.left = count
        self.done.clear()

    def count(self, tail: bytes, received: bytes) -> bytes:
        """Count in what arrived; the bytes that may be the beginning of a mark, for the next time."""
        whole = tail + received
        self.left -= whole.count(MARK)
        if self.left <= 0 and not self.done.is_set():
            self.at = time.perf_counter()
            self.done.set()
        return whole[-len(MARK) + 1 :]


class Subscriber(h2.Connection):
    """An ephemeral subscription that asks for no acknowledgements, with credit for all."""

    def __init__(self, block: bytes, deliveries: Deliveries, opened: Callable[[], None]) -> None:
        super().__init__()
        self._block = block
        self._deliveries = deliveries
        self._opened: Callable[[], None] | None = opened
        self._tail = b""

    def begin(self) -> None:
        """Subscribe."""
        wanted = events_pb2.OpenSubscription(
            subscription_id=1, namespace=NAMESPACE, stream=STREAM, credit=CREDIT, no_acknowledgement=True
        )
        wanted.config.start.latest = True
        self.send(
            self.open(self._block),
            h2.message(events_pb2.SubscribeRequest(open=wanted).SerializeToString()),
            end=False,
        )
        self.flush()

    def data(self, stream: int, payload: memoryview) -> None:
        if self._opened is not None:
            self._opened()
            self._opened = None
        self._tail = self._deliveries.count(self._tail, bytes(payload))

    def ended(self, stream: int) -> None:
        self.lost = self.lost or ConnectionError("the subscription has ended")


class NatsConnection(asyncio.Protocol):
    """A subscriber of one subject, or a publisher."""

    def __init__(self, deliveries: Deliveries, subject: str, opened: Callable[[], None]) -> None:
        self._deliveries = deliveries
        self._subject = subject
        self._opened: Callable[[], None] | None = opened
        self._tail = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        subscribe = b"SUB %s 1\r\n" % self._subject.encode() if self._subject else b""
        transport.write(nats.CONNECT + subscribe + b"PING\r\n")

    def data_received(self, received: bytes) -> None:
        if self._opened is not None and b"PONG" in received:
            self._opened()
            self._opened = None
        if received.startswith(b"PING"):
            assert self.transport is not None
            self.transport.write(b"PONG\r\n")
        self._tail = self._deliveries.count(self._tail, received)


class Opened:
    """Counts down to the last."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.all = asyncio.Event()

    def one(self) -> None:
        """One more."""
        self._left -= 1
        if not self._left:
            self.all.set()


async def our_rates(address: str, subscribers: int, events: int, repetitions: int) -> list[float]:
    """Deliveries a second."""
    host, port = address.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    deliveries, opened = Deliveries(), Opened(subscribers)
    block = h2.headers(SUBSCRIBE, address)
    made = [
        (await loop.create_connection(lambda: Subscriber(block, deliveries, opened.one), host, int(port)))[1]
        for _ in range(subscribers)
    ]
    for subscriber in made:
        subscriber.begin()
    await asyncio.wait_for(opened.all.wait(), WITHIN_S)
    batches = Batches(BATCH, namespace=NAMESPACE, stream=STREAM)
    first = 0

    async def publish() -> None:
        nonlocal first
        start = first
        first += events // BATCH
        load = Load(PUBLISH, lambda number: batches.at(start + number), 1, IN_FLIGHT, limit=events // BATCH)
        publisher = UnaryConnection(load, h2.headers(PUBLISH, address), Counts())
        await loop.create_connection(lambda: publisher, host, int(port))
        publisher.begin()

    found = await timed(deliveries, publish, subscribers * events, repetitions)
    lost = [subscriber.lost for subscriber in made if subscriber.lost is not None]
    if lost:
        raise RuntimeError(f"{len(lost)} subscribers were lost: {lost[0]}")
    for subscriber in made:
        subscriber.close()
    return found


async def nats_rates(address: str, subscribers: int, events: int, repetitions: int) -> list[float]:
    """The same of core NATS."""
    host, port = address.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    deliveries, opened = Deliveries(), Opened(subscribers + 1)
    subjects = ["bench.events"] * subscribers + [""]
    made = [
        (await loop.create_connection(partial(NatsConnection, deliveries, subject, opened.one), host, int(port)))[1]
        for subject in subjects
    ]
    await asyncio.wait_for(opened.all.wait(), WITHIN_S)
    publisher = made[-1].transport
    assert publisher is not None
    many = (b"PUB bench.events %d\r\n%s\r\n" % (EVENT_BYTES, MARK.ljust(EVENT_BYTES, b"."))) * events

    async def publish() -> None:
        publisher.write(many)

    found = await timed(deliveries, publish, subscribers * events, repetitions)
    for connection in made:
        if connection.transport is not None:
            connection.transport.abort()
    return found


async def timed(
    deliveries: Deliveries, publish: Callable[[], Awaitable[None]], count: int, repetitions: int
) -> list[float]:
    """From the first byte published to the last delivery, several times after one that does not count."""
    found = []
    for _ in range(repetitions + 1):
        deliveries.expect(count)
        began = time.perf_counter()
        await publish()
        await asyncio.wait_for(deliveries.done.wait(), WITHIN_S)
        found.append(count / (deliveries.at - began))
        if deliveries.left:
            raise RuntimeError(f"{-deliveries.left} deliveries too many")
    return found[1:]


def create_stream(address: str) -> None:
    """Kept in memory, nothing on disk."""
    wanted = events_pb2.CreateStreamRequest(
        stream=events_pb2.StreamConfig(namespace=NAMESPACE, name=STREAM, sync=common_pb2.SYNC_MEMORY, max_bytes=1 << 30)
    )
    with grpc.insecure_channel(address) as channel:
        events_pb2_grpc.EventServiceStub(channel).CreateStream(wanted, timeout=10)


def measured(folder: Path, subscribers: int, events: int, repetitions: int) -> tuple[list[float], list[float]]:
    """Ours and core NATS's; the latter empty when it is not there."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        create_stream(address)
        ours = asyncio.run(our_rates(address, subscribers, events, repetitions))
    with nats.nats(folder, core=SERVER_CORE) as peer:
        theirs = [] if peer is None else asyncio.run(nats_rates(peer, subscribers, events, repetitions))
    return ours, theirs


def rows(quick: bool) -> list[Row]:
    """Deliveries a second to few and to many."""
    os.sched_setaffinity(0, {LOAD_CORE})
    shapes = ((10, 10_000), (200, 500)) if quick else ((10, 100_000), (1_000, 1_000))
    found = []
    for subscribers, events in shapes:
        with scratch_folder() as folder:
            ours, theirs = measured(folder, subscribers, events, 2 if quick else 4)
        found.append(
            row(
                "subscribe",
                f"{events:,} events of {EVENT_BYTES} B to {subscribers:,} subscribers, batches of {BATCH}, grpc.aio",
                ours,
                "deliveries/s",
                peer="core NATS, GOMAXPROCS=1",
                peer_values=theirs,
                goal="ratio >= 1",
            )
        )
    return found
