"""Durable publishes in batches, beside JetStream on files and Redis Streams."""

from __future__ import annotations

import os
from pathlib import Path

from bench.load.batches import EVENT_BYTES, Batches
from bench.load.client.unary import Calls, call
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import NATIVE, Server, called
from bench.load.world import NAMESPACE
from bench.peers import nats, redis
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api.v1 import common_pb2, events_pb2

PUBLISH = "/trunkline.api.v1.EventService/Publish"
BATCH = 1_000
IN_FLIGHT = 8


def written_bytes(pid: int) -> int:
    """What the process has given to write() and the like. Answers on sockets may be among it: they are a few bytes each."""
    found = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(found["wchar"])


def our_rates(folder: Path, seconds: float, repetitions: int) -> tuple[list[float], float]:
    """Events a second, and bytes written per byte of event. What is answered is FSYNCED, and was not there before."""
    template = Batches(BATCH, namespace=NAMESPACE).template
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        before = written_bytes(server.process.pid)
        calls = Calls(path=PUBLISH, bodies=[template], streams=IN_FLIGHT)
        found = call(address, calls, seconds=seconds, repetitions=repetitions, warm_s=1)
        written = written_bytes(server.process.pid) - before
    answer = events_pb2.PublishResponse.FromString(found.body)
    assert answer.durability.sync == common_pb2.SYNC_FSYNCED
    assert not any(run.duplicate for run in answer.published)
    return [rate * BATCH for rate in found.rates], written / (found.answered * BATCH * EVENT_BYTES)


def nats_rates(folder: Path, sync_interval: str, batches: int, repetitions: int) -> list[float]:
    """Acknowledged messages a second; empty when it is not there."""
    own = folder / f"nats-{sync_interval}"
    own.mkdir()
    with nats.nats(own, core=SERVER_CORE, sync_interval=sync_interval) as address:
        if address is None:
            return []
        client = nats.Client(address)
        client.create_stream("BENCH", "bench.events")
        found = [
            client.published_a_second(["bench.events"], BATCH, batches, size=EVENT_BYTES, in_flight=IN_FLIGHT)
            for _ in range(repetitions)
        ]
        client.close()
        return found


def redis_rates(folder: Path, batches: int, repetitions: int) -> list[float]:
    """XADDs a second; empty when it is not there."""
    with redis.redis(folder, core=SERVER_CORE) as port:
        if port is None:
            return []
        return [
            redis.added_a_second(
                port, count=batches * BATCH, size=EVENT_BYTES, connections=IN_FLIGHT, pipeline=BATCH, core=LOAD_CORE
            )
            for _ in range(repetitions)
        ]


def rows(quick: bool) -> list[Row]:
    """Events a second; the same number of bytes in flight for all."""
    os.sched_setaffinity(0, {LOAD_CORE})
    seconds, batches, slow, repetitions = (0.5, 200, 2, 3) if quick else (1.5, 500, 3, 5)
    with scratch_folder() as folder:
        ours, written = our_rates(folder, seconds, repetitions)
        default = nats_rates(folder, "2m", batches, repetitions)
        always = nats_rates(folder, "always", slow, 3)
        streams = redis_rates(folder, batches, repetitions)
    metric = f"publish, {BATCH:,} x {EVENT_BYTES} B, FSYNCED, {IN_FLIGHT} in flight, {called(NATIVE)}"
    peers = (
        ("JetStream: file storage, default sync (2 minutes)", default, "ratio >= 3"),
        ("JetStream: file storage, sync_interval: always", always, None),
        ("Redis Streams: XADD, appendfsync always", streams, "ratio >= 2"),
    )
    found = [
        row("publish", metric, ours, "events/s", peer=peer, peer_values=values, goal=goal)
        for peer, values, goal in peers
    ]
    per_byte = f"bytes given to write() per byte of event, {BATCH:,} x {EVENT_BYTES} B"
    found.append(row("publish", per_byte, [written], "bytes", gate="value <= 1.35 bytes", goal="value <= 1.2 bytes"))
    return found
