"""Leases kept alive over streams: how much of a core that takes, and how much memory an instance."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.load.client.hold import Held, holding
from bench.load.client.program import message, messages
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import NATIVE, Server, called
from bench.load.world import World, build, instance, secret
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api import convert
from trunkline.api.v1 import registry_pb2
from trunkline.server.registry.decisions import lease_id_of

KEEP_ALIVE = "/trunkline.api.v1.RegistryService/KeepAlive"
TTL_MS = 10_000
EVERY_S = TTL_MS / 3_000
"""What the server asks for: a third of the TTL."""


def shares(server: Server, address: str, world: World, connections: int, *, seconds: float) -> list[float]:
    """Percent of a core that the server uses, in each interval of EVERY_S, all leases kept alive in each."""
    ids = [lease_id_of(instance(world, number).key, secret(number)) for number in range(world.instances)]
    per = world.instances // connections
    says = [
        message(registry_pb2.KeepAliveRequest(lease_ids=ids[first : first + per]).SerializeToString())
        for first in range(0, world.instances, per)
    ]
    held = Held(connections=connections, path=KEEP_ALIVE, says=says, every_s=EVERY_S)
    with holding(address, held) as kept:
        time.sleep(2 * EVERY_S)
        found = []
        for _ in range(max(2, round(seconds / EVERY_S))):
            began, used = time.perf_counter(), server.cpu_s()
            time.sleep(EVERY_S)
            found.append(100 * (server.cpu_s() - used) / (time.perf_counter() - began))
        check(kept.release().last, per)
    return found


def check(answers: list[bytes], per: int) -> None:
    """Everybody was answered, and no lease was lost."""
    for answer in answers:
        last = registry_pb2.KeepAliveResponse.FromString(messages(answer)[-1])
        if last.renewed != per or last.lost:
            raise RuntimeError(f"of {per} leases {last.renewed} were renewed and {len(last.lost)} lost")


def measured(folder: Path, world: World, connections: int, *, seconds: float) -> tuple[list[float], float]:
    """CPU shares, and bytes an instance costs beyond its record."""
    build(folder / "data", world)
    empty = folder / "empty"
    empty.mkdir()
    with running(Server(empty, core=SERVER_CORE)) as server:
        server.ready()
        before = server.memory_bytes()
    with running(Server(folder, core=SERVER_CORE)) as server:
        address = server.ready(within_s=90)
        each = (server.memory_bytes() - before) / world.instances
        found = shares(server, address, world, connections, seconds=seconds)
    record = convert.instance_to(instance(world, 0)).ByteSize()
    return found, each - record


def rows(quick: bool) -> list[Row]:
    """Many leases on some connections, and one lease a connection."""
    os.sched_setaffinity(0, {LOAD_CORE})
    shapes = ((5_000, 250),) if quick else ((100_000, 1_000), (10_000, 10_000))
    found = []
    for leases, connections in shapes:
        world = World(instances=leases, services=max(1, leases // 100), ttl_ms=TTL_MS)
        with scratch_folder() as folder:
            used, each = measured(folder, world, connections, seconds=5 if quick else 17)
        what = f"{leases:,} leases, TTL 10 s, {connections:,} connections, {called(NATIVE)}"
        gate, goal = "value <= 25 % of a core", "value <= 10 % of a core"
        found.append(row("keepalive", f"CPU, {what}", used, "% of a core", gate=gate, goal=goal))
        if leases > connections:
            metric = f"memory after a start, an instance beyond its record, {leases:,} instances"
            found.append(row("keepalive", metric, [each], "B", gate="value <= 1024 B"))
    return found
