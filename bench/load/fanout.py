"""One publisher, many subscribers, nothing stored: the fan-out of a MEMORY stream beside core NATS.

Publisher and subscribers are one process on one core, for both sides. As fast as it goes the publisher of ours sends
batches and waits for answers; NATS answers no publish, and is given what it reads. At a rate, the same for both, the events
of a millisecond are published together, and measured is when the last subscriber has each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc

from bench.load.batches import EVENT_BYTES, MARK, NUMBER, Batches
from bench.load.client.fanout import Delivered, Fanout, deliver
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import NATIVE, Server, called
from bench.load.world import NAMESPACE
from bench.peers import nats
from bench.row import Row, row
from bench.runner import scratch_folder
from bench.say import say
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc

PUBLISH = "/trunkline.api.v1.EventService/Publish"
SUBSCRIBE = "/trunkline.api.v1.EventService/Subscribe"
STREAM = "fanout"
BATCH = 100
CREDIT = 1_000_000
PACED = 0.1
"""Of the peer's rate as fast as it goes."""
TICKS_A_SECOND = 1_000
PEER = "core NATS, GOMAXPROCS=1"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of it."""

    subscribers: int
    events: int
    """In a repetition."""
    repetitions: int
    paced_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one side, as fast as it goes and at a rate."""

    fast: list[Delivered]
    paced: list[Delivered]

    def rates(self) -> list[float]:
        """Deliveries a second."""
        return [one.rate for one in self.fast]

    def p99_ms(self) -> list[float]:
        """To the last subscriber."""
        return [one.p99_us / 1_000 for one in self.paced]


def ours(subscribers: int, batch: int) -> Fanout:
    """Ephemeral subscriptions that ask for no acknowledgements, with credit for all. Batches of another size are of
    another source: numbers begin anew, and none is taken for a duplicate."""
    wanted = events_pb2.OpenSubscription(
        subscription_id=1, namespace=NAMESPACE, stream=STREAM, credit=CREDIT, no_acknowledgement=True
    )
    wanted.config.start.latest = True
    return Fanout(
        protocol="grpc",
        opening=events_pb2.SubscribeRequest(open=wanted).SerializeToString(),
        body=Batches(batch, namespace=NAMESPACE, stream=STREAM, source=f"/bench/{batch}").template,
        events=batch,
        subscribers=subscribers,
        subscribe_path=SUBSCRIBE,
        publish_path=PUBLISH,
    )


def theirs(subscribers: int, batch: int) -> Fanout:
    """Subscribers of one subject."""
    event = (MARK + NUMBER).ljust(EVENT_BYTES, b".")
    return Fanout(
        protocol="nats",
        opening=b"SUB bench.events 1\r\n",
        body=(b"PUB bench.events %d\r\n%s\r\n" % (EVENT_BYTES, event)) * batch,
        events=batch,
        subscribers=subscribers,
    )


def paced(address: str, side: Callable[[int, int], Fanout], shape: Shape, rate: float) -> list[Delivered]:
    """So many events a second; those of a millisecond go together, as any pipelined publisher sends them."""
    together = max(1, round(rate / TICKS_A_SECOND))
    bodies = max(10, int(rate / together * shape.paced_s))
    fanout = side(shape.subscribers, together)
    return deliver(address, fanout, bodies=bodies, repetitions=shape.repetitions, rate=rate / together)


def fast(address: str, fanout: Fanout, shape: Shape) -> list[Delivered]:
    """As fast as it goes."""
    return deliver(address, fanout, bodies=shape.events // fanout.events, repetitions=shape.repetitions)


def rate_of(found: list[Delivered], shape: Shape) -> float:
    """A tenth of it, in events a second."""
    return PACED * median(one.rate for one in found) / shape.subscribers


def our_part(folder: Path, shape: Shape, rate: float | None) -> tuple[Measured, float]:
    """And the rate at which it was paced, which is our own if none is given."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        create_stream(address)
        found = fast(address, ours(shape.subscribers, BATCH), shape)
        rate = rate or rate_of(found, shape)
        return Measured(found, paced(address, ours, shape, rate)), rate


def their_part(folder: Path, shape: Shape) -> tuple[Measured, float | None]:
    """The same of core NATS; empty when it is not there."""
    with nats.nats(folder, core=SERVER_CORE) as address:
        if address is None:
            return Measured([], []), None
        found = fast(address, theirs(shape.subscribers, BATCH), shape)
        rate = rate_of(found, shape)
        return Measured(found, paced(address, theirs, shape, rate)), rate


def create_stream(address: str) -> None:
    """Kept in memory, nothing on disk."""
    wanted = events_pb2.CreateStreamRequest(
        stream=events_pb2.StreamConfig(namespace=NAMESPACE, name=STREAM, sync=common_pb2.SYNC_MEMORY, max_bytes=1 << 30)
    )
    with grpc.insecure_channel(address) as channel:
        events_pb2_grpc.EventServiceStub(channel).CreateStream(wanted, timeout=10)


def rows(quick: bool) -> list[Row]:
    """Deliveries a second, and the time to the last subscriber, to few and to many."""
    os.sched_setaffinity(0, {LOAD_CORE})
    shapes = (
        (Shape(10, 10_000, 2, 0.5), Shape(200, 500, 2, 0.5))
        if quick
        else (Shape(10, 100_000, 4, 2), Shape(1_000, 1_000, 4, 2))
    )
    return [made for shape in shapes for made in rows_of(shape)]


def rows_of(shape: Shape) -> list[Row]:
    """One as fast as it goes, one at a rate."""
    with scratch_folder() as folder:
        peer, peers_rate = their_part(folder, shape)
        found, rate = our_part(folder, shape, peers_rate)
    say(f"to {shape.subscribers:,} subscribers at a tenth of the peer's rate: {rate:,.0f} events/s")
    to = f"{EVENT_BYTES} B to {shape.subscribers:,} subscribers"
    return [
        row(
            "subscribe",
            f"{shape.events:,} events of {to}, batches of {BATCH}, {called(NATIVE)}",
            found.rates(),
            "deliveries/s",
            peer=PEER,
            peer_values=peer.rates(),
            gate="ratio >= 0.7",
            goal="ratio >= 1",
        ),
        row(
            "subscribe",
            f"p99 to the last at a tenth of the peer's rate: {to}, {called(NATIVE)}",
            found.p99_ms(),
            "ms",
            peer=PEER,
            peer_values=peer.p99_ms(),
            gate="ratio <= 2",
        ),
    ]
