"""Random histories of a whole event bus in virtual time, with crashes: the named guarantees hold in each."""

from __future__ import annotations

import asyncio
import random

import guarantees
import hypothesis.strategies as st
from google.protobuf import duration_pb2
from hypothesis import given, settings

from reference.events_world import Ack, Client, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2

CONFIG = events_pb2.SubscriptionConfig(
    start=events_pb2.StartPosition(earliest=True),
    max_deliveries=6,
    max_in_flight=20,
    ack_deadline=duration_pb2.Duration(seconds=2),
)


class History:
    """What publishers were told and what consumers saw."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(seed=seed)
        self.acknowledged: dict[str, int] = {}
        self.published = 0

    async def epoch(self, *, last: bool) -> None:
        """From a start to a crash; the last one ends when everything is done."""
        world = self.world
        async with world.running(crash=self.chance.random() < 0.8):
            clients = [world.connect() for _ in range(self.chance.randint(1, 3))]
            for client in clients:
                await client.open(name="billing", config=CONFIG, credit=10_000)
            for _ in range(self.chance.randint(1, 12)):
                await self.step(clients)
            if last:
                await self.finish(clients)

    async def step(self, clients: list[Client]) -> None:
        """Publish something old or new, settle some of what came, or wait."""
        match self.chance.randrange(4):
            case 0 | 1:
                await self.publish()
            case 2:
                client = self.chance.choice(clients)
                for offset in {d.offset for d in client.deliveries}:
                    outcome = self.chance.choice([0, Ack.OUTCOME_ACK, Ack.OUTCOME_ACK, Ack.OUTCOME_NACK])
                    if outcome:
                        await client.settle(outcome, offset, delay_s=self.chance.choice([0, 0, 1]))
            case _:
                await asyncio.sleep(self.chance.choice([0, 0.02, 0.1, 3]))

    async def publish(self) -> None:
        fresh = [f"e{self.published + i}" for i in range(self.chance.randint(1, 6))]
        self.published += len(fresh)
        ids = fresh + self.chance.sample(sorted(self.acknowledged), min(2, len(self.acknowledged)))
        self.chance.shuffle(ids)
        answer = await self.world.publish(*ids)
        offsets = [run.offset + i for run in answer.published for i in range(run.count)]
        for event_id, offset in zip(ids, offsets, strict=True):
            assert self.acknowledged.setdefault(event_id, offset) == offset, "told another offset the second time"

    async def finish(self, clients: list[Client]) -> None:
        """Acknowledge everything until nothing is open any more."""
        world = self.world
        async with asyncio.timeout(120):
            while True:
                for client in clients:
                    await client.ack(*{d.offset for d in client.deliveries} or {0})
                [state] = world.bus.subscriptions.states("shop", "events")
                if state.lag == 0:
                    break
                await asyncio.sleep(0.5)
        stream = world.bus.streams.peek("shop", "events")
        assert stream is not None
        self.aside = frozenset(stream.feeds["billing"].state.set_aside)
        self.stored = {
            offset: events_pb2.CloudEvent.FromString(bytes(body)).id
            for offset in range(stream.dispatcher.end)
            if (body := await stream.dispatcher.event_at(offset)) is not None
        }

    def broken(self) -> list[str]:
        seen = [guarantees.Delivered(0, d.offset, d.attempt, d.event.id) for d in self.world.delivered]
        return [
            *guarantees.broke_acked_is_kept(self.acknowledged, self.stored),
            *guarantees.broke_deduplicated(self.stored),
            *guarantees.broke_at_least_once(self.stored, seen, self.aside),
            *guarantees.broke_attempts_counted(seen, CONFIG.max_deliveries),
        ]


@given(seed=st.integers(0, 2**32), epochs=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_guarantees_hold_through_crashes(seed: int, epochs: int) -> None:
    history = History(seed)

    async def main() -> None:
        for number in range(epochs):
            await history.epoch(last=number == epochs - 1)

    virtual(main)
    assert not history.broken(), f"seed {seed}, {epochs} epochs: {history.broken()}"
