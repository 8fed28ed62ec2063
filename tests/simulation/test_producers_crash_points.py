"""A crash after every single change to the disk while producers pipeline, repeat and succeed one another."""

from __future__ import annotations

import random

import pytest

from reference.events_on_disk import DiskWorld
from reference.events_world import BY
from reference.producers_world import Producers
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2


class Story:
    """Two producers, one of them in three epochs."""

    def __init__(self, seed: int) -> None:
        self.world = DiskWorld(seed=seed)
        self.producers = Producers(random.Random(seed), self.world.publish)
        self.stored: dict[int, str] = {}

    async def first(self) -> None:
        producers = self.producers
        for name in ("p", "q", "p"):
            one = producers.begin(name)
            await producers.send(one, requests=3, lose=0)
            await producers.send(one, requests=2, lose=0.3)
            await producers.repeat(one)
        await producers.leave_one_out(producers.present["q"])
        await producers.come_back(producers.zombies[-1])

    async def last(self) -> None:
        """What was begun before the crash goes on, its unanswered first; then the next epoch."""
        producers = self.producers
        for one in list(producers.present.values()):
            await producers.send(one, requests=2, lose=0)
            assert not one.unanswered
            await producers.reuse_a_number(one)
        await producers.send(producers.begin("p"), requests=2, lose=0)
        for zombie in producers.zombies:
            await producers.come_back(zombie)
        stream = await self.world.bus.streams.get("shop", "", BY)
        for offset in range(stream.dispatcher.end):
            body = await stream.dispatcher.event_at(offset)
            assert body is not None
            self.stored[offset] = events_pb2.CloudEvent.FromString(bytes(body)).id


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_crash_at_every_change_of_the_disk(power: bool, seed: int) -> None:
    async def main() -> None:
        points = 0
        for dies_at in range(1_000):
            story = Story(seed * 1_000 + dies_at)
            over = await story.world.life(story.first, dies_at=dies_at, power=power)
            assert await story.world.life(story.last, dies_at=None, power=power)
            assert story.stored
            broken = story.producers.broken(story.stored)
            assert not broken, f"seed {seed}, after {dies_at} changes: {broken}"
            if over:
                break
            points += 1
        assert points > 30, points

    virtual(main)
