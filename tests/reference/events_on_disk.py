"""An event bus on segment files of the simulated disk: crashes, power cuts and failing disks of a whole bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from simulation.sim_disk import DiskFaults, SimDisk

from trunkline.core.clock import Rng
from trunkline.core.errors import StreamClosed
from trunkline.core.model import Sync
from trunkline.server.events.bus import EventBus
from trunkline.server.journal.files.segment_engine import SegmentEngine

from .events_world import World

FOLDER = "/data"
CHANGES = ("write", "sync", "sync_folder", "create", "rename", "unlink", "truncate")
"""Operations after which a disk may look different."""


class MortalDisk:
    """The disk as one life of a process sees it. `dies_at`: so many changes reach the disk, then nothing does."""

    def __init__(self, disk: SimDisk, *, dies_at: int | None = None) -> None:
        self.disk = disk
        self.changes = 0
        self.died = asyncio.Event()
        """From here on nothing is done; whoever asks for something waits ..."""
        self.buried = asyncio.Event()
        """... until this, so that what still runs can end."""
        self.on_call: Callable[[str, str], None] = lambda _name, _path: None
        """Told of every operation before it is done; may raise in its place."""
        self._dies_at = dies_at

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.disk, name)

        async def checked(*args: Any, **kwargs: Any) -> Any:
            if name in CHANGES:
                self.changes += 1
                if self._dies_at is not None and self.changes > self._dies_at:
                    self.died.set()
            if self.died.is_set():
                await self.buried.wait()
                raise StreamClosed("the process is dead")
            self.on_call(name, args[0] if args and isinstance(args[0], str) else getattr(args and args[0], "path", ""))
            return await operation(*args, **kwargs)

        return checked

    async def write(self, file: Any, offset: int, data: Any, *, sync: bool = False) -> None:
        """Two changes, as they are to the disk."""
        await self.__getattr__("write")(file, offset, data)
        if sync:
            await self.__getattr__("sync")(file)


class DiskWorld(World):
    """The engine is opened anew at each start; the disk outlives them."""

    engine: Any
    alive: MortalDisk

    def __init__(self, *, seed: int = 1, sync: Sync = Sync.FSYNCED) -> None:
        super().__init__(seed=seed, offers=sync)
        self.faults = DiskFaults()
        self.disk = SimDisk(Rng(seed), self.faults)
        self.folder = FOLDER

    @asynccontextmanager
    async def running(
        self, *, crash: bool = False, power: bool = False, dies_at: int | None = None
    ) -> AsyncIterator[EventBus]:
        """`power`: what was not synced may be lost. With `dies_at` it may also die while it starts."""
        before = asyncio.all_tasks()
        self.alive = MortalDisk(self.disk, dies_at=dies_at)
        self.engine = SegmentEngine(self.folder, self.alive, self.clock, self.rng)
        crash = crash or power
        try:
            await self.engine.open()
            async with super().running(crash=crash) as bus:
                yield bus
                if crash:
                    self.alive.died.set()
                    self.alive.buried.set()
        finally:
            if not crash:
                await self.engine.close()
            for task in asyncio.all_tasks() - before:
                task.cancel()
            await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
            if power:
                self.disk.cut_power()
            else:
                self.disk.kill()

    async def life(self, story: Callable[[], Awaitable[None]], *, dies_at: int | None, power: bool) -> bool:
        """From a start to a crash: when so many changes have reached the disk, or when the story is over (True)."""

        failures: list[Exception] = []

        async def live() -> None:
            async with self.running(crash=True, power=power, dies_at=dies_at):
                try:
                    await story()
                except Exception as error:
                    failures.append(error)  # what the end of the world makes of it is not what went wrong
                    raise

        living = asyncio.create_task(live())
        await asyncio.sleep(0)
        dying = asyncio.create_task(self.alive.died.wait())
        await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
        over = dies_at is None or self.alive.changes <= dies_at
        self.alive.buried.set()
        for task in (living, dying):
            task.cancel()
        outcome, _ = await asyncio.gather(living, dying, return_exceptions=True)
        failure = failures[0] if failures else outcome
        if isinstance(failure, AssertionError) or (over and isinstance(failure, Exception)):
            raise failure
        return over
