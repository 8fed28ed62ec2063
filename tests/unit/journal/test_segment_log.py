"""The segment engine on a disk in memory: order, groups, segments, reading, failing, recovering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace

import pytest
from simulation.sim_disk import DiskFaults, SimDisk

from reference.journal_batches import body_of, events_batch, records_batch
from reference.keyed_events import Keyed, batch_of
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import (
    DiskFull,
    DiskReadOnly,
    JournalCorrupt,
    JournalLocked,
    LimitExceeded,
    OutcomeUnknown,
    PositionOutOfRange,
    StreamClosed,
)
from trunkline.core.model import Sync
from trunkline.server.events.compaction import EventKeys
from trunkline.server.journal.block import Block
from trunkline.server.journal.files.disk import File
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.files.segment_log import SegmentLog
from trunkline.server.journal.key_compaction import KeyPolicy
from trunkline.server.journal.log import Log, LogConfig, Retention

SMALL = LogConfig(segment_bytes=64 << 10, recent_bytes_max=0)


async def an_engine(disk: SimDisk, seed: int = 1) -> SegmentEngine:
    engine = SegmentEngine("/data", disk, ManualClock(), Rng(seed))
    await engine.open()
    return engine


async def fill(log: Log, count: int, *, first: int = 0, batch: int = 10) -> None:
    for n in range(first, first + count, batch):
        await log.append(events_batch(batch, first=n), time_ns=n)


async def read_all(log: Log, offset: int | None = None, *, max_bytes: int = 1 << 16) -> list[int]:
    """Numbers in the bodies from an offset on; asserts that offsets and numbers grow together."""
    at = log.first_offset if offset is None else offset
    numbers = []
    while blocks := await log.read(at, max_bytes=max_bytes):
        for block in blocks:
            for index in range(max(at - block.base_offset, 0), block.count):
                assert block.base_offset + index >= at
                at = block.base_offset + index + 1
                numbers.append(int(bytes(block.body(index)[:20])))
    assert at == log.next_offset
    return numbers


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(Rng(7))


@pytest.fixture
async def log(disk: SimDisk) -> AsyncIterator[SegmentLog]:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert isinstance(log, SegmentLog)
    yield log
    await log.close()


async def test_what_is_appended_is_told_in_order_before_it_is_answered(log: SegmentLog) -> None:
    told: list[Block] = []
    log.on_durable(told.append)
    first = log.append_nowait(events_batch(3), time_ns=50)
    second = log.append_nowait(events_batch(2, first=3), time_ns=40)
    assert (first.offset, second.offset, log.next_offset) == (0, 3, 0)
    appended = await second.future
    assert (appended.offset, appended.count, appended.time_ns) == (3, 2, 50)
    assert [(block.base_offset, block.end_offset, block.time_ns) for block in told] == [(0, 5, 50)]
    await log.append(events_batch(200, first=5), time_ns=40)
    assert [(block.base_offset, block.end_offset, block.time_ns) for block in told[1:]] == [(5, 205, 50)]
    assert await read_all(log) == list(range(205))


async def test_small_batches_of_nearly_one_time_become_one_block(log: SegmentLog) -> None:
    ms = 1_000_000
    times = [0, 1, ms - 1, ms, ms + 1, 5 * ms]
    pendings = [log.append_nowait(events_batch(2, first=2 * n, topics=3), time_ns=t) for n, t in enumerate(times)]
    pendings.append(log.append_nowait(events_batch(200, first=12), time_ns=5 * ms))
    appended = [await pending.future for pending in pendings]
    assert [(a.offset, a.count, a.time_ns) for a in appended] == [
        (0, 2, 0),
        (2, 2, 0),
        (4, 2, 0),
        (6, 2, ms),
        (8, 2, ms),
        (10, 2, 5 * ms),
        (12, 200, 5 * ms),
    ]
    blocks = await log.read(0, max_bytes=1 << 20)
    assert [(block.base_offset, block.count) for block in blocks] == [(0, 6), (6, 4), (10, 2), (12, 200)]
    whole = events_batch(6, topics=3)
    assert [blocks[0].topic(n) for n in range(6)] == [whole.topics[t] for t in whole.topic_ids]
    assert list(blocks[0].id_hashes) == list(whole.id_hashes)
    assert await read_all(log) == list(range(212))


async def test_small_appends_of_records_keep_their_heads(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("trunkline.subscriptions", SMALL)
    pendings = [log.append_nowait(records_batch(f"k{n}", author=f"a{n % 2}"), time_ns=n) for n in range(20)]
    await asyncio.gather(*[pending.future for pending in pendings])
    (block,) = await log.read(0, max_bytes=1 << 20)
    assert [(r.key, r.author) for r in map(block.record, range(20))] == [(f"k{n}", f"a{n % 2}") for n in range(20)]


async def test_many_small_blocks_close_a_segment_and_are_read_in_pieces(
    disk: SimDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.server.journal.files.retention.SEGMENT_BLOCKS_MAX", 300)
    log = await (await an_engine(disk)).open_log("shop/events", LogConfig(recent_bytes_max=0))
    await fill(log, 700, batch=1)
    assert len([path for path in disk.paths() if path.endswith(".seg")]) >= 3
    assert len(await log.read(0, max_bytes=1 << 20)) == 256
    assert await read_all(log, max_bytes=1 << 20) == list(range(700))


async def test_what_comes_while_a_write_is_under_way_goes_out_together(disk: SimDisk, log: SegmentLog) -> None:
    before = disk.syncs
    first = log.append_nowait(events_batch(1), time_ns=0)
    await asyncio.sleep(0)
    rest = [log.append_nowait(events_batch(1, first=n), time_ns=0) for n in range(1, 100)]
    await first.future
    await asyncio.gather(*[pending.future for pending in rest])
    assert disk.syncs - before == 2


async def test_the_next_write_begins_before_the_last_is_told(
    disk: SimDisk, log: SegmentLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    write = disk.write

    def noted(file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> Awaitable[None]:
        done.append("write")
        return write(file, offset, data, sync=sync)

    monkeypatch.setattr(disk, "write", noted)
    log.on_durable(lambda block: done.append(f"told {block.base_offset}"))
    first = log.append_nowait(events_batch(1), time_ns=0)
    await asyncio.sleep(0)
    second = log.append_nowait(events_batch(1, first=1), time_ns=0)
    await first.future
    third = log.append_nowait(events_batch(1, first=2), time_ns=0)
    assert log.durable_end == log.next_offset == 1, "what is written and not told yet is not the next write"
    await asyncio.gather(second.future, third.future)
    assert done == ["write", "write", "told 0", "write", "told 1", "told 2"]


async def test_what_is_written_is_told_before_a_roll(log: SegmentLog, disk: SimDisk) -> None:
    first = log.append_nowait(events_batch(1), time_ns=0)
    await asyncio.sleep(0)
    compacting = asyncio.ensure_future(log.compact())
    second = log.append_nowait(events_batch(1, first=1), time_ns=0)
    await asyncio.gather(first.future, second.future, compacting)
    assert await read_all(log) == [0, 1]


async def test_what_is_written_is_told_before_a_full_segment_is_closed(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", replace(SMALL, retention=Retention(max_records=40)))
    first = log.append_nowait(events_batch(30), time_ns=0)
    await asyncio.sleep(0)
    second = log.append_nowait(events_batch(30, first=30), time_ns=0)
    await asyncio.gather(first.future, second.future)
    assert len([path for path in disk.paths() if path.endswith(".seg")]) == 2
    assert await read_all(log) == list(range(60))


async def test_a_bug_in_the_next_write_leaves_the_last_one_told(
    log: SegmentLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    first = log.append_nowait(events_batch(1), time_ns=0)
    await asyncio.sleep(0)
    second = log.append_nowait(events_batch(1, first=1), time_ns=0)
    monkeypatch.setattr("trunkline.server.journal.files.segment.encode_block", lambda *_, **__: 1 // 0)
    async with asyncio.timeout(5):
        assert (await first.future).offset == 0
        with pytest.raises(OutcomeUnknown, match="ZeroDivisionError"):
            await second.future
    monkeypatch.undo()
    await log.recover()
    assert await read_all(log) == [0]


async def test_a_log_of_many_segments_reads_back(disk: SimDisk, log: SegmentLog) -> None:
    await fill(log, 2_000)
    assert len([path for path in disk.paths() if path.endswith(".seg")]) > 5
    assert await read_all(log) == list(range(2_000))
    assert await read_all(log, 1_234, max_bytes=1) == list(range(1_234, 2_000))
    assert await log.offset_at(555) == 560
    assert await log.offset_at(10_000) == 2_000
    with pytest.raises(PositionOutOfRange):
        await log.read(2_001, max_bytes=1)


async def test_a_clean_stop_is_gone_on_from(disk: SimDisk) -> None:
    engine = await an_engine(disk)
    log = await engine.open_log("shop/events", SMALL)
    await fill(log, 500)
    incarnation, journal_id, node_id = log.incarnation, engine.journal_id, engine.node_id
    await engine.close()
    files = disk.paths()
    for seed in range(2, 5):
        engine = await an_engine(disk, seed)
        assert (engine.journal_id, engine.node_id) == (journal_id, node_id)
        log = await engine.open_log("shop/events", SMALL)
        assert (log.incarnation, log.next_offset, log.first_time_ns, log.last_time_ns) == (incarnation, 500, 0, 490)
        assert await read_all(log) == list(range(500))
        await engine.close()
        assert disk.paths() == files
    engine = await an_engine(disk)
    log = await engine.open_log("shop/events", SMALL)
    await fill(log, 100, first=500)
    assert await read_all(log) == list(range(600))


@pytest.mark.parametrize("sync", [Sync.FSYNCED, Sync.WRITTEN])
async def test_after_a_kill_everything_is_there_and_only_written_streams_get_a_new_incarnation(
    disk: SimDisk, sync: Sync
) -> None:
    config = LogConfig(sync=sync, segment_bytes=64 << 10)
    log = await (await an_engine(disk)).open_log("shop/events", config)
    await fill(log, 500)
    old = log.incarnation
    for seed in range(2, 6):
        disk.kill()
        log = await (await an_engine(disk, seed)).open_log("shop/events", config)
        assert await read_all(log) == list(range(500))
        assert (log.incarnation == old) == (sync is Sync.FSYNCED)
        assert log.resume_offset(old, 400) == 400
        assert log.resume_offset(old, 600) == (600 if sync is Sync.FSYNCED else 500)
    await fill(log, 10, first=500)
    assert await read_all(log) == list(range(510))


async def test_what_was_taken_over_from_the_page_cache_is_synced_before_it_is_used(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", LogConfig(sync=Sync.WRITTEN))
    await fill(log, 50)
    disk.kill()
    log = await (await an_engine(disk)).open_log("shop/events", LogConfig(sync=Sync.WRITTEN))
    disk.cut_power()
    log = await (await an_engine(disk)).open_log("shop/events", LogConfig(sync=Sync.WRITTEN))
    assert await read_all(log) == list(range(50))


async def test_a_torn_tail_is_cut(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 30)
    path = next(path for path in disk.paths() if path.endswith(".seg"))
    disk.kill()
    disk.flip(path, len(disk.content(path)) - 300)
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert await read_all(log) == list(range(20)), "the last block was not known to be synced"


async def test_damage_below_what_was_synced_is_reported_with_what_it_held(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 30)
    path = next(path for path in disk.paths() if path.endswith(".seg"))
    disk.kill()
    disk.flip(path, 64 + 100)
    with pytest.raises(JournalCorrupt, match=r"held records 0 to 19, which were synced"):
        await (await an_engine(disk)).open_log("shop/events", SMALL)


async def test_damage_that_comes_later_is_reported_by_the_read(disk: SimDisk, log: SegmentLog) -> None:
    await fill(log, 400)
    path = next(path for path in disk.paths() if path.endswith(".seg"))
    disk.flip(path, 64 + 88 + 1_000)
    with pytest.raises(JournalCorrupt, match=r"held records 0 to 9"):
        await log.read(5, max_bytes=1 << 20)
    assert (await log.read(10, max_bytes=1))[0].base_offset == 10


async def test_a_failed_sync_closes_the_log_and_nothing_of_it_is_ever_seen(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 20)
    told: list[Block] = []
    log.on_durable(told.append)
    disk.faults.sync_fails = 1_000
    group = log.append_nowait(events_batch(5, first=20), time_ns=0)
    await asyncio.sleep(0)
    behind = log.append_nowait(events_batch(5, first=25), time_ns=0)
    with pytest.raises(OutcomeUnknown):
        await group.future
    with pytest.raises(StreamClosed):
        await behind.future
    with pytest.raises(StreamClosed):
        log.append_nowait(events_batch(1), time_ns=0)
    assert isinstance(log.failed, StreamClosed)
    assert await read_all(log) == list(range(20)), "reading goes on"
    with pytest.raises(StreamClosed):
        await log.recover()
    disk.faults.sync_fails = 0
    await log.recover()
    assert log.failed is None
    appended = await log.append(events_batch(5, first=30), time_ns=0)
    assert appended.offset == 20, "no one has seen the positions"
    assert await read_all(log) == [*range(20), *range(30, 35)]
    assert [block.base_offset for block in told] == [20]
    disk.cut_power()
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert await read_all(log) == [*range(20), *range(30, 35)]


async def test_a_written_stream_that_loses_records_by_a_failed_sync_has_a_new_incarnation(disk: SimDisk) -> None:
    config = LogConfig(sync=Sync.WRITTEN, segment_bytes=64 << 10)
    log = await (await an_engine(disk)).open_log("shop/events", config)
    await fill(log, 20)
    old = log.incarnation
    disk.faults.sync_fails = 1_000
    with pytest.raises(StreamClosed):
        await log.compact()
    disk.faults.sync_fails = 0
    await log.recover()
    assert (log.next_offset, log.incarnation == old) == (0, False)
    assert log.resume_offset(old, 15) == 0
    await fill(log, 10, first=50)
    assert await read_all(log) == list(range(50, 60))


async def test_a_full_disk_refuses_and_takes_back_what_it_had_begun(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 20)
    disk.faults.capacity_bytes = sum(len(disk.content(path)) for path in disk.paths()) + 1_000
    with pytest.raises(DiskFull):
        await log.append(events_batch(50, first=20), time_ns=0)
    with pytest.raises(DiskFull):
        log.append_nowait(events_batch(1), time_ns=0)
    await log.recover()
    with pytest.raises(DiskFull):
        await log.append(events_batch(50, first=20), time_ns=0)
    disk.faults.capacity_bytes = None
    await log.recover()
    await fill(log, 10, first=20)
    assert await read_all(log) == list(range(30))
    disk.cut_power()
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert await read_all(log) == list(range(30)), "what was refused never turns up"


async def test_retention_frees_a_full_disk(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 1_000)
    disk.faults.capacity_bytes = 0
    with pytest.raises(DiskFull):
        await log.append(events_batch(50), time_ns=0)
    assert await log.trim(Retention(max_bytes=100_000), now_ns=0) > 0
    disk.faults.capacity_bytes = 200_000
    await log.recover()
    await log.append(events_batch(50), time_ns=0)


async def test_a_read_only_disk(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 20)
    disk.faults.read_only = True
    with pytest.raises(DiskReadOnly):
        await log.append(events_batch(1), time_ns=0)
    assert await read_all(log) == list(range(20))
    disk.faults.read_only = False
    await log.recover()
    await fill(log, 10, first=20)
    assert await read_all(log) == list(range(30))


async def test_a_write_that_fails_midway_may_or_may_not_have_been_kept(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 20)
    disk.faults.write_fails = 1_000
    with pytest.raises(OutcomeUnknown):
        await log.append(events_batch(10, first=20), time_ns=0)
    disk.faults.write_fails = 0
    await log.recover()
    await fill(log, 10, first=20)
    assert await read_all(log) == list(range(30))


async def test_a_large_append_is_one_answer_in_many_writes(disk: SimDisk) -> None:
    config = LogConfig(segment_bytes=64 << 10, group_bytes_max=64 << 10)
    log = await (await an_engine(disk)).open_log("trunkline.subscriptions", config)
    batch = records_batch(*[f"k{n}" for n in range(20)], body=bytes(1 << 20))
    appended = await log.append(batch, time_ns=1)
    assert (appended.offset, appended.count, log.next_offset) == (0, 20, 20)


async def test_waiting_appends_are_bounded(disk: SimDisk) -> None:
    config = LogConfig(queue_bytes_max=64 << 10)
    log = await (await an_engine(disk)).open_log("shop/events", config)
    last = log.append_nowait(events_batch(250), time_ns=0)
    with pytest.raises(LimitExceeded, match="queue_bytes_max"):
        log.append_nowait(events_batch(250), time_ns=0)
    await last.future
    await log.append(events_batch(250), time_ns=0)


async def test_waiters(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    waiting = asyncio.ensure_future(log.wait_beyond(12))
    await fill(log, 20)
    await waiting
    hopeless = asyncio.ensure_future(log.wait_beyond(20))
    await asyncio.sleep(0)
    await log.close()
    with pytest.raises(StreamClosed):
        await hopeless


@pytest.mark.parametrize(
    "retention",
    [
        Retention(max_age_ns=500),
        Retention(max_bytes=300_000),
        Retention(max_records=700),
        Retention(max_offset=1_200),
    ],
)
async def test_retention_lets_whole_segments_go(disk: SimDisk, retention: Retention) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 2_000)
    first = await log.trim(retention, now_ns=2_000)
    assert 0 < first == log.first_offset
    kept = await read_all(log)
    assert kept == list(range(first, 2_000))
    if retention.max_age_ns is not None:
        assert first <= 1_500 < first + 500
    if retention.max_bytes is not None:
        assert 300_000 - (70 << 10) <= log.bytes <= 300_000
    if retention.max_records is not None:
        assert 700 <= len(kept) <= 1_000
    if retention.max_offset is not None:
        assert 900 <= first <= 1_200
    with pytest.raises(PositionOutOfRange):
        await log.read(first - 1, max_bytes=1)
    disk.cut_power()
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert (log.first_offset, await read_all(log)) == (first, kept)


async def test_a_stream_with_little_traffic_ages_too(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 20)
    assert await log.trim(Retention(max_age_ns=100), now_ns=1_000) == 20
    assert (log.first_offset, log.next_offset, log.first_time_ns, log.last_time_ns) == (20, 20, 0, 10)
    disk.kill()
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert (log.first_offset, log.next_offset, log.last_time_ns) == (20, 20, 10)
    assert (await log.append(events_batch(1), time_ns=3)).time_ns == 10, "time does not go back"


async def test_compaction_keeps_the_latest_of_each_key_and_drops_ended_ones(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("trunkline.subscriptions", SMALL)
    for turn in range(40):
        await log.append(records_batch("a", "b", f"once{turn}", body=b"%d" % turn * 500), time_ns=turn)
    await log.append(records_batch("a", "once3", body=b""), time_ns=99)
    size = log.bytes
    await log.compact()
    assert log.bytes < size
    for _ in range(2):
        records = [block.record(i) for block in await _all_blocks(log) for i in range(block.count)]
        assert [record.key for record in records] == [
            *[f"once{turn}" for turn in range(39) if turn != 3],
            "b",
            "once39",
        ]
        assert all(record.body == b"%d" % record.time_ns * 500 for record in records)
        assert records[-1].offset == 119
        await log.append(records_batch("c"), time_ns=100)
        await log.compact(keep=lambda record: record.key != "c")
        disk.cut_power()
        log = await (await an_engine(disk)).open_log("trunkline.subscriptions", SMALL)


async def _all_blocks(log: Log) -> list[Block]:
    at, found = log.first_offset, []
    while blocks := await log.read(at, max_bytes=1 << 16):
        found += blocks
        at = blocks[-1].end_offset
    return found


async def test_id_hashes_of_the_newest_records(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 2_000)
    columns = [hashes async for hashes in log.ids(from_time_ns=0, max_ids=500)]
    assert [hashes.base_offset for hashes in columns] == list(range(1_500, 2_000, 10))
    assert list(columns[0].id_hashes) == list(events_batch(10, first=1_500).id_hashes)
    columns = [hashes async for hashes in log.ids(from_time_ns=1_950, max_ids=500)]
    assert [hashes.base_offset for hashes in columns] == list(range(1_950, 2_000, 10))


async def test_a_deleted_stream_is_gone_and_may_be_made_anew(disk: SimDisk) -> None:
    engine = await an_engine(disk)
    log = await engine.open_log("shop/events", SMALL)
    await fill(log, 200)
    await engine.open_log("shop/other", SMALL)
    await engine.open_log("shop/live", LogConfig(sync=Sync.MEMORY))
    assert await engine.list_logs() == ["shop/events", "shop/live", "shop/other"]
    await engine.delete_log("shop/events")
    await engine.delete_log("shop/never-was")
    assert await engine.list_logs() == ["shop/live", "shop/other"]
    fresh = await engine.open_log("shop/events", SMALL)
    assert (fresh.next_offset, fresh.incarnation == log.incarnation) == (0, False)


async def test_a_deletion_that_was_cut_short_is_finished(disk: SimDisk) -> None:
    for seed in range(30):
        disk = SimDisk(Rng(seed))
        engine = await an_engine(disk)
        log = await engine.open_log("shop/events", SMALL)
        await fill(log, 200)
        deleting = asyncio.ensure_future(engine.delete_log("shop/events"))
        for _ in range(seed):
            await asyncio.sleep(0)
        deleting.cancel()
        await asyncio.wait([deleting])
        disk.cut_power()
        engine = await an_engine(disk)
        if "shop/events" in await engine.list_logs():
            continue
        log = await engine.open_log("shop/events", SMALL)
        assert (log.first_offset, log.next_offset) == (0, 0)


async def test_one_folder_has_one_owner(disk: SimDisk) -> None:
    engine = await an_engine(disk)
    with pytest.raises(JournalLocked):
        await an_engine(disk)
    await engine.close()
    await an_engine(disk)


async def test_snapshots_are_found_newest_first_and_damaged_ones_left_out(disk: SimDisk) -> None:
    engine = await an_engine(disk)
    for revision in (5, 10, 15):
        await engine.save_snapshot(revision, b"state at %d" % revision)
    disk.cut_power()
    engine = await an_engine(disk)
    assert [found async for found in engine.load_snapshots()] == [(n, b"state at %d" % n) for n in (15, 10, 5)]
    path = next(path for path in disk.paths() if path.startswith("/data/snapshots/00000000000000000015"))
    disk.flip(path, 50)
    assert [revision async for revision, _ in engine.load_snapshots()] == [10, 5]


async def test_faults_are_reached() -> None:
    disk = SimDisk(Rng(1), DiskFaults(capacity_bytes=100))
    file = await (await _folder(disk)).create("/d/f")
    with pytest.raises(DiskFull) as refusal:
        await disk.write(file, 0, [bytes(60), bytes(60)])
    assert refusal.value.fields["written"] == "100"
    assert disk.reached == {"ENOSPC"}
    assert body_of(1)[:20] == b"00000000000000000001"


async def _folder(disk: SimDisk) -> SimDisk:
    await disk.open_folder("/d", create=True)
    return disk


async def test_what_a_start_accepts_survives_the_next_power_cut_although_a_sync_had_failed() -> None:
    """The page cache shows records that a failed sync has silently dropped: they are written anew before they are used."""
    lost_by_the_disk = 0
    for seed in range(20):
        disk = SimDisk(Rng(seed))
        log = await (await an_engine(disk)).open_log("shop/events", SMALL)
        await fill(log, 20)
        disk.faults.sync_fails = 1_000
        with pytest.raises(OutcomeUnknown):
            await log.append(events_batch(10, first=20), time_ns=0)
        disk.faults.sync_fails = 0
        disk.kill()
        log = await (await an_engine(disk)).open_log("shop/events", SMALL)
        accepted = await read_all(log)
        disk.cut_power()
        log = await (await an_engine(disk)).open_log("shop/events", SMALL)
        assert await read_all(log) == accepted
        lost_by_the_disk += accepted == list(range(30))
    assert lost_by_the_disk


async def test_a_trailer_does_not_outlive_the_going_on_behind_it(disk: SimDisk) -> None:
    """In a large segment the first new block overwrites the index only: an old trailer would hide it."""
    config = LogConfig(segment_bytes=64 << 20)
    engine = await an_engine(disk)
    await fill(await engine.open_log("shop/events", config), 20_000, batch=1_000)
    await engine.close()
    log = await (await an_engine(disk)).open_log("shop/events", config)
    await fill(log, 1, first=20_000, batch=1)
    disk.kill()
    log = await (await an_engine(disk)).open_log("shop/events", config)
    assert log.next_offset == 20_001


async def test_the_clean_mark_is_gone_once_the_log_is_open(disk: SimDisk) -> None:
    config = LogConfig(sync=Sync.WRITTEN)
    engine = await an_engine(disk)
    await fill(await engine.open_log("shop/events", config), 20)
    await engine.close()
    log = await (await an_engine(disk, 2)).open_log("shop/events", config)
    await fill(log, 10, first=20)
    incarnation = log.incarnation
    disk.cut_power()
    log = await (await an_engine(disk, 3)).open_log("shop/events", config)
    assert log.incarnation != incarnation


async def test_a_segment_is_not_called_whole_before_its_blocks_are_synced() -> None:
    """A power cut while a WRITTEN stream is closed may cost records, and never looks like damage."""
    for seed in range(60):
        disk = SimDisk(Rng(seed))
        log = await (await an_engine(disk)).open_log("shop/events", LogConfig(sync=Sync.WRITTEN))
        await fill(log, 100, batch=100)
        closing = asyncio.ensure_future(log.close())
        for _ in range(1 + seed % 3):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        disk.cut_power()
        log = await (await an_engine(disk)).open_log("shop/events", LogConfig(sync=Sync.WRITTEN))
        assert await read_all(log) == list(range(log.next_offset))


async def test_blocks_are_synced_before_the_trailer_that_says_so_is_written(
    disk: SimDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", LogConfig(sync=Sync.WRITTEN))
    await fill(log, 100)
    done: list[str] = []
    write, sync = disk.write, disk.sync

    async def noted_write(file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> None:
        done.append("write")
        await write(file, offset, data, sync=sync)

    async def noted_sync(file: File) -> None:
        done.append("sync")
        await sync(file)

    monkeypatch.setattr(disk, "write", noted_write)
    monkeypatch.setattr(disk, "sync", noted_sync)
    await log.close()
    assert done[:3] == ["sync", "write", "sync"]


async def test_a_bug_in_the_writing_closes_the_log_and_is_told(disk: SimDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    await fill(log, 20)
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr("trunkline.server.journal.files.segment.encode_block", lambda *_, **__: 1 // 0)
    with pytest.raises(OutcomeUnknown, match="ZeroDivisionError"):
        await log.append(events_batch(1), time_ns=0)
    monkeypatch.undo()
    await log.recover()
    await fill(log, 10, first=20)
    assert await read_all(log) == list(range(30))


async def test_a_damaged_index_is_made_anew_of_the_blocks(disk: SimDisk) -> None:
    engine = await an_engine(disk)
    log = await engine.open_log("shop/events", LogConfig(segment_bytes=256 << 10))
    await fill(log, 4_000)
    await engine.close()
    segments = [path for path in disk.paths() if path.endswith(".seg")]
    for path in segments:
        disk.flip(path, len(disk.content(path)) - 96 - 5)
    log = await (await an_engine(disk)).open_log("shop/events", LogConfig(segment_bytes=256 << 10, recent_bytes_max=0))
    assert await read_all(log, 1_000) == list(range(1_000, 4_000))
    assert await log.offset_at(1_555) == 1_560


async def test_what_goes_wrong_in_a_roll_is_told_to_who_asked_for_it_and_does_not_hold_up_recovery(
    log: SegmentLog, disk: SimDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(log, 10)

    async def vanished(path: str) -> File:
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "create", vanished)
        async with asyncio.timeout(5):
            with pytest.raises(StreamClosed):
                await log.compact()
        with pytest.raises(StreamClosed):
            await log.append(events_batch(1, first=10), time_ns=20)
    async with asyncio.timeout(5):
        await log.recover()
    await fill(log, 10, first=10)
    assert await read_all(log) == list(range(20))


async def test_a_roll_while_a_stream_is_compacted_makes_no_second_segment_of_an_id(
    disk: SimDisk,
) -> None:
    """Where a reader goes on is remembered by the segment's id."""
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    assert isinstance(log, SegmentLog)
    await fill(log, 600)
    begun = log._segments.header_for_compaction(log.incarnation, 0, 100)
    await fill(log, 600, first=600)
    ids = [segment.id for segment in log._segments.all]
    assert len(set(ids)) == len(ids) > 3
    assert begun.segment_id not in ids


async def test_a_compaction_that_comes_to_nothing_leaves_nothing(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("trunkline.subscriptions", SMALL)
    for turn in range(200):
        await log.append(records_batch("a", f"k{turn}", body=b"x" * 500), time_ns=turn)
    before = await _all_blocks(log)
    paths = disk.paths()
    disk.faults.capacity_bytes = sum(len(disk.content(path)) for path in paths) + 10_000
    with pytest.raises(DiskFull):
        await log.compact()
    assert not [path for path in disk.paths() if path.endswith(".tmp")]
    disk.faults.capacity_bytes = None
    assert [b.base_offset for b in await _all_blocks(log)] == [b.base_offset for b in before]
    await log.compact()
    disk.kill()
    log = await (await an_engine(disk)).open_log("trunkline.subscriptions", SMALL)
    assert sum(block.count for block in await _all_blocks(log)) == 201


async def test_ids_and_times_are_found_though_segments_are_compacted_meanwhile(disk: SimDisk) -> None:
    log = await (await an_engine(disk)).open_log("shop/events", SMALL)
    for turn in range(100):
        await log.append(batch_of([Keyed(10 * turn + n, f"k{n}") for n in range(10)], 200), time_ns=turn)
    rules = KeyPolicy(
        reader=EventKeys(), min_lag_ns=0, tombstone_retention_ns=10**9, dirty_bytes_min=0, dirty_ratio=0.0,
        dirty_age_max_ns=10**18, keys_max=1_000,
    )  # fmt: skip
    found: list[int] = []
    async for ids in log.ids(from_time_ns=0, max_ids=10_000):
        found += range(ids.base_offset, ids.base_offset + len(ids.id_hashes) // 2)
        if len(found) == 10:
            assert await log.compact_keys(rules, time_ns=lambda: 1_000)
    assert found == sorted(set(found)), "none twice"
    assert set(range(990, 1_000)) <= set(found)
    looking = asyncio.create_task(log.offset_at(50))
    assert await looking == 990
    for turn in range(100, 200):
        await log.append(batch_of([Keyed(10 * turn + n, f"k{n}") for n in range(10)], 200), time_ns=turn)
    compacting = asyncio.create_task(log.compact_keys(rules, time_ns=lambda: 1_000))
    while not compacting.done():
        assert await log.offset_at(199) == 1_990
    assert await compacting
    assert await log.offset_at(0) == 1_990
