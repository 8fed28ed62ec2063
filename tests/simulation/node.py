"""A control plane on its host: the shipped one, on a simulated disk and network, started again whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from simulation.chance import rng_of
from simulation.network import Network
from simulation.server import Server
from simulation.sim_disk import SimDisk
from simulation.virtual import Host, LoopClock
from simulation.wire import Operation

from trunkline.core.errors import StreamClosed, TrunklineError
from trunkline.server.admin.about import About
from trunkline.server.events.bounds import DEFAULT, LookAhead
from trunkline.server.events.streams import Promise
from trunkline.server.events.webhook_settings import WebhooksConfig
from trunkline.server.events.webhooks import ClosableSender
from trunkline.server.journal.files.disk import File, Lock
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.plane import ControlPlane, PlaneConfig

FOLDER = "/data"
RESTART_AFTER_S = (0.2, 3.0)
START_WITHIN_S = 60.0


WatchDisk = Callable[[str, str], Operation | None]
"""Told of every operation and its path; what it returns is told when the operation is over."""


class NodeDisk:
    """The disk as one incarnation of a server sees it: after its death it can do nothing any more."""

    def __init__(self, disk: SimDisk, host: Host, watch: WatchDisk) -> None:
        self._disk = disk
        self._host = host
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._disk, name)

        async def checked(*args: Any, **kwargs: Any) -> Any:
            if not self._host.alive:
                raise StreamClosed("the server is dead")
            path = args[0] if isinstance(args[0], str) else args[0].path if args else ""
            under_way = self._watch(name, path)
            try:
                return await operation(*args, **kwargs)
            finally:
                if under_way is not None:
                    under_way.over = True
                if self._host.alive:
                    await self._host.awake()

        return checked

    async def write(self, file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> None:
        """Write, then sync: two operations, as they are to the disk."""
        await self.__getattr__("write")(file, offset, data)
        if sync:
            await self.sync(file)

    async def sync(self, file: File) -> None:
        """Sync a file."""
        await self.__getattr__("sync")(file)

    async def lock(self, path: str) -> Lock:
        """Lock the folder; it is let go by release or by death."""
        lock: Lock = await self.__getattr__("lock")(path)
        return lock

    async def shutdown(self) -> None:
        """There are no threads."""


class Node:
    """One server, across its incarnations."""

    def __init__(
        self, name: str, seed: int, network: Network, disk: SimDisk, config: PlaneConfig, *,
        note: Callable[..., None], watch_disk: WatchDisk,
        probe: Any = None,
        look_ahead: LookAhead = DEFAULT, sender: ClosableSender | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.address = f"{name}:7400"
        self.disk = disk
        self.clock = LoopClock()
        self.plane: ControlPlane | None = None
        """While it answers calls."""
        self.starts: list[float] = []
        """When it began to answer calls, in seconds of the world."""
        self.host: Host | None = None
        self.crashes: list[str] = []
        """Why it ended by itself, when that was not the disk's fault."""
        self._seed = seed
        self._rng = rng_of(seed, f"node {name}")
        self._network = network
        self._config = config
        self._note = note
        self._watch_disk = watch_disk
        self._probe = probe
        self._look_ahead = look_ahead
        self._sender = sender
        self._for_good = False
        self._stop = asyncio.Event()
        self._is_serving = asyncio.Event()
        self._incarnations = 0

    @property
    def life(self) -> int:
        """Counts its incarnations."""
        return self._incarnations

    async def keep_running(self) -> None:
        """Start it, and again after each end, until cancelled or `stop` with `for_good`."""
        while not self._for_good:
            await self._live()
            low, high = RESTART_AFTER_S
            await asyncio.sleep(low + (high - low) * self._rng.random())

    async def _live(self) -> None:
        self._incarnations += 1
        host = self.host = self._network.host(f"{self.name}#{self._incarnations}")
        self._note("starting", host.name)
        try:
            await asyncio.wait([host.run(self._main(host), name=f"{host.name} main")])
        finally:
            await self._bury(host)

    async def _bury(self, host: Host) -> None:
        self._left()
        if host.alive:
            await host.kill()
        self.disk.kill()
        self._note("ended", host.name)

    async def _main(self, host: Host) -> None:
        try:
            plane = await self._start(host)
            await self._serve(host, plane)
        except TrunklineError as error:
            self._failed(host, error)
        except BaseExceptionGroup as group:
            self._failed(host, group)
        except Exception as error:
            self._failed(host, error)

    async def _serve(self, host: Host, plane: ControlPlane) -> None:
        """What server/app.py does from here on."""
        create = asyncio.get_running_loop().create_task
        running = create(plane.run(), name="control plane")
        reached = create(plane.reached())
        try:
            await asyncio.wait([running, reached], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                self._began(host, plane)
                stopped = create(self._stop.wait())
                await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
        finally:
            self._left()
            plane.refuse("the control plane is stopping")
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            if host.alive:
                await plane.close()

    def _began(self, host: Host, plane: ControlPlane) -> None:
        self._server.start(self.address)
        self.plane = plane
        self._is_serving.set()
        self.starts.append(asyncio.get_running_loop().time())
        self._note("serving", host.name)

    def _failed(self, host: Host, error: BaseException) -> None:
        """The process would have ended with this."""
        self._note("failed", host.name, type(error).__name__)
        for leaf in _leaves(error):
            if not isinstance(leaf, TrunklineError):
                self.crashes.append(f"{host.name}: {leaf!r}")

    async def _start(self, host: Host) -> ControlPlane:
        rng = rng_of(self._seed, host.name)
        disk: Any = NodeDisk(self.disk, host, self._watch_disk)
        engine = SegmentEngine(FOLDER, disk, self.clock, rng)
        await engine.open()
        plane = ControlPlane(
            engine,
            self.clock,
            rng,
            entropy=rng.bytes,
            config=self._config,
            about=About(version="0", transport="simulation", data_folder=FOLDER, started_ns=self.clock.now_ns()),
            loopback_is_open=True,
            promise=Promise(),
            probe=self._probe,
            look_ahead=self._look_ahead,
            sender=None if self._sender is None else self._send_with,
        )
        await plane.open()
        self._server = Server(self._network, host)
        plane.register(self._server)
        self._stop.clear()
        return plane

    def _send_with(self, config: WebhooksConfig) -> ClosableSender:
        assert self._sender is not None
        return self._sender

    async def kill(self, *, power: bool = False) -> None:
        """SIGKILL; with `power` the machine loses what was not synced, too."""
        host = self.host
        if host is not None and host.alive:
            self._left()
            await host.kill()
            self.disk.kill()
        if power:
            self.disk.cut_power()

    def _left(self) -> None:
        self.plane = None
        self._is_serving.clear()

    async def serving(self) -> None:
        """Return when it answers calls."""
        async with asyncio.timeout(START_WITHIN_S):
            await self._is_serving.wait()

    async def stop(self, *, for_good: bool = False) -> None:
        """End it in good order: what `trunkline serve` does on SIGTERM."""
        self._for_good = for_good
        self._stop.set()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
