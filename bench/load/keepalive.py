"""Leases kept alive over streams: how much of a core that takes, and how much memory an instance."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from bench.load import h2
from bench.load.process import LOAD_CORE, SERVER_CORE, running
from bench.load.server import Server
from bench.load.world import World, build, instance, secret
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.api import convert
from trunkline.api.v1 import registry_pb2
from trunkline.server.registry.decisions import lease_id_of
from trunkline.server.registry.entity import InstanceKey

KEEP_ALIVE = "/trunkline.api.v1.RegistryService/KeepAlive"
TTL_MS = 10_000
EVERY_S = TTL_MS / 3_000
"""What the server asks for: a third of the TTL."""


class KeepAliveConnection(h2.Connection):
    """Keeps its leases alive over one stream."""

    def __init__(self, lease_ids: list[int], block: bytes) -> None:
        super().__init__()
        self.answers: list[bytes] = []
        self._request = h2.message(registry_pb2.KeepAliveRequest(lease_ids=lease_ids).SerializeToString())
        self._block = block
        self._stream = 0

    def begin(self) -> None:
        """Open the stream and say it for the first time."""
        self._stream = self.open(self._block)
        self.say()

    def say(self) -> None:
        """All leases, now and every third of the TTL."""
        self.send(self._stream, self._request, end=False)
        self.flush()
        asyncio.get_running_loop().call_later(EVERY_S, self.say)

    def data(self, stream: int, payload: memoryview) -> None:
        self.answers.append(bytes(payload))

    def ended(self, stream: int) -> None:
        self.lost = self.lost or ConnectionError("the stream has ended")


async def shares(server: Server, address: str, world: World, connections: int, *, seconds: float) -> list[float]:
    """Percent of a core that the server uses, in each interval of EVERY_S, all leases kept alive in each."""
    host, port = address.rsplit(":", 1)
    block = h2.headers(KEEP_ALIVE, address)
    ids = [lease_id_of(InstanceKey.of(instance(world, number)), secret(number)) for number in range(world.instances)]
    loop = asyncio.get_running_loop()
    per = world.instances // connections
    made: list[KeepAliveConnection] = []
    for number in range(connections):
        leases = ids[number * per : (number + 1) * per]
        begun = partial(KeepAliveConnection, leases, block)
        made.append((await loop.create_connection(begun, host, int(port)))[1])
    for number, connection in enumerate(made):
        loop.call_later(EVERY_S * number / connections, connection.begin)
    await asyncio.sleep(2 * EVERY_S)
    found = []
    for _ in range(max(2, round(seconds / EVERY_S))):
        began, used = time.perf_counter(), server.cpu_s()
        await asyncio.sleep(EVERY_S)
        found.append(100 * (server.cpu_s() - used) / (time.perf_counter() - began))
    check(made, per)
    for connection in made:
        connection.close()
    return found


def check(made: list[KeepAliveConnection], per: int) -> None:
    """Everybody was answered, and no lease was lost."""
    for connection in made:
        if connection.lost is not None or len(connection.answers) < 2:
            raise RuntimeError(f"a connection got {len(connection.answers)} answers; lost: {connection.lost}")
        last = registry_pb2.KeepAliveResponse.FromString(connection.answers[-1][5:])
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
        found = asyncio.run(shares(server, address, world, connections, seconds=seconds))
    record = convert.instance_to(instance(world, 0)).ByteSize()
    return found, each - record


def rows(quick: bool) -> list[Row]:
    """Many leases on some connections, and one lease a connection."""
    os.sched_setaffinity(0, {LOAD_CORE})
    shapes = ((5_000, 250),) if quick else ((100_000, 1_000), (4_000, 4_000))
    found = []
    for leases, connections in shapes:
        world = World(instances=leases, services=max(1, leases // 100), ttl_ms=TTL_MS)
        with scratch_folder() as folder:
            used, each = measured(folder, world, connections, seconds=5 if quick else 17)
        what = f"{leases:,} leases, TTL 10 s, {connections:,} connections, grpc.aio"
        found.append(row("keepalive", f"CPU, {what}", used, "% of a core", goal="value <= 10 % of a core"))
        if leases > connections:
            metric = f"memory after a start, an instance beyond its record, {leases:,} instances"
            found.append(row("keepalive", metric, [each], "B", goal="value <= 1024 B"))
    return found
