"""A crash after every single change to the disk on the way schedule, publish, tell control: each time is published once.

The stream recognises no repeats, so all that keeps an event from coming twice is what a start finds in the stream.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from simulation.sim_disk import SimDisk

from reference.events_on_disk import FOLDER, MortalDisk
from reference.events_world import BY
from reference.registry_world import virtual
from reference.schedules_world import NAMESPACE, World
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Rng
from trunkline.server.journal.files.segment_engine import SegmentEngine

JOBS = "jobs"
INTERVAL_MS = 400


class DiskWorld(World):
    """The engine is opened anew at each start; the disk outlives them."""

    engine: Any

    def __init__(self, seed: int) -> None:
        super().__init__(interval_s_min=0.1, remember_interval_s=1.0)
        self.disk = SimDisk(Rng(seed))
        self.rng = Rng(seed)
        self.made: dict[str, int] = {}
        """Schedules whose making was answered, and their first times."""

    async def life(self, for_s: float, *, dies_at: int | None, power: bool) -> bool:
        """From a start to a crash: when so many changes have reached the disk, or after a time (True)."""
        alive = MortalDisk(self.disk, dies_at=dies_at)
        before = asyncio.all_tasks()
        self.engine = SegmentEngine(FOLDER, alive, self.clock, self.rng)
        living = asyncio.create_task(self._live(for_s))
        dying = asyncio.create_task(alive.died.wait())
        await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
        over = living.done() and not alive.died.is_set()
        alive.died.set()
        alive.buried.set()
        for task in asyncio.all_tasks() - before:
            task.cancel()
        failure, *_ = await asyncio.gather(living, *(asyncio.all_tasks() - before), return_exceptions=True)
        if power:
            self.disk.cut_power()
        else:
            self.disk.kill()
        if over and isinstance(failure, Exception):
            raise failure
        return over

    async def _live(self, for_s: float) -> None:
        await self.engine.open()
        async with self.running(crash=True) as plane:
            config = events_pb2.StreamConfig(namespace=NAMESPACE, name=JOBS)
            config.dedupe_window.FromMilliseconds(0)
            await plane.events.streams.create(config, BY)
            if "often" not in self.made:
                await self._make("often", every_s=INTERVAL_MS / 1_000)
            for n in range(3):
                if f"once-{n}" not in self.made:
                    await self._make(f"once-{n}", at_ms=self.now_ms + 500 * n)
            await asyncio.sleep(for_s)
            for _ in range(4):  # one may be on its way
                self.shown = await self.states()
                self.published = await self.due(JOBS)
                if self.shown["often"].fired_count == sum(name == "often" for name, _ in self.published):
                    break
                await asyncio.sleep(0.07)

    async def _make(self, name: str, **rule: Any) -> None:
        state = await self.create(name, stream=JOBS, **rule)
        self.made[name] = state.next_time.ToMilliseconds() or state.schedule.at.ToMilliseconds()

    def broken(self) -> list[str]:
        """What is wrong at the end."""
        found = [f"{one} came twice" for one in set(self.published) if self.published.count(one) > 1]
        for name, first_ms in self.made.items():
            due = [due_ms for one, due_ms in self.published if one == name]
            if name == "often":
                found += [f"{name}: {ms} is no time of it" for ms in due if (ms - first_ms) % INTERVAL_MS]
                if due != sorted(due) or due[-1] + INTERVAL_MS < self.now_ms - 20:
                    found.append(f"{name} does not go on: {due}, now it is {self.now_ms}")
                if self.shown[name].fired_count != len(due):
                    found.append(f"{name} counts {self.shown[name].fired_count} of {len(due)} events")
            elif len(due) != 1:
                found.append(f"{name} came {len(due)} times")
        return found


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_crash_at_every_change_of_the_disk(power: bool, seed: int) -> None:
    async def main() -> None:
        points = 0
        for dies_at in range(1_000):
            world = DiskWorld(seed * 1_000 + dies_at)
            over = await world.life(2, dies_at=dies_at, power=power)
            await world.life(2, dies_at=dies_at * 7 % 41, power=power)
            await world.life(3, dies_at=None, power=power)
            assert not world.broken(), f"seed {seed}, after {dies_at} changes: {world.broken()}"
            if over:
                break
            points += 1
        assert points > 40, points

    virtual(main)
