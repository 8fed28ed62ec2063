"""A stream whose history is cut while it is consumed, at a restart, and at a restore: on the real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reference.events_on_disk import FOLDER, DiskWorld
from reference.events_world import BY, Ack, Notice, places
from reference.registry_world import virtual
from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import DiskFull, TrunklineError
from trunkline.server.events.delivery import Limits
from trunkline.server.events.dispatcher import Dispatcher
from trunkline.server.events.event_block import EventBlock
from trunkline.server.events.stream import EventStream
from trunkline.server.events.subscription import SubscriptionState
from trunkline.server.events.tasks import Tasks
from trunkline.server.journal.files.backup import backup, restore

EARLIEST = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))
STREAM = events_pb2.StreamConfig(namespace="shop", name="quick", sync=common_pb2.SYNC_WRITTEN)


def gaps(client: Any, subscription_id: int = 1) -> list[tuple[int, int, int, int]]:
    return [
        (n.old_incarnation, n.old_offset, n.incarnation, n.next_offset)
        for n in client.notices
        if n.kind == Notice.KIND_GAP and n.subscription_id == subscription_id
    ]


def ends(client: Any) -> dict[int, str]:
    return {n.subscription_id: n.error.reason for n in client.notices if n.kind == Notice.KIND_ENDED}


async def lose_the_tail(world: DiskWorld, stream: EventStream) -> None:
    """The next roll's sync fails: what was written since the last one is gone."""
    world.faults.sync_fails = 1_000
    with pytest.raises(Exception, match=r"."):
        await stream.event_log.log._begin_next_segment()  # type: ignore[attr-defined]
    world.faults.sync_fails = 0


async def recovered(stream: EventStream) -> None:
    async with asyncio.timeout(60):
        while stream.event_log.failed:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def quick(world: DiskWorld) -> EventStream:
    stream, _ = await world.bus.streams.create(STREAM, BY)
    return stream


async def publish(world: DiskWorld, *ids: str) -> list[tuple[int, int, bool]]:
    return list(places(await world.publish(*ids, stream="quick")))


def test_history_cut_while_running_is_told_and_nothing_new_is_skipped() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running():
            stream = await quick(world)
            await publish(world, "a", "b", "c")
            await stream.event_log.log._begin_next_segment()  # type: ignore[attr-defined]
            await publish(world, "lost1", "lost2")
            clients = {name: world.connect() for name in ("beyond", "below", "tap", "behind", "own", "mine")}
            for name in ("beyond", "below"):
                await clients[name].open(stream="quick", name=name, config=EARLIEST, credit={"below": 2}.get(name, 100))
            await clients["tap"].open(stream="quick", config=EARLIEST, no_acknowledgement=True)
            await clients["behind"].open(stream="quick", config=EARLIEST, no_acknowledgement=True, credit=1)
            await clients["own"].open(stream="quick", config=EARLIEST)
            await clients["mine"].open(stream="quick", config=EARLIEST, credit=2)
            for name, count in {"beyond": 5, "below": 2, "tap": 5, "behind": 1, "own": 5, "mine": 2}.items():
                await clients[name].received(count)
            await clients["beyond"].ack(0, 1, 2, 3)
            await clients["below"].ack(0)
            await clients["mine"].ack(0, 1)
            await asyncio.sleep(6)
            token = {name: clients[name].notices[-1].resume_token for name in ("tap", "own")}
            old = stream.incarnation
            await lose_the_tail(world, stream)
            await recovered(stream)
            new = stream.incarnation
            assert new != old
            assert stream.history.next_offset == stream.dispatcher.end == 3
            for name in ("beyond", "tap", "own"):
                assert ends(clients[name]) == {1: "STREAM_CLOSED"}, name
                assert gaps(clients[name]) == []
            for name, offset in {"below": 1, "behind": 1, "mine": 2}.items():
                assert ends(clients[name]) == {}
                assert gaps(clients[name]) == [(old, offset, new, offset)], name
            assert len(stream.dispatcher.followers) == 4, "the durable ones, and those that go on"
            # The old delivery of offset 4 is acknowledged late: the new event there has nothing to do with it.
            assert await publish(world, "new1", "new2") == [(3, 2, False)]
            await clients["beyond"].ack(4)
            await clients["beyond"].open(stream="quick", name="beyond", subscription_id=2)
            await clients["beyond"].received(7)
            assert clients["beyond"].attempts[5:] == [(3, 1), (4, 1)]
            assert gaps(clients["beyond"], 2) == [(old, 4, new, 3)]
            await clients["below"].give(10)
            await clients["below"].received(6)
            assert sorted(clients["below"].attempts[2:]) == [(1, 2), (2, 1), (3, 1), (4, 1)]
            await clients["mine"].give(10)
            await clients["mine"].received(5)
            assert clients["mine"].attempts[2:] == [(2, 1), (3, 1), (4, 1)]
            await clients["behind"].give(10)
            await clients["behind"].received(5)
            assert clients["behind"].offsets == [0, 1, 2, 3, 4]
            for name, begins_at in {"tap": 3, "own": 0}.items():
                more = {"no_acknowledgement": True} if name == "tap" else {}
                await clients[name].open(stream="quick", resume_token=token[name], subscription_id=2, **more)
                await clients[name].received(7)
                assert clients[name].offsets[5:] == list(range(begins_at, 5))[: len(clients[name].offsets) - 5]
            assert gaps(clients["tap"], 2) == [(old, 5, new, 3)]
            assert gaps(clients["own"], 2) == [(old, 0, new, 0)]

    virtual(main)


def test_ids_that_were_lost_are_new_again_and_those_that_were_kept_are_known() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running():
            stream = await quick(world)
            await publish(world, "a", "b")
            await stream.event_log.log._begin_next_segment()  # type: ignore[attr-defined]
            await publish(world, "lost")
            await lose_the_tail(world, stream)
            await recovered(stream)
            assert await publish(world, "a", "b", "lost") == [(0, 2, True), (2, 1, False)]
            assert await publish(world, "lost") == [(2, 1, True)]

    virtual(main)


def test_a_new_incarnation_is_kept_though_saying_so_failed_at_first() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running():
            stream = await quick(world)
            await publish(world, "a", "b")
            await stream.event_log.log._begin_next_segment()  # type: ignore[attr-defined]
            await publish(world, "lost")
            await lose_the_tail(world, stream)
            refused: list[str] = []

            def refuse(name: str, path: str) -> None:
                if name == "create" and "/meta" in path and len(refused) < 3:
                    refused.append(path)
                    raise DiskFull("full", operation="create")

            world.alive.on_call = refuse
            await recovered(stream)
            assert len(refused) == 3
            await publish(world, "c")
            incarnations = stream.history.incarnations
        async with world.running():
            stream = world.bus.streams.peek("shop", "quick")  # type: ignore[assignment]
            assert stream.history.incarnations == incarnations
            assert [i.first_offset for i in incarnations] == [0, 2]

    virtual(main)


@pytest.mark.parametrize("power", [False, True])
def test_a_restart_that_changes_the_incarnation_skips_nothing_that_is_kept(power: bool) -> None:
    async def main() -> None:
        for seed in range(20):
            world = DiskWorld(seed=seed)
            async with world.running(crash=True, power=power):
                stream = await quick(world)
                await publish(world, "a", "b", "c", "d")
                client = world.connect()
                await client.open(stream="quick", name="billing", config=EARLIEST)
                tap = world.connect()
                await tap.open(stream="quick", no_acknowledgement=True, config=EARLIEST)
                await client.received(4)
                await client.ack(0, 1, 3)
                await asyncio.sleep(6)
                token, old = tap.notices[-1].resume_token, stream.incarnation
            async with world.running() as bus:
                found = bus.streams.peek("shop", "quick")
                assert found is not None
                assert found.incarnation != old
                kept = found.dispatcher.end
                await publish(world, *(f"n{i}" for i in range(3)))
                client, tap = world.connect(), world.connect()
                await client.open(stream="quick", name="billing")
                await tap.open(stream="quick", no_acknowledgement=True, resume_token=token)
                expected = [2] * (kept > 2) + list(range(kept, kept + 3))
                await client.received(len(expected))
                await tap.received(3)
                await asyncio.sleep(1)
                assert sorted(client.offsets) == expected, seed
                assert tap.offsets == list(range(kept, kept + 3)), seed
                assert gaps(client) == [(old, 2, found.incarnation, min(2, kept))], seed
                assert gaps(tap) == [(old, 4, found.incarnation, kept)], seed
                await client.ack(*expected)
                # Told once is told.
                again = world.connect()
                await again.open(stream="quick", name="billing")
                assert gaps(again) == []

    virtual(main)


def test_a_restore_goes_on_where_the_backup_was_taken() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running():
            await world.publish("a", "b")
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await client.received(2)
            await client.ack(0)
            await asyncio.sleep(1)
            stream = world.bus.streams.peek("shop", "events")
            assert stream is not None
            await backup(world.disk, FOLDER, "/backup", world.clock)
            await world.publish("after1", "after2")
            await client.received(4)
            tap = world.connect()
            await tap.open(no_acknowledgement=True)
            token, old = tap.notices[-1].resume_token, stream.incarnation
        world.folder = "/restored"
        await restore(world.disk, "/backup", "/restored", world.rng)
        async with world.running() as bus:
            found = bus.streams.peek("shop", "events")
            assert found is not None
            assert (found.incarnation != old, found.dispatcher.end) == (True, 2)
            assert places(await world.publish("b", "after1")) == [(1, 1, True), (2, 1, False)]
            client, tap = world.connect(), world.connect()
            await client.open(name="billing")
            await tap.open(no_acknowledgement=True, resume_token=token)
            await client.received(2)
            await tap.received(1)
            assert (sorted(client.attempts), tap.attempts) == ([(1, 2), (2, 1)], [(2, 1)])
            assert gaps(client) == [(old, 1, found.incarnation, 1)]
            assert gaps(tap) == [(old, 4, found.incarnation, 2)]
            await client.settle(Ack.OUTCOME_ACK, 1, 2)

    virtual(main)


def test_a_checkpoint_of_the_old_history_counts_nothing_in_the_new_one() -> None:
    limits = Limits()
    state = SubscriptionState(limits, incarnation=1, position=0)
    state.consumers.add(1)
    state.consumers.give(1, 10)
    state.offer(range(5), 5, time_ns=0)
    on_its_way = state.save(0, 0)
    assert on_its_way.progress.delivered_to > 9, "it counts ahead"
    moved = on_its_way.progress.moved_to(2, 3)
    state = SubscriptionState.recover(limits, moved, end=3, now_ns=0, time_ns=0, changed=True)
    state.consumers.add(1)
    state.consumers.give(1, 10)
    state.offer(range(9), 9, time_ns=0)
    state.saved(on_its_way)
    assert state.dirty
    assert state.take(0) == [], "a delivery that no checkpoint of this history counts"
    state.saved(state.save(0, 0))
    assert [delivery.offset for delivery in state.take(0)] == list(range(9))


def test_what_was_being_read_when_the_history_was_cut_is_not_shown() -> None:
    class HeldLog:
        first_offset, next_offset = 0, 5

        def __init__(self) -> None:
            self.held: asyncio.Future[list[EventBlock]] = asyncio.get_running_loop().create_future()

        def on_durable(self, _listener: object, _told: object) -> None: ...

        async def read(self, _offset: int, *, max_bytes: int, index_only: bool = False) -> list[EventBlock]:
            return await self.held

    class Follower:
        def pump(self) -> bool:
            return False

        def flush(self) -> None: ...
        def missing(self, first_offset: int) -> None: ...
        def move(self, incarnation: int, cut: int) -> None: ...
        def fail(self, error: TrunklineError) -> None: ...

    async def main() -> None:
        log = HeldLog()
        dispatcher: Dispatcher[EventBlock] = Dispatcher(log, lambda block, _start: block, Tasks())
        follower = Follower()
        dispatcher.attach(follower)
        dispatcher.load(2, follower)
        await asyncio.sleep(0)
        log.next_offset = 2
        dispatcher.rejoin()
        log.held.set_result([])
        await asyncio.sleep(0.1)
        log.next_offset = dispatcher.end = 5  # the new history has grown to where the old one was
        assert dispatcher.block_at(2) is None, "nothing was there, in the old history"

    virtual(main)
