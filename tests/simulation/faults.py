"""The menu: what goes wrong, what may be under way when it does, and which of both a seed is to see together.

A cell of the matrix is a fault that strikes while an operation is under way. A seed plans a few cells; the seeds of a run
plan them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from simulation.chance import between
from simulation.virtual import Host
from simulation.wire import Operation

if TYPE_CHECKING:
    from simulation.world import World

Cell = tuple[str, str]
Fault = Callable[["World", Operation], Awaitable[None]]

CLIENT_OPERATIONS = (
    "register", "keep_alive", "deregister", "drain", "publish", "publish_stream", "fetch", "subscribe", "ack", "watch",
    "watch_ack",
)  # fmt: skip
SERVER_OPERATIONS = ("control append", "event append", "checkpoint", "snapshot", "start")


async def kill(world: World, operation: Operation) -> None:
    """SIGKILL of the server: the page cache stays."""
    await world.node.kill()


async def power_cut(world: World, operation: Operation) -> None:
    """The server's machine loses any part of what was not synced."""
    await world.node.kill(power=True)


async def restart(world: World, operation: Operation) -> None:
    """SIGTERM of the server."""
    await world.node.stop()
    await asyncio.sleep(0.5)


async def stall(world: World, operation: Operation) -> None:
    """SIGSTOP of the server, for a moment or for longer than leases live."""
    host = world.node.host
    assert host is not None
    await _stand_still(world, host, (0.1, 0.24) if world.rng.below(2) else (0.3, 7.0))


async def client_stall(world: World, operation: Operation) -> None:
    """SIGSTOP of a client: it reads nothing, acknowledges nothing, renews nothing."""
    assert operation.host is not None
    await _stand_still(world, operation.host, (0.5, 8.0))


async def _stand_still(world: World, host: Host, range_s: tuple[float, float]) -> None:
    host.stall()
    began_s = asyncio.get_running_loop().time()
    await asyncio.sleep(between(world.rng, *range_s))
    host.resume()
    if host is world.node.host:
        world.stalls.append((began_s, asyncio.get_running_loop().time()))


async def failing_sync(world: World, operation: Operation) -> None:
    """Syncs fail, and what they were to make durable is lost or not."""
    await _disk(world, "sync_fails", 300 + world.rng.below(701), (0.05, 1.5))


async def failing_write(world: World, operation: Operation) -> None:
    """Writes fail after some of their bytes."""
    await _disk(world, "write_fails", 300 + world.rng.below(701), (0.05, 1.5))


async def full_disk(world: World, operation: Operation) -> None:
    """No space is left, then there is again."""
    disk = world.disk
    used = sum(len(disk.content(path)) for path in disk.paths())
    await _disk(world, "capacity_bytes", used + world.rng.below(300), (0.1, 4.0))


async def slow_disk(world: World, operation: Operation) -> None:
    """Every sync takes long."""
    await _disk(world, "slow_sync_ns", int(between(world.rng, 0.05, 1.5) * 1e9), (1.0, 4.0))


async def _disk(world: World, name: str, value: int, range_s: tuple[float, float]) -> None:
    faults = world.disk.faults
    before = getattr(faults, name)
    setattr(faults, name, value)
    await asyncio.sleep(between(world.rng, *range_s))
    setattr(faults, name, before)


async def partition(world: World, operation: Operation) -> None:
    """A client is cut off from the server."""
    assert operation.host is not None
    world.network.partition(operation.host.name, world.node.address)
    await asyncio.sleep(between(world.rng, 0.5, 12.0))
    world.network.heal()


async def isolation(world: World, operation: Operation) -> None:
    """All clients are: their leases lapse together."""
    world.network.partition("*", world.node.address)
    await asyncio.sleep(between(world.rng, 2.0, 9.0))
    world.network.heal()


async def reset(world: World, operation: Operation) -> None:
    """A client's connections are reset: it does not know what became of what it asked."""
    assert operation.host is not None
    world.network.reset(operation.host)


async def client_kill(world: World, operation: Operation) -> None:
    """SIGKILL of a client."""
    assert operation.host is not None
    await world.kill_client(operation.host)


async def clock_step(world: World, operation: Operation) -> None:
    """The clock on the server's wall is set: back by seconds, or forward by up to more than a minute."""
    step_s = between(world.rng, -6.0, 0.0) if world.rng.below(2) else between(world.rng, 0.0, 80.0)
    world.node.clock.ahead_ns += int(step_s * 1e9)
    world.clock_steps.append((asyncio.get_running_loop().time(), world.node.clock.ahead_ns))


SERVER_FAULTS: dict[str, Fault] = {
    "kill": kill,
    "power cut": power_cut,
    "restart": restart,
    "stall": stall,
    "failing sync": failing_sync,
    "failing write": failing_write,
    "full disk": full_disk,
    "slow disk": slow_disk,
}
CLIENT_FAULTS: dict[str, Fault] = {
    "partition": partition,
    "isolation": isolation,
    "reset": reset,
    "client kill": client_kill,
    "client stall": client_stall,
}
CLOCK_FAULTS: dict[str, Fault] = {"clock step": clock_step}
FAULTS = SERVER_FAULTS | CLIENT_FAULTS | CLOCK_FAULTS
CELLS: tuple[Cell, ...] = (
    *((fault, operation) for operation in CLIENT_OPERATIONS + SERVER_OPERATIONS for fault in SERVER_FAULTS),
    *((fault, operation) for operation in CLIENT_OPERATIONS for fault in CLIENT_FAULTS),
)
"""The matrix, without what cannot be: the disk has no client."""
CELLS_PER_SEED = 3
STRIDE = 67
"""Prime to the number of cells: the cells of one seed have little in common."""


def planned(seed: int, cells: Sequence[Cell] = CELLS) -> list[Cell]:
    """What a seed is to see; as many seeds in a row as there are cells plan each of them CELLS_PER_SEED times."""
    return [cells[(seed * CELLS_PER_SEED + place) * STRIDE % len(cells)] for place in range(CELLS_PER_SEED)]
