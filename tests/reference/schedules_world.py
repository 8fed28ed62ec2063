"""A whole control plane in virtual time, on an engine that outlives it, with schedules to be kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from trunkline.api import convert
from trunkline.api.v1 import events_pb2, schedules_pb2
from trunkline.core.clock import Rng
from trunkline.core.model import Sync
from trunkline.server.admin.about import About
from trunkline.server.events.streams import Promise
from trunkline.server.journal.memory import MemoryEngine
from trunkline.server.plane import ControlPlane, PlaneConfig
from trunkline.server.schedules.config import SchedulesConfig

from .events_world import BY, event
from .registry_world import LoopClock

NAMESPACE = "shop"
S = 1_000_000_000
Schedule = schedules_pb2.Schedule


class SetClock(LoopClock):
    """The loop's time, and a wall clock that can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.set_ns = 0

    def time_ns(self) -> int:
        return super().time_ns() + self.set_ns


class World:
    """One control plane after another on the same journal."""

    def __init__(self, **config: Any) -> None:
        self.clock = SetClock()
        self.engine = MemoryEngine(self.clock, Rng(1), offers=Sync.FSYNCED)
        self.config = PlaneConfig(schedules=SchedulesConfig(**config))
        self.plane: ControlPlane

    @asynccontextmanager
    async def running(self, *, crash: bool = False) -> AsyncIterator[ControlPlane]:
        """From start to stop, or to a sudden end."""
        self.plane = ControlPlane(
            self.engine, self.clock, Rng(2), entropy=Rng(3).bytes, config=self.config,
            about=About(version="0", transport="none", data_folder="", started_ns=0),
            loopback_is_open=True, promise=Promise(),
        )  # fmt: skip
        await self.plane.open()
        running = asyncio.create_task(self.plane.run())
        await self.plane.reached()
        try:
            yield self.plane
            assert not running.done(), running
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            if not crash:
                await self.plane.events.stop()
                await self.plane.control.close()

    async def jump(self, seconds: float) -> None:
        """Set the wall clock, and let the control plane notice."""
        self.clock.set_ns += int(seconds * S)
        await asyncio.sleep(1.1)

    @property
    def now_ms(self) -> int:
        return self.clock.time_ns() // 1_000_000

    async def create(self, name: str = "s", *, at_ms: int = 0, every_s: float = 0, **more: Any) -> Any:
        """A schedule with an event named for it; its state."""
        schedule = Schedule(namespace=NAMESPACE, name=name, event=event("x", topic=f"due.{name}"), **more)
        if at_ms:
            schedule.at.CopyFrom(convert.time_ns_to(at_ms * 1_000_000))
        if every_s:
            schedule.every.interval.FromMilliseconds(int(every_s * 1_000))
        state, _ = await self.plane.schedules.create(schedule, BY, allow=lambda _spec: None)
        return state

    async def states(self) -> dict[str, Any]:
        """Every schedule, by name."""
        page = await self.plane.schedules.page("", page_size=1_000, page_token="", may_touch=lambda _spec: True)
        return {state.schedule.name: state for state in page.schedules}

    async def events(self, stream: str = "events") -> list[events_pb2.CloudEvent]:
        """All that a stream holds."""
        found = self.plane.events.streams.peek(NAMESPACE, stream)
        if found is None:
            return []
        bodies = [await found.dispatcher.event_at(offset) for offset in range(found.dispatcher.end)]
        return [events_pb2.CloudEvent.FromString(bytes(body)) for body in bodies if body is not None]

    async def due(self, stream: str = "events") -> list[tuple[str, int]]:
        """Of all that schedules published: their names, and the times that they were published for."""
        return [
            (one.id.split("/")[0], one.attributes["scheduledtime"].ce_timestamp.ToMilliseconds())
            for one in await self.events(stream)
            if "scheduledtime" in one.attributes
        ]

    async def until_published(self, count: int = 1, stream: str = "events") -> None:
        """Return at the moment at which so many events are durable, before anybody was answered."""
        log = (await self.plane.events.streams.get(NAMESPACE, stream, BY)).event_log.log
        done = asyncio.Event()
        end: Callable[[], None] = log.on_durable(lambda block: done.set() if block.end_offset >= count else None)
        await done.wait()
        end()
