"""Publishing and consuming while the disk fails: what is answered, what is known afterwards, and that it goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reference.events_on_disk import DiskWorld
from reference.events_world import BY, Notice, places
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import DiskFull, OutcomeUnknown, StreamClosed, TrunklineError
from trunkline.server.events.stream import EventStream

EARLIEST = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))


async def stream_of(world: DiskWorld) -> EventStream:
    return await world.bus.streams.get("shop", "", BY)


async def stored_ids(stream: EventStream) -> dict[str, int]:
    found: dict[str, int] = {}
    for offset in range(stream.dispatcher.end):
        body = await stream.dispatcher.event_at(offset)
        if body is not None:
            event = events_pb2.CloudEvent.FromString(bytes(body))
            assert event.id not in found, f"{event.id} is stored twice"
            found[event.id] = offset
    return found


async def usable(stream: EventStream) -> None:
    async with asyncio.timeout(60):
        while stream.event_log.failed:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("fault", ["sync", "write"])
@pytest.mark.parametrize("seed", range(25))
def test_a_repeat_after_a_failed_disk_is_recognised_just_when_the_event_is_there(fault: str, seed: int) -> None:
    async def main() -> None:
        world = DiskWorld(seed=seed)
        async with world.running(crash=True, power=seed % 2 == 1):
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("before")
            stream = await stream_of(world)
            world.faults.latency_ns = (100_000, 3_000_000)
            batches = [[f"{n}-{i}" for i in range(1 + n % 3)] for n in range(8)]
            tasks = [asyncio.create_task(world.publish(*ids)) for ids in batches]
            # The same events, on their way a second time: they must share the fate of the first.
            tasks.append(asyncio.create_task(world.publish(*batches[0])))
            fails = {f"{fault}_fails": 1_000}
            await asyncio.sleep(0)
            for name, chance in fails.items():
                setattr(world.faults, name, chance)
            answers: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
            assert any(isinstance(answer, OutcomeUnknown) for answer in answers), answers
            assert all(
                isinstance(a, OutcomeUnknown | StreamClosed) or not isinstance(a, BaseException) for a in answers
            )
            with pytest.raises(TrunklineError):
                await world.publish("while it is down")
            setattr(world.faults, f"{fault}_fails", 0)
            await usable(stream)
            there = await stored_ids(stream)
            for ids, answer in zip(batches, answers, strict=False):
                if not isinstance(answer, BaseException):
                    assert set(ids) <= set(there), "acknowledged and not there"
            for ids in batches:
                again = await world.publish(*ids)
                told = [(run.offset + i, run.duplicate) for run in again.published for i in range(run.count)]
                for one, (offset, duplicate) in zip(ids, told, strict=True):
                    assert duplicate == (one in there), one
                    if duplicate:
                        assert offset == there[one]
            there = await stored_ids(stream)
            await client.received(len(there))
            assert sorted(set(client.offsets)) == sorted(there.values()), "a subscriber did not go on"
        async with world.running():
            assert await stored_ids(await stream_of(world)) == there, "acknowledged and not there after a restart"

    virtual(main)


def test_a_full_disk_refuses_keeps_what_it_has_and_takes_events_again_when_there_is_room() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("a", "b")
            await client.received(2)
            await client.ack(0)
            await asyncio.sleep(0.2)
            stream = await stream_of(world)
            world.faults.capacity_bytes = 0
            with pytest.raises(DiskFull):
                await world.publish("c")
            with pytest.raises(TrunklineError):
                await world.publish("c", "d")
            assert places(await world.publish("a")) == [(0, 1, True)], "what is there is known, also on a full disk"
            await client.ack(1)
            await asyncio.sleep(5)
            assert world.bus.checkpoints.failures > 0
            world.faults.capacity_bytes = None
            await usable(stream)
            await asyncio.sleep(5)
            assert not stream.feeds["billing"].state.dirty, "what could not be written is, once there is room"
            assert places(await world.publish("c", "a")) == [(2, 1, False), (0, 1, True)]
            await client.received(3)
            await client.ack(2)
            await asyncio.sleep(5)
            written = world.bus.checkpoints.written
            await asyncio.sleep(20)
            assert world.bus.checkpoints.written == written, "there is nothing left to say"
        async with world.running():
            feed = (await stream_of(world)).feeds["billing"]
            assert (feed.state.floor, feed.state.counts.redelivered) == (3, 0)

    virtual(main)


@pytest.mark.parametrize("restart", [False, True])
def test_a_stream_made_anew_knows_nothing_of_the_one_before(restart: bool) -> None:
    async def main() -> None:
        world = DiskWorld()
        config = events_pb2.StreamConfig(namespace="shop", name="s")
        async with world.running(crash=restart) as bus:
            await bus.streams.create(config, BY)
            client, tap, own = world.connect(), world.connect(), world.connect()
            await client.open(stream="s", name="billing", config=EARLIEST)
            await tap.open(stream="s", config=EARLIEST, no_acknowledgement=True)
            await own.open(stream="s", config=EARLIEST)
            await world.publish("a", "b", "c", stream="s")
            for one in (client, tap, own):
                await one.received(3)
            await client.ack(0, 1)
            await asyncio.sleep(0.2)
            await client.ack(2)
            await bus.streams.delete("shop", "s", BY)
            for one in (client, tap, own):
                assert [(n.kind, n.error.reason) for n in one.notices][-1] == (Notice.KIND_ENDED, "STREAM_NOT_FOUND")
            token = tap.notices[0].resume_token
            if not restart:
                await anew(world, token, config)
        if restart:
            async with world.running():
                await anew(world, token, config)

    async def anew(world: DiskWorld, token: bytes, config: events_pb2.StreamConfig) -> None:
        await world.bus.streams.create(config, BY)
        assert places(await world.publish("a", stream="s")) == [(0, 1, False)]
        client, tap = world.connect(), world.connect()
        await client.open(stream="s", name="billing", config=EARLIEST)
        await tap.open(stream="s", resume_token=token, no_acknowledgement=True)
        await client.received(1)
        await tap.received(1)
        assert (client.attempts, tap.attempts) == ([(0, 1)], [(0, 1)])
        assert [n.kind for n in tap.notices] == [Notice.KIND_OPENED, Notice.KIND_GAP]
        assert [n.kind for n in client.notices] == [Notice.KIND_OPENED]

    virtual(main)


def test_retention_that_passes_a_subscription_is_told_and_it_goes_on() -> None:
    async def main() -> None:
        world = DiskWorld()
        config = events_pb2.StreamConfig(namespace="shop", name="s", max_records=80)
        async with world.running(crash=True) as bus:
            stream, _ = await bus.streams.create(config, BY)
            client = world.connect()
            await client.open(stream="s", name="billing", config=EARLIEST, credit=5)
            for batch in range(30):
                await world.publish(*(f"{batch}-{i}" for i in range(10)), stream="s")
            await client.received(5)
            await client.ack(0, 1)
            await asyncio.sleep(30)
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "s", BY)
            first = stream.history.first_offset
            assert 200 <= first <= 220
            client = world.connect()
            await client.open(stream="s", name="billing", credit=1_000)
            await client.received(300 - first)
            assert sorted(client.offsets) == list(range(first, 300)), "each once"
            [gap] = [n for n in client.notices if n.kind == Notice.KIND_GAP]
            assert (gap.old_offset, gap.next_offset, gap.old_incarnation == gap.incarnation) == (2, first, True)
            await client.ack(*range(first, 300))
            await asyncio.sleep(1)
            [state] = bus.subscriptions.states("shop", "s")
            assert (state.floor, state.lag) == (300, 0)

    virtual(main)
