"""A crash after every single change to the disk on the way publish, deliver, acknowledge, checkpoint: the promises hold."""

from __future__ import annotations

import asyncio

import guarantees
import pytest

from reference.events_on_disk import DiskWorld
from reference.events_world import BY, Ack
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2

CONFIG = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True), max_deliveries=20)


class Story:
    """What one consumer and one publisher do, and what they know."""

    def __init__(self, seed: int) -> None:
        self.world = DiskWorld(seed=seed)
        self.published: dict[str, int] = {}
        self.acknowledged: set[int] = set()
        self.stored: dict[int, str] = {}

    async def publish(self, *ids: str) -> None:
        answer = await self.world.publish(*ids)
        offsets = [run.offset + i for run in answer.published for i in range(run.count)]
        for one, offset in zip(ids, offsets, strict=True):
            assert self.published.setdefault(one, offset) == offset

    async def first(self) -> None:
        client = self.world.connect()
        await client.open(name="billing", config=CONFIG, credit=1_000)
        await self.publish("a", "b")
        await client.received(2)
        self.acknowledged.add(0)
        await client.ack(0)
        await asyncio.sleep(0.06)
        await self.publish("c")
        await client.received(3)
        await client.settle(Ack.OUTCOME_NACK, 1)
        await client.received(4)
        self.acknowledged.update((1, 2))
        await client.ack(1, 2)
        await self.publish("d", "e")
        await client.received(6)
        await client.settle(Ack.OUTCOME_NACK, 3, delay_s=1)
        await asyncio.sleep(0.2)

    async def last(self) -> None:
        """Take everything that is left, however often it comes."""
        world = self.world
        client = world.connect()
        await client.open(name="billing", config=CONFIG, credit=1_000)
        await self.publish("a", "last")
        async with asyncio.timeout(60):
            while True:
                await asyncio.sleep(0.1)
                await client.ack(*{d.offset for d in client.deliveries} or {0})
                [state] = world.bus.subscriptions.states("shop", "events")
                if state.lag == 0 and client.deliveries:
                    break
        self.delivered_last = set(client.offsets)
        stream = await world.bus.streams.get("shop", "", BY)
        self.aside = frozenset(stream.feeds["billing"].state.set_aside)
        for offset in range(stream.dispatcher.end):
            body = await stream.dispatcher.event_at(offset)
            assert body is not None
            self.stored[offset] = events_pb2.CloudEvent.FromString(bytes(body)).id

    def broken(self) -> list[str]:
        seen = [guarantees.Delivered(0, d.offset, d.attempt, d.event.id) for d in self.world.delivered]
        lost = self.stored.keys() - self.acknowledged - self.delivered_last
        return [
            *guarantees.broke_acked_is_kept(self.published, self.stored),
            *guarantees.broke_deduplicated(self.stored),
            *guarantees.broke_at_least_once(self.stored, seen, self.aside),
            *guarantees.broke_attempts_counted(seen, CONFIG.max_deliveries),
            *(f"{offset} was never acknowledged, and not delivered again" for offset in sorted(lost)),
        ]


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_crash_at_every_change_of_the_disk(power: bool, seed: int) -> None:
    async def main() -> None:
        points = again = 0
        for dies_at in range(1_000):
            story = Story(seed * 1_000 + dies_at)
            over = await story.world.life(story.first, dies_at=dies_at, power=power)
            # The restart dies, too: while it recovers, or a little later.
            if not await story.world.life(story.first, dies_at=dies_at % 37, power=power):
                again += 1
            await story.world.life(story.last, dies_at=None, power=power)
            assert not story.broken(), f"seed {seed}, after {dies_at} changes: {story.broken()}"
            if over:
                break
            points += 1
        assert points > 40, points
        assert again > 30, again

    virtual(main)
