"""A reader survives any bytes: it says what is damaged, or reads what was written, and never anything else."""

from __future__ import annotations

import asyncio

from hypothesis import event, given, settings
from hypothesis import strategies as st
from simulation.sim_disk import SimDisk

from reference.journal_batches import events_batch, records_batch
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import JournalCorrupt, JournalTooNew
from trunkline.server.journal.block import parse_block
from trunkline.server.journal.block_layout import BlockDamaged, parse_header
from trunkline.server.journal.files.inspect import check
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import LogConfig

CONFIG = LogConfig(segment_bytes=64 << 10)
EVENTS = 900

damage = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),  # where in the file
        st.sampled_from(["overwrite", "cut", "insert", "zero", "repeat"]),
        st.binary(max_size=200),
    ),
    min_size=1,
    max_size=3,
)


async def a_journal(disk: SimDisk, *, clean: bool) -> None:
    engine = SegmentEngine("/data", disk, ManualClock(), Rng(1))
    await engine.open()
    log = await engine.open_log("shop/events", CONFIG)
    for n in range(0, EVENTS, 30):
        await log.append(events_batch(30, first=n), time_ns=n)
    control = await engine.open_log("trunkline.control", CONFIG)
    await control.append(records_batch("a", "b"), time_ns=3)
    await engine.save_snapshot(1, b"state")
    if clean:
        await engine.close()
    disk.kill()


def damaged(content: bytes, where: float, how: str, data: bytes) -> bytes:
    at = int(where * len(content))
    match how:
        case "overwrite":
            return content[:at] + data + content[at + len(data) :]
        case "cut":
            return content[:at]
        case "insert":
            return content[:at] + data + content[at:]
        case "zero":
            return content[:at] + bytes(len(content) - at)
        case _:
            return content[:at] + content[: len(content) - at]


async def read_everything(disk: SimDisk) -> None:
    engine = SegmentEngine("/data", disk, ManualClock(), Rng(2))
    await engine.open()
    try:
        assert all([data == b"state" async for _, data in engine.load_snapshots()])
        for name in await engine.list_logs():
            log = await engine.open_log(name, CONFIG)
            at = log.first_offset
            while blocks := await log.read(at, max_bytes=1 << 20):
                for block in blocks:
                    for index in range(block.count):
                        record = block.record(index)
                        if name == "shop/events":
                            assert int(record.body[:20]) == record.offset
                        else:
                            assert record.key == "ab"[record.offset]
                at = blocks[-1].end_offset
    finally:
        await engine.close()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), clean=st.booleans(), harm=damage)
def test_damaged_files_are_refused_or_read_as_they_were(data: st.DataObject, clean: bool, harm: list) -> None:  # type: ignore[type-arg]
    async def scenario() -> None:
        disk = SimDisk(Rng(1))
        await a_journal(disk, clean=clean)
        for where, how, bytes_ in harm:
            path = data.draw(st.sampled_from(disk.paths()))
            content = damaged(disk.content(path), where, how, bytes_)
            await disk.write(await disk.create(path), 0, [content])
        report = await check(disk, "/data")
        try:
            await read_everything(disk)
        except (JournalCorrupt, JournalTooNew):
            event("refused")
            assert not report.sound, "what a start refuses, check has found"

    asyncio.run(scenario())


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400), at=st.integers(0, 100))
def test_no_bytes_make_the_parser_fail_in_another_way(data: bytes, at: int) -> None:
    for candidate in (data, b"TLBK" + data):
        try:
            parse_block(candidate, at, parse_header(candidate, at))
        except (BlockDamaged, JournalTooNew):
            continue
        raise AssertionError("a block without a right checksum")
