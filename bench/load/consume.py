"""Durable consumers end to end: the Python SDK with order by key, beside nats-py's pull consumer on JetStream.

Either has a process of its own, the same number of deliveries on their way, and a handler that does nothing. The events
are there before the first is asked for; each repetition is a subscription of its own that begins with the first of them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from bench.load.batches import EVENT_BYTES, Batches
from bench.load.client.program import pin
from bench.load.drain import NATS_STREAM, NATS_SUBJECTS, TOGETHER, WITHIN_S
from bench.load.process import LOAD_CORE, ROOT, SERVER_CORE, running
from bench.load.publish import BATCH, IN_FLIGHT, PUBLISH
from bench.load.server import NATIVE, Server, called
from bench.load.world import NAMESPACE
from bench.peers import nats
from bench.row import Row, row
from bench.runner import scratch_folder
from bench.say import say, say_command
from trunkline.api.v1 import common_pb2, events_pb2

KEYS = 1_000


def drained_a_second(side: str, address: str, repetition: int, count: int) -> float:
    """Events a second of one consumer, in a process on the load's core."""
    words = [NAMESPACE, f"consumer-{repetition}", str(count)]
    command = [sys.executable, "-m", "bench.load.drain", side]
    say_command([*command, "ADDRESS", *words])
    done = subprocess.run(
        [*command, address, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        timeout=WITHIN_S + 10,
        check=True,
        preexec_fn=pin,
    )
    return float(done.stdout)


def publish(address: str, count: int) -> None:
    """Events of so many keys in turn. RuntimeError when the stream promises less than that they are on disk."""
    batches = Batches(BATCH, namespace=NAMESPACE, keys=KEYS)
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUBLISH)
        for number in range(count // BATCH):
            answer = events_pb2.PublishResponse.FromString(call(batches.at(number), timeout=30))
            if answer.durability.sync != common_pb2.SYNC_FSYNCED:
                raise RuntimeError(f"the stream promises {answer.durability}")


@contextmanager
def our_server(folder: Path, count: int) -> Iterator[str]:
    """Its address; the events are there."""
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready()
        publish(address, count)
        yield address


@contextmanager
def nats_server(folder: Path, count: int) -> Iterator[str | None]:
    """The same of JetStream; None when it or nats-py is not there."""
    if importlib.util.find_spec("nats") is None:
        say("nats-py is not installed: skipped")
        yield None
        return
    with nats.nats(folder, core=SERVER_CORE, sync_interval="2m") as address:
        if address is not None:
            client = nats.Client(address)
            client.create_stream(NATS_STREAM, NATS_SUBJECTS)
            subjects = [NATS_SUBJECTS.replace("*", f"{key:03}") for key in range(KEYS)]
            client.published_a_second(subjects, BATCH, count // BATCH, size=EVENT_BYTES, in_flight=IN_FLIGHT)
            client.close()
        yield address


def rows(quick: bool) -> list[Row]:
    """Events a second. The sides take turns; who waits costs the other nothing."""
    os.sched_setaffinity(0, {LOAD_CORE})
    count, repetitions = (3_000, 2) if quick else (30_000, 5)
    ours, theirs = [], []
    with scratch_folder() as folder, our_server(folder, count) as address, nats_server(folder, count) as peer_address:
        for repetition in range(repetitions):
            ours.append(drained_a_second("ours", address, repetition, count))
            if peer_address is not None:
                theirs.append(drained_a_second("nats", peer_address, repetition, count))
    metric = (
        f"drain {count:,} x {EVENT_BYTES} B of {KEYS:,} keys, FSYNCED, acknowledged: one Python process on asyncio, "
        f"consume(concurrency={TOGETHER}) in order by key, {TOGETHER} on their way, {called(NATIVE)}"
    )
    peer = (
        f"nats-py on asyncio: durable pull consumer, fetch({TOGETHER}), explicit ack; JetStream on files, default sync"
    )
    return [row("consume", metric, ours, "events/s", peer=peer, peer_values=theirs, gate="ratio >= 3")]
