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


def ours() -> Fanout:
    """A durable subscription that begins with what comes."""
    wanted = events_pb2.OpenSubscription(subscription_id=1, namespace=NAMESPACE, name="latency", credit=CREDIT)
    wanted.config.start.latest = True
    return Fanout(
        protocol="grpc",
        opening=events_pb2.SubscribeRequest(open=wanted).SerializeToString(),
        body=Batches(1, namespace=NAMESPACE).template,
        events=1,
        subscribers=1,
        subscribe_path=SUBSCRIBE,
        publish_path=PUBLISH,
        in_flight=IN_FLIGHT,
        acknowledge=True,
    )


def theirs() -> Fanout:
    """Of the subject that the consumer is pushed to."""
    event = (MARK + NUMBER).ljust(EVENT_BYTES, b".")
    return Fanout(
        protocol="nats",
        opening=b"SUB bench.pushed 1\r\n",
        body=b"PUB bench.events acks %d\r\n%s\r\n" % (EVENT_BYTES, event),
        events=1,
        subscribers=1,
        in_flight=IN_FLIGHT,
        acknowledge=True,
    )


def our_part(folder: Path, seconds: float, repetitions: int) -> list[Delivered]:
    """RuntimeError when the stream promises less than that events are on disk."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        found = deliver(address, ours(), bodies=int(RATE * seconds), repetitions=repetitions, rate=RATE)
        with grpc.insecure_channel(address) as channel:
            asked = events_pb2.ListStreamsRequest(namespace=NAMESPACE)
            streams = events_pb2_grpc.EventServiceStub(channel).ListStreams(asked, timeout=10).streams
    promised = [stream.durability.sync for stream in streams if stream.config.name == STREAM]
    if promised != [common_pb2.SYNC_FSYNCED]:
        raise RuntimeError(f"the stream promises {promised}")
    return found


def their_part(folder: Path, seconds: float, repetitions: int) -> list[Delivered]:
    """The same of JetStream; empty when it is not there."""
    with nats.nats(folder, core=SERVER_CORE, sync_interval="always") as address:
        if address is None:
            return []
        client = nats.Client(address)
        client.create_stream("BENCH", "bench.events")
        client.create_consumer("BENCH", "latency", "bench.pushed")
        client.close()
        return deliver(address, theirs(), bodies=int(RATE * seconds), repetitions=repetitions, rate=RATE)


def rows(quick: bool) -> list[Row]:
    """The median and the 99th percentile of each repetition."""
    os.sched_setaffinity(0, {LOAD_CORE})
    seconds, repetitions = (1, 2) if quick else (5, 5)
    with scratch_folder() as folder:
        theirs = their_part(folder, seconds, repetitions)
        ours = our_part(folder, seconds, repetitions)
    what = f"publish to delivery, {RATE:,} x {EVENT_BYTES} B a second, FSYNCED, durable and acknowledged, {called(NATIVE)}"
    peer = "JetStream: file storage, sync_interval: always, durable push consumer with explicit ack, GOMAXPROCS=1"
    return [
        row("latency", f"p50 from {what}", [one.p50_us / 1_000 for one in ours], "ms",
            peer=peer, peer_values=[one.p50_us / 1_000 for one in theirs], gate="ratio <= 1"),
        row("latency", f"p99 from {what}", [one.p99_us / 1_000 for one in ours], "ms",
            peer=peer, peer_values=[one.p99_us / 1_000 for one in theirs], gate="ratio <= 1"),
    ]  # fmt: skip
