"""The start `last_per_key` against a dict, through compaction, crashes and broken connections."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings

from reference.events_world import BY, Client, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Rng
from trunkline.server.events.compaction import CompactionConfig, Compactor
from trunkline.server.events.stream import EventStream

STREAM = events_pb2.StreamConfig(
    namespace="shop",
    name="prices",
    dedupe_window=Duration(),
    compaction=events_pb2.StreamConfig.Compaction(min_lag=Duration()),
)
Ordering = events_pb2.SubscriptionConfig.Ordering


class History:
    """Publishes, passes and one subscription that begins somewhere among them."""

    def __init__(self, seed: int) -> None:
        self.rng = Rng(seed)
        self.world = World(seed=seed)
        self.published: dict[int, tuple[str, str]] = {}
        """Offset to (key, topic)."""
        self.wanted: set[int] = set()
        """What is there for the subscription at its creation."""
        self.began_at = 0
        self.gone: set[int] = set()
        self.numbers = 0
        topics = [[], ["price.eu"], ["price.*"], ["price.us", "price.eu"]][self.rng.below(4)]
        exact = events_pb2.AttributeFilter(exact=events_pb2.AttributeTexts(attributes={"half": "yes"}))
        self.attributes = self.rng.below(3) == 0
        self.config = events_pb2.SubscriptionConfig(
            filters=topics,
            attribute_filters=[exact] if self.attributes else [],
            ordering=Ordering.ValueType(1 + self.rng.below(3)),
            start=events_pb2.StartPosition(last_per_key=True),
        )
        if self.config.ordering == Ordering.Value("ORDERING_KEYED") and self.rng.below(2):
            self.config.key_attribute = "half"
        self.durable = bool(self.rng.below(3))

    def takes(self, offset: int) -> bool:
        _, topic = self.published[offset]
        fits = not self.config.filters or topic in self.config.filters or "price.*" in self.config.filters
        return fits and (not self.attributes or offset % 2 == 0)

    async def publish(self, stream: EventStream) -> None:
        events = []
        first = stream.dispatcher.end
        for n in range(1 + self.rng.below(30)):
            key, topic = (
                f"k{self.rng.below(9)}" if self.rng.below(8) else "",
                f"price.{('eu', 'us')[self.rng.below(2)]}",
            )
            made: Any = event(str(self.numbers), topic=topic, key=key, data=b"x")
            made.attributes["half"].ce_string = "no" if (first + n) % 2 else "yes"
            self.published[first + n] = key, topic
            self.numbers += 1
            events.append(made)
        await self.world.publishing.publish(publish_request(events, stream="prices"), BY, lambda _: None)
        assert stream.dispatcher.end == first + len(events)

    async def compact(self, stream: EventStream) -> None:
        config = CompactionConfig(dirty_bytes_min=0, dirty_ratio=0.0)
        await Compactor(lambda: [stream], self.world.clock, config).compact(stream)
        there: set[int] = set()
        at = 0
        while blocks := await stream.event_log.log.read(at, max_bytes=1 << 20):
            there.update(offset for block in blocks for offset in block.offsets)
            at = blocks[-1].end_offset
        self.gone = self.published.keys() - there

    def begin(self, stream: EventStream) -> None:
        self.began_at = stream.dispatcher.end
        last = {self.published[o][0]: o for o in sorted(self.published) if self.published[o][0] and self.takes(o)}
        self.wanted = set(last.values())

    async def open(self) -> Client:
        client = self.world.connect()
        name = "billing" if self.durable else ""
        await client.open(stream="prices", config=self.config, credit=1 + self.rng.below(8), name=name)
        return client

    async def consume(self, client: Client, seen: set[int], turns: int) -> None:
        acknowledged = 0
        for _ in range(turns):
            await asyncio.sleep(0.06)
            seen.update(client.offsets)
            fresh = client.offsets[acknowledged:]
            acknowledged += len(fresh)
            if fresh:
                await client.ack(*fresh)
                await client.give(len(fresh))

    async def run(self) -> None:
        seen: set[int] = set()
        for life in range(3):
            async with self.world.running(crash=bool(self.rng.below(2))) as bus:
                stream, _ = await bus.streams.create(STREAM, BY)
                for _ in range(self.rng.below(5)):
                    await (self.publish(stream) if self.rng.below(3) else self.compact(stream))
                if life == 0 or not self.durable:
                    self.begin(stream)
                    seen.clear()
                client = await self.open()
                for _ in range(self.rng.below(4)):
                    await (self.publish(stream) if self.rng.below(2) else self.compact(stream))
                    await self.consume(client, seen, self.rng.below(4))
                if life == 2:
                    await self.consume(client, seen, 200)
        new = {offset for offset in self.published if offset >= self.began_at and self.takes(offset)}
        allowed = self.wanted | new
        assert seen <= allowed, f"not to be delivered: {sorted(seen - allowed)}"
        missed = allowed - seen - self.gone
        assert not missed, f"missed: {sorted(missed)}"
        for offset in self.gone & (self.wanted - seen):
            key = self.published[offset][0]
            later = [o for o, (other, _) in self.published.items() if other == key and o > offset]
            assert later, "compaction removes nothing that is the last of its key"


@given(seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_what_is_there_of_each_key_and_then_all_that_is_new(seed: int) -> None:
    history = History(seed)
    virtual(history.run)
