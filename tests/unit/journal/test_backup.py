"""Backup while the journal runs, restore, and reading a folder that nobody opened."""

from __future__ import annotations

import asyncio

import pytest
from simulation.sim_disk import DiskFaults, SimDisk

from reference.journal_batches import events_batch, records_batch
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import InvalidArgument, JournalCorrupt, StreamNotFound
from trunkline.core.model import Sync
from trunkline.server.journal.files.backup import BackupSummary, backup, restore
from trunkline.server.journal.files.inspect import check, show
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import Log, LogConfig, Retention

SMALL = LogConfig(segment_bytes=64 << 10, recent_bytes_max=0)
CHECKPOINTS, EVENTS, CONTROL = "trunkline.subscriptions", "shop/events", "trunkline.control"


async def an_engine(disk: SimDisk, folder: str = "/data", seed: int = 1) -> SegmentEngine:
    engine = SegmentEngine(folder, disk, ManualClock(epoch_ns=5), Rng(seed))
    await engine.open()
    return engine


async def fill(log: Log, count: int, *, first: int = 0) -> None:
    for n in range(first, first + count, 10):
        await log.append(events_batch(10, first=n), time_ns=n)


async def numbers(log: Log) -> list[int]:
    at, found = log.first_offset, []
    while blocks := await log.read(at, max_bytes=1 << 20):
        found += [int(bytes(block.body(i)[:20])) for block in blocks for i in range(block.count)]
        at = blocks[-1].end_offset
    return found


async def a_journal(disk: SimDisk) -> SegmentEngine:
    engine = await an_engine(disk)
    await fill(await engine.open_log(EVENTS, SMALL), 1_000)
    control = await engine.open_log(CONTROL, SMALL)
    await control.append(records_batch("a", "b"), time_ns=3)
    checkpoints = await engine.open_log(CHECKPOINTS, SMALL)
    await checkpoints.append(records_batch("s"), time_ns=3)
    await engine.save_snapshot(1, b"state")
    return engine


async def test_a_restored_journal_is_the_same_with_new_incarnations() -> None:
    disk = SimDisk(Rng(1))
    engine = await a_journal(disk)
    taken = await backup(disk, "/data", "/backup", ManualClock(epoch_ns=7))
    ends = {CHECKPOINTS: 1, EVENTS: 1_000, CONTROL: 2}
    assert taken == BackupSummary(folder="/backup", journal_id=engine.journal_id, time_ns=7, streams=ends)
    log = await engine.open_log(EVENTS, SMALL)
    await fill(log, 500, first=1_000)
    old = log.incarnation
    await restore(disk, "/backup", "/again", Rng(2))
    again = await an_engine(disk, "/again", seed=3)
    assert (again.journal_id, again.node_id) == (engine.journal_id, engine.node_id)
    assert await again.list_logs() == sorted(ends)
    restored = await again.open_log(EVENTS, SMALL)
    assert await numbers(restored) == list(range(1_000))
    assert restored.incarnation != old
    assert (restored.resume_offset(old, 700), restored.resume_offset(old, 1_400)) == (700, 1_000)
    control = await again.open_log(CONTROL, SMALL)
    blocks = await control.read(0, max_bytes=1_000)
    assert [blocks[0].record(i).key for i in range(2)] == ["a", "b"]
    assert [found async for found in again.load_snapshots()] == [(1, b"state")]
    await fill(restored, 10, first=5_000)
    assert await numbers(log) == list(range(1_500)), "the two share nothing"


@pytest.mark.parametrize("seed", range(8))
async def test_a_backup_of_a_running_journal_is_a_state_it_was_in(seed: int) -> None:
    """Appends, retention and compaction go on while it is taken."""
    disk = SimDisk(Rng(seed))
    engine = await a_journal(disk)
    log = await engine.open_log(EVENTS, SMALL)
    checkpoints = await engine.open_log(CHECKPOINTS, SMALL)

    async def traffic() -> None:
        for turn in range(60):
            await fill(log, 50, first=1_000 + turn * 50)
            await log.trim(Retention(max_bytes=150_000), now_ns=0)
            # The event is there before the checkpoint that speaks of it.
            await checkpoints.append(records_batch("s", body=b"%d" % log.next_offset), time_ns=3)
            if turn % 10 == 0:
                await checkpoints.compact()

    running = asyncio.ensure_future(traffic())
    await asyncio.sleep(0)
    taken = await backup(disk, "/data", "/backup", ManualClock())
    assert not running.done(), "it was taken while the journal ran"
    await running
    assert (await check(disk, "/backup")).sound
    await restore(disk, "/backup", "/again", Rng(2))
    again = await an_engine(disk, "/again")
    events = await again.open_log(EVENTS, SMALL)
    assert events.next_offset == taken.streams[EVENTS]
    assert await numbers(events) == list(range(events.first_offset, events.next_offset))
    checkpoint = (await (await again.open_log(CHECKPOINTS, SMALL)).read(0, max_bytes=1 << 20))[-1].record(0)
    assert checkpoint.body == b"body" or int(checkpoint.body) <= events.next_offset


@pytest.mark.parametrize("seed", range(6))
async def test_a_stream_that_is_deleted_and_made_anew_meanwhile_is_of_one_life(seed: int) -> None:
    disk = SimDisk(Rng(seed), DiskFaults(latency_ns=(1_000, 2_000_000)))
    engine = await a_journal(disk)
    control = await engine.open_log(CONTROL, SMALL)
    for revision in range(2, 12):  # they are copied between events and control: time for things to happen
        await engine.save_snapshot(revision, b"state")
    life = 0

    async def traffic() -> None:
        nonlocal life
        while True:
            await engine.delete_log(EVENTS)
            life += 1
            log = await engine.open_log(EVENTS, SMALL)
            await control.append(records_batch("made", body=b"%d" % life), time_ns=3)
            await fill(log, 20, first=life * 100_000)

    running = asyncio.ensure_future(traffic())
    await asyncio.sleep(0.01 * (1 + seed % 3))
    before = life
    taken = await backup(disk, "/data", "/backup", ManualClock())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert life > before, "it happened while the backup was taken"
    assert (await check(disk, "/backup")).sound
    await restore(disk, "/backup", "/again", Rng(2))
    again = await an_engine(disk, "/again")
    known = (await (await again.open_log(CONTROL, SMALL)).read(0, max_bytes=1 << 20))[-1].record(0)
    if EVENTS in taken.streams:
        found = await numbers(await again.open_log(EVENTS, SMALL))
        lives = {number // 100_000 for number in found}
        assert len(lives) <= 1, f"events of {lives} stand in one stream"
        assert not lives or known.body == b"body" or min(lives) >= int(known.body), "control knows of a later life"


async def test_only_finished_and_whole_backups_are_restored_and_only_into_empty_folders() -> None:
    disk = SimDisk(Rng(1))
    await a_journal(disk)
    await backup(disk, "/data", "/backup", ManualClock())
    with pytest.raises(InvalidArgument, match="an empty folder"):
        await backup(disk, "/data", "/backup", ManualClock())
    with pytest.raises(InvalidArgument, match="an empty folder"):
        await restore(disk, "/backup", "/data", Rng(1))
    with pytest.raises(JournalCorrupt, match="no finished backup"):
        await restore(disk, "/data", "/again", Rng(1))
    await disk.open_folder("/empty", create=True)
    with pytest.raises(JournalCorrupt, match="no journal"):
        await backup(disk, "/empty", "/other", ManualClock())
    segment = next(path for path in disk.paths() if path.startswith("/backup/streams/shop") and path.endswith(".seg"))
    disk.flip(segment, 2_000)
    with pytest.raises(JournalCorrupt, match="the backup is damaged"):
        await restore(disk, "/backup", "/again", Rng(1))


async def test_a_restore_that_was_cut_short_is_refused() -> None:
    disk = SimDisk(Rng(1))
    await a_journal(disk)
    await backup(disk, "/data", "/backup", ManualClock())
    restoring = asyncio.ensure_future(restore(disk, "/backup", "/again", Rng(1)))
    for _ in range(10_000):
        if "/again/streams/shop%2Fevents/meta" in disk.paths():
            break
        await asyncio.sleep(0)
    assert not restoring.done()
    restoring.cancel()
    await asyncio.wait([restoring])
    disk.kill()
    with pytest.raises(JournalCorrupt, match="a restore that was not finished"):
        await an_engine(disk, "/again")


async def test_check_tells_what_is_there_without_changing_anything() -> None:
    disk = SimDisk(Rng(1))
    engine = await a_journal(disk)
    before = {path: disk.content(path) for path in disk.paths()}
    report = await check(disk, "/data")
    assert (report.sound, report.journal_id, report.node_id) == (True, engine.journal_id, engine.node_id)
    assert report.snapshots == [1]
    by_name = {stream.name: stream for stream in report.streams}
    events = by_name[EVENTS]
    assert (events.first_offset, events.next_offset, events.records, events.blocks) == (0, 1_000, 1_000, 100)
    assert (events.sync, events.clean, events.torn_bytes, events.last_time_ns) == ("FSYNCED", False, 0, 990)
    assert {path: disk.content(path) for path in disk.paths()} == before
    await engine.close()
    assert all(stream.clean for stream in (await check(disk, "/data")).streams)


async def test_check_finds_every_damaged_segment_and_the_torn_tail() -> None:
    disk = SimDisk(Rng(1))
    await a_journal(disk)
    segments = [path for path in disk.paths() if "shop" in path and path.endswith(".seg")]
    disk.flip(segments[0], 5_000)
    disk.flip(segments[1], 5_000)
    disk.flip(segments[-1], len(disk.content(segments[-1])) - 10)
    report = await check(disk, "/data")
    events = next(stream for stream in report.streams if stream.name == EVENTS)
    assert not report.sound
    assert len(events.problems) == 2
    assert events.problems[0].startswith(segments[0])
    assert events.torn_bytes > 0
    assert events.next_offset == 990


async def test_show_reads_records_of_a_folder_that_nobody_opened() -> None:
    disk = SimDisk(Rng(1))
    await a_journal(disk)
    shown = [record async for record in show(disk, "/data", EVENTS, from_offset=295, count=20)]
    assert [record.offset for record in shown] == list(range(295, 315))
    assert [int(record.body[:20]) for record in shown] == list(range(295, 315))
    control = [record async for record in show(disk, "/data", CONTROL, from_offset=0, count=20)]
    assert [(record.key, record.author) for record in control] == [("a", "tester"), ("b", "tester")]
    with pytest.raises(StreamNotFound):
        await anext(show(disk, "/data", "shop/none", from_offset=0, count=1))


async def test_a_backup_shares_no_file_that_is_still_written() -> None:
    disk = SimDisk(Rng(1))
    engine = await an_engine(disk)
    log = await engine.open_log(EVENTS, LogConfig(sync=Sync.WRITTEN))
    await fill(log, 100)
    await backup(disk, "/data", "/backup", ManualClock())
    await fill(log, 100, first=100)
    report = await check(disk, "/backup")
    assert report.streams[0].next_offset == 100
