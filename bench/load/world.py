"""A data folder as a busy installation leaves it: made by the shipped control plane, in one process, without a network.

`python -m bench.load.world FOLDER JSON` makes one and ends without closing anything, as a SIGKILL would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load.batches import Batches
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Rng, SystemClock
from trunkline.core.model import Endpoint, Instance, Locality, Registration, Sync
from trunkline.core.wire import scan_publish
from trunkline.server.admin.about import About
from trunkline.server.events.streams import Promise
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.files.real_disk import RealDisk
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.plane import ControlPlane, PlaneConfig

NAMESPACE = "bench"
STREAM = "events"
SUBSCRIPTION = "billing"
ORIGIN = Origin(author="bench")
BATCH_EVENTS = 1_000
IN_FLIGHT = 8
REGISTERING = 2_000
"""Registrations on their way at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is in the folder."""

    instances: int = 0
    services: int = 1
    ttl_ms: int = 30_000
    changed: int = 0
    """So many instances are registered again with another weight: records behind the last snapshot."""
    events: int = 0
    subscription: bool = False


def instance(world: World, number: int, *, weight: int = 100) -> Instance:
    """One of them, with what a real one declares."""
    return Instance(
        namespace=NAMESPACE,
        service=f"service-{number % world.services:04}",
        id=f"instance-{number:06}",
        version=f"1.{number % 7}.{number % 3}",
        endpoints=(Endpoint(host=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", port=8080, protocol="grpc"),),
        weight=weight,
        locality=Locality(region="eu-west", zone=f"eu-west-{number % 3}"),
        labels={"team": f"team-{number % 20}", "tier": "backend"},
    )


def secret(number: int) -> bytes:
    """The lease secret of an instance."""
    return b"bench-%010d" % number


def build(folder: Path, world: World, *, timeout_s: float = 300) -> None:
    """Make the data folder in a process of its own."""
    command = [sys.executable, "-m", "bench.load.world", str(folder), json.dumps(asdict(world))]
    subprocess.run(command, check=True, timeout=timeout_s, stdin=subprocess.DEVNULL)


async def _build(folder: Path, world: World) -> None:
    clock, rng = SystemClock(), Rng(1)
    engine = SegmentEngine(str(folder), RealDisk(), clock, rng)
    await engine.open()
    about = About(version="0", transport="none", data_folder="", started_ns=0)
    plane = ControlPlane(
        engine,
        clock,
        rng,
        entropy=os.urandom,
        config=PlaneConfig(),
        about=about,
        loopback_is_open=True,
        promise=Promise(sync=Sync.FSYNCED),
    )
    await plane.open()
    running = asyncio.create_task(plane.run())
    await plane.reached()
    keeping = asyncio.create_task(_keep_alive(plane, world))
    await _register(plane, world, range(world.instances), weight=100)
    await _publish(plane, world.events // BATCH_EVENTS)
    if world.subscription:
        stream = await plane.events.streams.get(NAMESPACE, STREAM, ORIGIN)
        config = events_pb2.SubscriptionConfig(max_in_flight=100_000)
        config.start.earliest = True
        config.ack_deadline.FromSeconds(600)
        await plane.events.subscriptions.create(stream, SUBSCRIPTION, config, ORIGIN)
    await plane.control.snapshot()
    await _register(plane, world, range(world.changed), weight=200)
    assert not running.done()
    assert not keeping.done()
    total, lapsed = plane.registry.fold.leases(NAMESPACE)
    assert (total, lapsed) == (world.instances, 0), f"{lapsed} of {total} leases have lapsed"
    os._exit(0)


async def _register(plane: ControlPlane, world: World, numbers: range, *, weight: int) -> None:
    for first in range(0, len(numbers), REGISTERING):
        await asyncio.gather(
            *(
                plane.registry.register(
                    Registration(instance(world, number, weight=weight), secret(number), world.ttl_ms), ORIGIN
                )
                for number in numbers[first : first + REGISTERING]
            )
        )


async def _keep_alive(plane: ControlPlane, world: World) -> None:
    """Making the rest takes longer than a short TTL."""
    while True:
        plane.registry.keep_alive([entry.lease.id for entry in plane.registry.fold.entries()])
        await asyncio.sleep(world.ttl_ms / 4_000)


async def _publish(plane: ControlPlane, batches: int) -> None:
    if not batches:
        return
    stream = await plane.events.streams.get(NAMESPACE, STREAM, ORIGIN)
    made = Batches(BATCH_EVENTS, namespace=NAMESPACE)
    window = asyncio.Semaphore(IN_FLIGHT)

    async def publish(number: int) -> None:
        async with window:
            await stream.publish(scan_publish(made.at(number), stream_request=False), require_sync=0)

    await _all([publish(number) for number in range(batches)])


async def _all(work: list[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for one in work:
            tasks.create_task(one)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)  # that it stood still: it never serves, and works as fast as it can
    asyncio.run(_build(Path(sys.argv[1]), World(**json.loads(sys.argv[2]))))
