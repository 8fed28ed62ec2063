"""A server under half its load with churn, for as long as wanted: does its memory, or do its files, grow?

`python -m bench.load.soak --minutes 30`. Connections come and go with every round of calls, streams are opened and broken off,
instances change, events are published into a stream that keeps the last 64 MiB. What the first five minutes fill (dedupe
window, caches, the stream) may grow; after them nothing may. Exits with 1 when something does.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import click
import grpc

from bench.load.batches import Batches
from bench.load.client.unary import Calls, call
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import Server
from bench.load.world import NAMESPACE, World, instance, secret
from bench.runner import scratch_folder
from trunkline.api import convert
from trunkline.api.v1 import (
    discovery_pb2,
    discovery_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from trunkline.core.model import Instance
from trunkline.server.registry.decisions import lease_id_of

RESOLVE = "/trunkline.api.v1.DiscoveryService/Resolve"
PUBLISH = "/trunkline.api.v1.EventService/Publish"
STREAM = "soak"
WORLD = World(services=100, ttl_ms=120_000)
INSTANCES = 1_000
EVENTS_A_BATCH = 1_000
SAMPLE_EVERY_S = 5.0
SETTLED_MINUTES = 5.0
ROUND_S = 20.0
GROWTH_MAX = 0.01
GROWTH_BYTES_MAX = 2 << 20
"""Memory may differ by this between two windows, because an allocator gives back in large pieces."""


_RESOLVE_BODY = discovery_pb2.ResolveRequest(namespace=NAMESPACE, service="service-0000").SerializeToString()


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server had at a time."""

    minute: float
    memory_bytes: int
    files: int


@dataclass(slots=True)
class Soak:
    """Shared by the threads of one run."""

    address: str
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    streams: int = 0
    events: int = 0

    def keep(self, work: Callable[[grpc.Channel], None]) -> None:
        """Do a work again and again, each time on a connection of its own."""
        while not self.over.is_set():
            try:
                with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                    work(channel)
            except Exception as error:
                self.failures.append(f"{work.__name__}: {error!r}"[:300])
                return

    def subscribe(self, channel: grpc.Channel) -> None:
        """Read events for a few seconds, then break off."""
        wanted = events_pb2.SubscribeRequest(
            open=events_pb2.OpenSubscription(
                subscription_id=1, namespace=NAMESPACE, stream=STREAM, credit=100_000, no_acknowledgement=True
            )
        )
        self._read(events_pb2_grpc.EventServiceStub(channel).Subscribe(self._requests(wanted)))

    def watch(self, channel: grpc.Channel) -> None:
        """Watch a few seconds, then break off."""
        wanted = discovery_pb2.WatchRequest(
            open=discovery_pb2.OpenWatch(watch_id=1, namespace=NAMESPACE, service="service-0000")
        )
        self._read(discovery_pb2_grpc.DiscoveryServiceStub(channel).Watch(self._requests(wanted)))

    def _requests(self, first: Any) -> Iterator[Any]:
        yield first
        self.over.wait(60)

    def _read(self, answers: Any) -> None:
        self.streams += 1
        until = time.monotonic() + random.uniform(1, 6)
        timer = threading.Timer(until - time.monotonic(), answers.cancel)
        timer.start()
        try:
            for _ in answers:
                if time.monotonic() > until:
                    break
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise
        finally:
            timer.cancel()
            answers.cancel()

    def publish(self, channel: grpc.Channel) -> None:
        """A thousand events a second, for a round."""
        send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUBLISH)
        batches = Batches(
            EVENTS_A_BATCH, namespace=NAMESPACE, stream=STREAM, source=f"/soak/{random.getrandbits(64):x}"
        )
        for number in range(20):
            if self.over.wait(1):
                return
            send(batches.at(number), timeout=30)
            self.events += EVENTS_A_BATCH

    def register(self, channel: grpc.Channel) -> None:
        """Instances change and stay alive."""
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        for _ in range(40):
            if self.over.wait(0.5):
                return
            number = random.randrange(INSTANCES)
            changed = instance(WORLD, number, weight=random.randint(1, 1_000))
            stub.Register(_registration(changed, number), timeout=30)

    def heartbeat(self, channel: grpc.Channel) -> None:
        """Nobody's lease lapses."""
        ids = [lease_id_of(instance(WORLD, number).key, secret(number)) for number in range(INSTANCES)]
        registry_pb2_grpc.RegistryServiceStub(channel).KeepAliveOnce(
            registry_pb2.KeepAliveOnceRequest(lease_ids=ids), timeout=30
        )
        self.over.wait(20)


def _registration(wanted: Instance, number: int) -> registry_pb2.RegisterRequest:
    request = registry_pb2.RegisterRequest(instance=convert.instance_to(wanted), lease_secret=secret(number))
    request.ttl.FromMilliseconds(WORLD.ttl_ms)
    return request


def prepare(address: str) -> None:
    """The stream and the instances."""
    with grpc.insecure_channel(address) as channel:
        config = events_pb2.StreamConfig(namespace=NAMESPACE, name=STREAM, max_bytes=64 << 20)
        events_pb2_grpc.EventServiceStub(channel).CreateStream(
            events_pb2.CreateStreamRequest(stream=config), timeout=10
        )
        register = registry_pb2_grpc.RegistryServiceStub(channel).Register
        for number in range(INSTANCES):
            register(_registration(instance(WORLD, number), number), timeout=10)


def soaked(server: Server, minutes: float) -> tuple[Soak, list[Sample]]:
    """Run everything; samples every few seconds."""
    soak = Soak(server.ready())
    prepare(soak.address)
    full = call(
        soak.address, Calls(path=RESOLVE, bodies=[_RESOLVE_BODY], connections=8, streams=50), seconds=3, repetitions=3
    )
    half = statistics.median(full.rates) / 2
    works = (soak.subscribe, soak.subscribe, soak.watch, soak.watch, soak.publish, soak.register, soak.heartbeat)
    threads = [threading.Thread(target=soak.keep, args=(work,), daemon=True) for work in works]
    click.echo(f"{statistics.median(full.rates):,.0f} calls/s at most; half of it for {minutes:g} minutes")
    calls = subprocess.Popen([sys.executable, "-m", "bench.load.soak", "--calls", soak.address, str(half)])
    for thread in threads:
        thread.start()
    samples: list[Sample] = []
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < minutes * 60 and not soak.failures:
        if calls.poll() is not None:
            soak.failures.append("the calls ended before their time")
        time.sleep(SAMPLE_EVERY_S)
        files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        samples.append(Sample(passed_s / 60, server.memory_bytes(), files))
        if len(samples) % 12 == 0:
            click.echo(f"minute {samples[-1].minute:5.1f}: {samples[-1].memory_bytes / 2**20:7.1f} MiB, {files} files")
    soak.over.set()
    calls.terminate()
    calls.wait()
    for thread in threads:
        thread.join(ROUND_S + 30)
    return soak, samples


def grown(samples: list[Sample], minutes: float) -> list[str]:
    """What grew after it had settled: the last fifth of the settled time against its first."""
    settled = [sample for sample in samples if sample.minute >= min(SETTLED_MINUTES, minutes / 2)]
    part = max(1, len(settled) // 5)
    first, last = settled[:part], settled[-part:]
    memory = [statistics.median(sample.memory_bytes for sample in window) for window in (first, last)]
    files = [max(sample.files for sample in window) for window in (first, last)]
    click.echo(
        f"settled {memory[0] / 2**20:.1f} MiB, at the end {memory[1] / 2**20:.1f} MiB; {files[0]}, {files[1]} files"
    )
    found = []
    if memory[1] > memory[0] * (1 + GROWTH_MAX) + GROWTH_BYTES_MAX:
        found.append("memory")
    if files[1] > files[0] + 8:
        found.append("files")
    return found


def call_for_ever(address: str, rate: float) -> None:
    """Resolve at a rate, on new connections each round. In a process of its own: who has threads of gRPC must not fork."""
    wanted = Calls(path=RESOLVE, bodies=[_RESOLVE_BODY], connections=8, streams=50, rate=rate)
    while True:
        call(address, wanted, seconds=ROUND_S, repetitions=1, warm_s=0)


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--calls", type=(str, float), hidden=True)
def main(minutes: float, calls: tuple[str, float] | None) -> None:
    """See the module."""
    if calls is not None:
        call_for_ever(*calls)
        return
    os.sched_setaffinity(0, {LOAD_CORE})
    with scratch_folder() as folder, running(Server(folder, core=SERVER_CORE)) as server:
        soak, samples = soaked(server, minutes)
    click.echo(f"{soak.streams:,} streams, {soak.events:,} events")
    wrong = soak.failures or grown(samples, minutes)
    for what in wrong:
        click.echo(f"grew or failed: {what}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
