"""The memory engine: order, visibility, bounds."""

from __future__ import annotations

import asyncio

import pytest

from reference.journal_batches import body_of, events_batch, records_batch
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import (
    DurabilityUnmet,
    InvalidArgument,
    LimitExceeded,
    PositionOutOfRange,
    StreamClosed,
)
from trunkline.core.model import Sync
from trunkline.server.journal.block import Block
from trunkline.server.journal.log import Log, LogConfig, Retention
from trunkline.server.journal.memory import MemoryEngine

MEMORY = LogConfig(sync=Sync.MEMORY)


def an_engine(offers: Sync = Sync.MEMORY) -> MemoryEngine:
    return MemoryEngine(ManualClock(epoch_ns=1_000), Rng(1), offers=offers)


async def a_log(config: LogConfig = MEMORY) -> Log:
    return await an_engine().open_log("shop/events", config)


async def test_appends_are_told_in_order_before_they_are_answered() -> None:
    log = await a_log()
    told: list[Block] = []
    end = log.on_durable(told.append)
    first = log.append_nowait(events_batch(3), time_ns=50)
    second = log.append_nowait(events_batch(2, first=3), time_ns=40)
    assert (first.offset, second.offset, log.next_offset, told) == (0, 3, 0, [])
    appended = await second.future
    assert (appended.offset, appended.count, appended.time_ns) == (3, 2, 50), "time does not go back"
    assert [(block.base_offset, block.end_offset) for block in told] == [(0, 5)]
    assert log.next_offset == 5
    end()
    await log.append(events_batch(1), time_ns=60)
    assert len(told) == 1


async def test_reading_starts_at_the_block_that_holds_the_offset() -> None:
    log = await a_log()
    for n in range(10):
        await log.append(events_batch(10, first=n * 10), time_ns=n)
    blocks = await log.read(15, max_bytes=1)
    assert [block.base_offset for block in blocks] == [10]
    assert bytes(blocks[0].body(5)) == body_of(15)
    assert [block.base_offset for block in await log.read(95, max_bytes=1 << 20)] == [90]
    assert await log.read(100, max_bytes=1) == []
    with pytest.raises(PositionOutOfRange):
        await log.read(101, max_bytes=1)
    assert await log.offset_at(3) == 30
    assert await log.offset_at(99) == 100


async def test_a_waiter_sees_what_is_appended_and_hears_of_the_end() -> None:
    log = await a_log()
    waiting = asyncio.ensure_future(log.wait_beyond(2))
    await log.append(events_batch(2), time_ns=0)
    await asyncio.sleep(0)
    assert not waiting.done()
    await log.append(events_batch(1), time_ns=0)
    await waiting
    hopeless = asyncio.ensure_future(log.wait_beyond(3))
    await asyncio.sleep(0)
    await log.close()
    with pytest.raises(StreamClosed):
        await hopeless
    with pytest.raises(StreamClosed):
        log.append_nowait(events_batch(1), time_ns=0)


async def test_what_is_kept_is_bounded_without_being_told() -> None:
    log = await a_log(LogConfig(sync=Sync.MEMORY, memory_bytes_max=64 << 10))
    for n in range(100):
        await log.append(events_batch(10, first=n * 10), time_ns=n)
    assert log.bytes <= 64 << 10
    assert log.first_offset > 0
    with pytest.raises(PositionOutOfRange):
        await log.read(0, max_bytes=1)
    assert (await log.read(log.first_offset, max_bytes=1))[0].base_offset == log.first_offset


@pytest.mark.parametrize(
    ("retention", "first"),
    [
        (Retention(max_records=25), 70),
        (Retention(max_offset=35), 30),
        (Retention(max_age_ns=4), 50),
        (Retention(max_bytes=0), 100),
        (Retention(), 0),
    ],
)
async def test_retention(retention: Retention, first: int) -> None:
    log = await a_log()
    for n in range(10):
        await log.append(events_batch(10), time_ns=n)
    assert await log.trim(retention, now_ns=9) == log.first_offset == first


async def test_waiting_appends_are_bounded() -> None:
    log = await a_log(LogConfig(sync=Sync.MEMORY, queue_bytes_max=64 << 10))
    last = log.append_nowait(events_batch(250), time_ns=0)
    with pytest.raises(LimitExceeded, match="queue_bytes_max"):
        log.append_nowait(events_batch(250), time_ns=0)
    await last.future
    await log.append(events_batch(10), time_ns=0)


async def test_compaction_keeps_the_latest_of_each_key() -> None:
    log = await a_log()
    await log.append(records_batch("a", "b", "c"), time_ns=1)
    await log.append(records_batch("b", "d"), time_ns=2)
    await log.append(records_batch("c", body=b""), time_ns=3)
    await log.compact()
    blocks = await log.read(0, max_bytes=1 << 20)
    records = [block.record(i) for block in blocks for i in range(block.count)]
    assert [(record.offset, record.key, record.time_ns) for record in records] == [
        (0, "a", 1),
        (3, "b", 2),
        (4, "d", 2),
    ]


async def test_an_engine_refuses_what_it_cannot_promise() -> None:
    with pytest.raises(DurabilityUnmet):
        await an_engine().open_log("trunkline.control", LogConfig(sync=Sync.FSYNCED))
    log = await an_engine(Sync.FSYNCED).open_log("trunkline.control", LogConfig(sync=Sync.FSYNCED))
    assert log.sync is Sync.FSYNCED


@pytest.mark.parametrize("name", ["", "..", "a/../b", "A/b", "a//b", "a/b/c", "/a", "a\n", "a" * 200])
async def test_names_that_are_no_streams_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="stream"):
        await an_engine().open_log(name, MEMORY)


async def test_two_journals_and_two_histories_have_different_ids() -> None:
    rng = Rng(1)
    engines = [MemoryEngine(ManualClock(), rng) for _ in range(2)]
    logs = [await engine.open_log("a/b", MEMORY) for engine in engines]
    assert len({engine.journal_id for engine in engines}) == len({log.incarnation for log in logs}) == 2
    assert logs[0].resume_offset(logs[0].incarnation, 7) == 7
    assert logs[0].resume_offset(logs[1].incarnation, 7) is None


async def test_snapshots_are_pruned_to_the_base_and_what_is_newer() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock, Rng(1))
    hour = 3_600 * 10**9
    for revision in range(100):
        await engine.save_snapshot(revision, b"%d" % revision)
        clock.advance(hour)
    assert await engine.prune_snapshots(before_time_ns=-1) is None
    assert await engine.prune_snapshots(before_time_ns=50 * hour + 1) == 48
    kept = [revision async for revision, _ in engine.load_snapshots()]
    assert kept[:2] == [99, 98]
    assert len(kept) < 10
