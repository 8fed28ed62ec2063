"""A registry on the real sequencer and the memory engine, in virtual time."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import async_solipsism

from trunkline.core.clock import Clock, Rng
from trunkline.core.model import Instance, RegisteredInstance, Registration, Status, Sync
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.memory import MemoryEngine
from trunkline.server.registry.changes import RegistryStep
from trunkline.server.registry.config import RegistryConfig
from trunkline.server.registry.fold import RegistryFold
from trunkline.server.registry.registry import Registered, Registry, Watchers

T = TypeVar("T")
S = 1_000_000_000
BY = Origin(author="tests")


class VirtualTime:
    """Runs coroutines one after the other in one loop of virtual time: sleeping takes none."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=async_solipsism.EventLoop)

    def run(self, awaitable: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await awaitable

        with warnings.catch_warnings():
            # Two timers a few nanoseconds apart are one to this loop.
            warnings.simplefilter("ignore", async_solipsism.ResolutionWarning)
            return self._runner.run(awaited())

    def close(self) -> None:
        self._runner.close()


def virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run a test in virtual time."""
    time = VirtualTime()
    try:
        return time.run(main())
    finally:
        time.close()


class LoopClock(Clock):
    """The loop's time; `skip` is time that passes while the process is stopped."""

    def __init__(self) -> None:
        self.skipped_ns = 0

    def now_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * S) + self.skipped_ns

    def time_ns(self) -> int:
        return 1_700_000_000 * S + self.now_ns()

    def skip(self, by_ns: int) -> None:
        self.skipped_ns += by_ns


class World:
    """One control plane with nothing but a registry. Its engine outlives restarts."""

    def __init__(
        self, config: RegistryConfig | None = None, *, seed: int = 1, watchers: Watchers | None = None
    ) -> None:
        self.clock = LoopClock()
        self.config = config or RegistryConfig()
        self.rng = Rng(seed)
        self.engine = MemoryEngine(self.clock, self.rng, offers=Sync.FSYNCED)
        self.steps: list[RegistryStep] = []
        self.watchers = watchers
        self.fold: RegistryFold
        self.control: Control
        self.registry: Registry

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Registry]:
        """From start to stop; may be entered again."""
        self.fold = RegistryFold(self.config.tombstones)
        self.control = Control(self.engine, Folds([self.fold]), self.clock, ControlConfig(), program_version="0")
        await self.control.open()
        self.registry = Registry(
            self.fold,
            self.control.sequencer,
            self.clock,
            self.rng,
            node_id=self.engine.node_id,
            config=self.config,
            watchers=self.watchers,
        )
        self.registry.on_step(self._listener(self.registry))
        journal = asyncio.create_task(self.control.run())
        await self.control.ready.wait()
        self.registry.begin()
        loops = asyncio.create_task(self.registry.run())
        try:
            yield self.registry
            assert not loops.done(), loops
            assert not journal.done(), journal
        finally:
            for task in (loops, journal):
                task.cancel()
            await asyncio.gather(loops, journal, return_exceptions=True)

    def _listener(self, registry: Registry) -> Callable[[RegistryStep], None]:
        # The engine goes on telling those of earlier runs.
        return lambda step: self.steps.append(step) if registry is self.registry else None

    async def register(
        self, declared: Instance, *, secret: bytes = b"", ttl_ms: int = 10_000, take_over: bool = False
    ) -> Registered:
        wanted = Registration(declared, secret or declared.id.encode().ljust(16, b"."), ttl_ms, take_over)
        return await self.registry.register(wanted, BY)

    def shown(self, instance_id: str, service: str = "orders", namespace: str = "default") -> RegisteredInstance | None:
        entry = self.fold.get(f"instance/{namespace}/{service}/{instance_id}")
        return None if entry is None else entry.registered

    def status(self, instance_id: str, service: str = "orders", namespace: str = "default") -> Status | None:
        shown = self.shown(instance_id, service, namespace)
        return None if shown is None else shown.status

    async def keep_alive(self, lease_ids: list[int], *, for_s: float, every_s: float = 3.0) -> None:
        """Be alive for a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + for_s
        while loop.time() < until:
            self.registry.keep_alive(lease_ids)
            await asyncio.sleep(min(every_s, max(0.0, until - loop.time())))
