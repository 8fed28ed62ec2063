"""A crash after every single change to the disk while a stream is compacted, consumed and compacted again."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from reference.events_on_disk import DiskWorld
from reference.events_world import BY
from reference.keyed_events import Keyed, KeyModel, read_events
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.server.events.compaction import CompactionConfig, Compactor
from trunkline.server.events.stream import EventStream

STREAM = events_pb2.StreamConfig(
    namespace="shop",
    name="prices",
    dedupe_window=Duration(),
    compaction=events_pb2.StreamConfig.Compaction(min_lag=Duration(), tombstone_retention=Duration(seconds=5)),
)
LAST_PER_KEY = events_pb2.SubscriptionConfig(
    start=events_pb2.StartPosition(last_per_key=True), ordering=events_pb2.SubscriptionConfig.ORDERING_KEYED
)
LAST_PER_KEY_ALONE = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(last_per_key=True))
ROUNDS = [
    [Keyed(0, "a"), Keyed(1, "b"), Keyed(2, ""), Keyed(3, "a"), Keyed(4, "c")],
    [Keyed(5, "b"), Keyed(6, "c", ends=True), Keyed(7, "a")],
    [Keyed(8, "b"), Keyed(9, "d"), Keyed(10, "a")],
]


class Story:
    """What is published in rounds, with a pass after each, and a consumer that began after the first round."""

    def __init__(self, seed: int) -> None:
        self.world = DiskWorld(seed=seed)
        self.model = KeyModel()

    async def stream(self) -> EventStream:
        stream, _ = await self.world.bus.streams.create(STREAM, BY)
        return stream

    async def publish(self, events: list[Keyed]) -> None:
        for event in events:  # repeats are not recognised: the window is empty, and what is there is known by its id
            if event not in self.model.events.values():
                data = events_pb2.PublishRequest(namespace="shop", stream="prices", events=[event.message(50)])
                answer = events_pb2.PublishResponse.FromString(
                    await self.world.publishing.publish(data.SerializeToString(), BY, lambda _: None)
                )
                self.model.events[answer.published[0].offset] = event

    async def compact(self, stream: EventStream) -> None:
        config = CompactionConfig(dirty_bytes_min=0, dirty_ratio=0.0)
        await Compactor(lambda: [stream], self.world.clock, config).compact(stream)

    async def first(self) -> None:
        stream = await self.stream()
        await self.look(stream)
        client = self.world.connect()
        for number, events in enumerate(ROUNDS):
            await self.publish(events)
            await self.compact(stream)
            if number == 0:
                await client.open(stream="prices", name="billing", config=LAST_PER_KEY, credit=2)
            await asyncio.sleep(0.1)
            await client.ack(*client.offsets or (0,))
            await client.give(2)
        await asyncio.sleep(6)
        await self.compact(stream)
        await asyncio.sleep(0.2)

    async def look(self, stream: EventStream) -> None:
        """What is there is right, in whatever state a crash has left it."""
        found = await read_events(stream.event_log.log)
        known = {event.number: event for events in ROUNDS for event in events}
        for offset, event in found.items():
            self.model.events.setdefault(offset, known[event.number])  # its answer was lost
        broken = self.model.broken(found)
        assert not broken, broken

    async def last(self) -> None:
        """Publish what is left, take everything that is left."""
        stream = await self.stream()
        await self.look(stream)
        for events in ROUNDS:
            await self.publish(events)
        client = self.world.connect()
        await client.open(stream="prices", name="billing", config=LAST_PER_KEY, credit=1_000)
        feed = stream.feeds["billing"]
        async with asyncio.timeout(60):
            while feed.lag:
                await asyncio.sleep(0.1)
                await client.ack(*client.offsets or (0,))
        await self.compact(stream)
        await self.look(stream)
        delivered = {d.offset for d in self.world.delivered}
        for key, offset in self.model.latest().items():
            assert offset in delivered or self.model.events[offset].ends, f"{key} was never told of {offset}"
        last_round = {o for o, event in self.model.events.items() if event in ROUNDS[-1]}
        assert not last_round - self.model.gone - delivered, "what came after the subscription was made is delivered"
        reader = self.world.connect()
        await reader.open(stream="prices", no_acknowledgement=True, config=LAST_PER_KEY_ALONE)
        await asyncio.sleep(0.2)
        latest = self.model.latest()
        wanted = sorted(o for o in latest.values() if o not in self.model.gone)
        assert reader.offsets == wanted


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("power", [False, True])
def test_a_crash_at_every_change_of_the_disk(power: bool, first: int) -> None:
    async def main() -> None:
        points = again = 0
        for dies_at in range(first, 1_000, 3):
            story = Story(1_000 + dies_at)
            over = await story.world.life(story.first, dies_at=dies_at, power=power)
            # The restart dies, too: while it recovers, or a little later.
            if not await story.world.life(story.first, dies_at=dies_at % 41, power=power):
                again += 1
            await story.world.life(story.last, dies_at=None, power=power)
            if over:
                break
            points += 1
        assert points > 40, points
        assert again > 35, again

    virtual(main)
