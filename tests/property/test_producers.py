"""Random histories of producers, disks that fail, kills and power cuts: each number at most once, in order, and kept."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reference.events_on_disk import DiskWorld
from reference.events_world import BY, World
from reference.producers_world import Producers
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2

WINDOW_S = 120
NAMES = ("orders-7", "stock", "a/b:c@d")


class History:
    """One seeded history of one stream, from a start to the next, several times."""

    def __init__(self, world: Any, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = world
        self.producers = Producers(self.chance, self.publish)
        self.stored: dict[int, str] = {}

    async def publish(self, *ids: str, **more: Any) -> events_pb2.PublishResponse:
        answer: events_pb2.PublishResponse = await self.world.publish(*ids, **more)
        return answer

    async def life(self) -> None:
        for _ in range(self.chance.randint(2, 14)):
            await self.step()

    async def step(self) -> None:
        producers, chance = self.producers, self.chance
        name = chance.choice(NAMES)
        one = producers.present.get(name) or producers.begin(name)
        match chance.randrange(12):
            case 0:
                await self.succeed(name)
            case 1:
                await producers.leave_one_out(one)
            case 2:
                await producers.reuse_a_number(one)
            case 3 if producers.zombies:
                await producers.come_back(chance.choice(producers.zombies))
            case 4:
                await producers.repeat(one)
            case 5 if chance.random() < 0.3:
                await asyncio.sleep(WINDOW_S)
                producers.begin_all()
            case 6 | 7:
                # Two at a time: their events lie among one another.
                two = producers.present.get(NAMES[0]) or producers.begin(NAMES[0])
                others = [] if two is one else [producers.send(two, requests=3, lose=0.2)]
                await asyncio.gather(producers.send(one, requests=4, lose=0.2), *others)
            case 8:
                self.trouble(chance.choice([0, 100, 300]))
            case _:
                await producers.send(one, requests=chance.randint(1, 5), lose=0.2)

    async def succeed(self, name: str) -> None:
        """Begin a new epoch of a producer; when that fails, the one before may go on."""
        if self.chance.random() < 0.5:
            self.trouble(1_000)
        await self.producers.send(self.producers.begin(name), requests=self.chance.randint(1, 3), lose=0.3)
        self.trouble(0)
        await asyncio.sleep(2)
        await self.producers.go_back(name)

    def trouble(self, chance: int) -> None:
        """Of so many in 1,000 operations of the disk that fail from now on."""

    async def finish(self) -> None:
        """Let everybody have all its answers; then read what the stream holds."""
        async with asyncio.timeout(60):
            for one in self.producers.present.values():
                while one.unanswered:
                    await self.producers.repeat(one)
                    await asyncio.sleep(0.5)
        stream = await self.world.bus.streams.get("shop", "", BY)
        for offset in range(stream.dispatcher.end):
            body = await stream.dispatcher.event_at(offset)
            assert body is not None
            self.stored[offset] = events_pb2.CloudEvent.FromString(bytes(body)).id


class DiskHistory(History):
    """On segment files, with all that may happen to them."""

    def trouble(self, chance: int) -> None:
        self.world.faults.sync_fails = self.world.faults.write_fails = chance

    async def finish(self) -> None:
        self.trouble(0)
        await super().finish()


PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""A smaller seed is no smaller history."""
REACHED: set[str] = set()
EVERYTHING = {
    "OUTCOME_UNKNOWN",
    "OUT_OF_ORDER_SEQUENCE",
    "PRODUCER_FENCED",
    "SEQUENCE_REUSED",
    "STREAM_CLOSED",
    "UNKNOWN_PRODUCER",
    "lost an answer",
    "partly a repeat",
    "refused behind a failure",
    "went back",
}


@given(seed=st.integers(0, 2**32), lives=st.integers(1, 4))
@settings(max_examples=80, deadline=None, phases=PHASES)
def _on_disk(seed: int, lives: int) -> None:
    world = DiskWorld(seed=seed)
    history = DiskHistory(world, seed)

    async def main() -> None:
        for number in range(lives):
            is_last = number == lives - 1
            dies_at = None if is_last else history.chance.choice([None, history.chance.randint(20, 150)])
            power = history.chance.random() < 0.5
            world.faults.sync_fails = world.faults.write_fails = 0
            await world.life(history.finish if is_last else history.life, dies_at=dies_at, power=power)

    virtual(main)
    assert not history.producers.broken(history.stored), f"seed {seed}, {lives}: " + "\n".join(
        history.producers.broken(history.stored)
    )
    REACHED.update(history.producers.reached)


@pytest.mark.timeout(120)
def test_on_segment_files() -> None:
    REACHED.clear()
    _on_disk()
    assert REACHED >= EVERYTHING, EVERYTHING - REACHED


@given(seed=st.integers(0, 2**32), lives=st.integers(1, 4))
@settings(max_examples=60, deadline=None, phases=PHASES)
def test_in_memory(seed: int, lives: int) -> None:
    world = World(seed=seed)
    history = History(world, seed)

    async def main() -> None:
        for number in range(lives):
            async with world.running(crash=history.chance.random() < 0.5):
                await history.life()
                if number == lives - 1:
                    await history.finish()

    virtual(main)
    assert not history.producers.broken(history.stored), f"seed {seed}, {lives} lives"
