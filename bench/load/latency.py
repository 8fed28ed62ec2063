"""From publish to delivery: a durable subscriber that acknowledges, one event a request, beside JetStream.

The same C client is publisher and subscriber for both sides, on one core; it reads neither side's events, and says of
each delivery what the protocol wants. JetStream's consumer is a durable one that is pushed to, which is told of a
message at once; a pull consumer would have to ask first. Both sides sync each event before they answer for it. Measured is
from when an event was due, at a fixed rate, until its subscriber has it: what waits because the server cannot keep up counts.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from bench.load.batches import EVENT_BYTES, MARK, NUMBER, Batches
from bench.load.client.fanout import Delivered, Fanout, deliver
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.publish import PUBLISH
from bench.load.server import NATIVE, Server, called
from bench.load.world import NAMESPACE, STREAM
from bench.peers import nats
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc

SUBSCRIBE = "/trunkline.api.v1.EventService/Subscribe"
RATE = 1_000
IN_FLIGHT = 64
"""Publishes that may wait for their answers; the pace is kept as long as there are fewer."""
CREDIT = 256
"""What the SDK gives by default."""


def ours(repetition: int) -> Fanout:
    """A durable subscription of its own that begins with what comes; ids are of its own source, so none is a repeat."""
    wanted = events_pb2.OpenSubscription(subscription_id=1, namespace=NAMESPACE, credit=CREDIT)
    wanted.name = f"latency-{repetition}"
    wanted.config.start.latest = True
    return Fanout(
        protocol="grpc",
        opening=events_pb2.SubscribeRequest(open=wanted).SerializeToString(),
        body=Batches(1, namespace=NAMESPACE, source=f"/bench/{repetition}").template,
        events=1,
        subscribers=1,
        subscribe_path=SUBSCRIBE,
        publish_path=PUBLISH,
        in_flight=IN_FLIGHT,
        acknowledge=True,
    )


def theirs(repetition: int) -> Fanout:
    """Of the subject that a durable consumer of its own is pushed to."""
    event = (MARK + NUMBER).ljust(EVENT_BYTES, b".")
    return Fanout(
        protocol="nats",
        opening=b"SUB bench.pushed.%d 1\r\n" % repetition,
        body=b"PUB bench.events acks %d\r\n%s\r\n" % (EVENT_BYTES, event),
        events=1,
        subscribers=1,
        in_flight=IN_FLIGHT,
        acknowledge=True,
    )


def check_promise(address: str) -> None:
    """RuntimeError when the stream promises less than that events are on disk."""
    with grpc.insecure_channel(address) as channel:
        asked = events_pb2.ListStreamsRequest(namespace=NAMESPACE)
        streams = events_pb2_grpc.EventServiceStub(channel).ListStreams(asked, timeout=10).streams
    promised = [stream.durability.sync for stream in streams if stream.config.name == STREAM]
    if promised != [common_pb2.SYNC_FSYNCED]:
        raise RuntimeError(f"the stream promises {promised}")


def their_turn(address: str, repetition: int, seconds: float) -> Delivered:
    """One repetition, with a consumer that is made for it."""
    client = nats.Client(address)
    client.create_consumer("BENCH", f"latency-{repetition}", f"bench.pushed.{repetition}")
    client.close()
    return turn(address, theirs(repetition), seconds)


def turn(address: str, fanout: Fanout, seconds: float) -> Delivered:
    """One repetition behind one that warms."""
    [found] = deliver(address, fanout, bodies=int(RATE * seconds), repetitions=1, rate=RATE)
    return found


def measured(folder: Path, seconds: float, repetitions: int) -> tuple[list[Delivered], list[Delivered]]:
    """Ours and theirs, which take turns; who waits costs the other nothing. Theirs is empty when it is not there."""
    found: tuple[list[Delivered], list[Delivered]] = ([], [])
    peer = nats.nats(folder, core=SERVER_CORE, sync_interval="always")
    with running(Server(folder, core=SERVER_CORE)) as server, peer as peer_address:
        address = server.ready()
        if peer_address is not None:
            client = nats.Client(peer_address)
            client.create_stream("BENCH", "bench.events")
            client.close()
        for repetition in range(repetitions):
            found[0].append(turn(address, ours(repetition), seconds))
            if peer_address is not None:
                found[1].append(their_turn(peer_address, repetition, seconds))
        check_promise(address)
    return found


def rows(quick: bool) -> list[Row]:
    """The median and the 99th percentile of each repetition."""
    os.sched_setaffinity(0, {LOAD_CORE})
    seconds, repetitions = (1, 2) if quick else (4, 5)
    with scratch_folder() as folder:
        mine, peers = measured(folder, seconds, repetitions)
    what = (
        f"publish to delivery, {RATE:,} x {EVENT_BYTES} B a second, FSYNCED, durable and acknowledged, {called(NATIVE)}"
    )
    peer = "JetStream: file storage, sync_interval: always, durable push consumer with explicit ack, GOMAXPROCS=1"
    return [
        row("latency", f"p50 from {what}", [one.p50_us / 1_000 for one in mine], "ms",
            peer=peer, peer_values=[one.p50_us / 1_000 for one in peers], gate="ratio <= 1"),
        row("latency", f"p99 from {what}", [one.p99_us / 1_000 for one in mine], "ms",
            peer=peer, peer_values=[one.p99_us / 1_000 for one in peers], gate="ratio <= 1"),
    ]  # fmt: skip
