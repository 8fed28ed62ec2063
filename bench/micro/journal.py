"""The journal on this machine's disk: appends, bytes, opening after a kill.

A stream at FSYNCED gets ready-made batches of 1,000 events of 200 bytes, a few in flight; so what is measured is the
journal, not the scanner before it. fsyncs are real; how long they take is the disk's affair, so their number stands beside.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench.row import Row, row
from trunkline.core.clock import Rng, SystemClock
from trunkline.core.model import Sync
from trunkline.server.journal.batch import Batch, frame_head
from trunkline.server.journal.files.disk import File
from trunkline.server.journal.files.real_disk import RealDisk
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import LogConfig

EVENT_BYTES = 200
BATCH_EVENTS = 1_000
IN_FLIGHT = 8


class CountingDisk(RealDisk):
    """The real disk, and how often and how much was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_written = 0
        self.syncs = 0

    async def write(self, file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> None:
        self.bytes_written += sum(map(len, data))
        self.syncs += sync
        await super().write(file, offset, data, sync=sync)

    async def sync(self, file: File) -> None:
        self.syncs += 1
        await super().sync(file)


def ready_batch(rng: Rng) -> Batch:
    """1,000 events of 200 bytes on four topics, with ids and keys."""
    frame = frame_head(EVENT_BYTES) + rng.bytes(EVENT_BYTES)
    size = len(frame)
    return Batch(
        count=BATCH_EVENTS,
        payload=frame * BATCH_EVENTS,
        ends=array("I", range(size, size * BATCH_EVENTS + 1, size)),
        topic_ids=array("H", [n % 4 for n in range(BATCH_EVENTS)]),
        topics=("orders.placed", "orders.paid", "orders.shipped", "orders.returned"),
        key_hashes=array("Q", [rng.u64() for _ in range(BATCH_EVENTS)]),
        id_hashes=array("Q", [rng.u64() for _ in range(2 * BATCH_EVENTS)]),
    )


async def append(engine: SegmentEngine, config: LogConfig, batches: int) -> float:
    """Append with a few batches in flight; seconds."""
    log = await engine.open_log("bench/events", config)
    batch = ready_batch(Rng(1))
    started = time.perf_counter()
    waiting: list[asyncio.Future[Any]] = []
    for n in range(batches):
        waiting.append(log.append_nowait(batch, time_ns=n).future)
        if len(waiting) >= IN_FLIGHT:
            await waiting.pop(0)
    await asyncio.gather(*waiting)
    return time.perf_counter() - started


async def _engine(folder: str, disk: RealDisk) -> SegmentEngine:
    engine = SegmentEngine(folder, disk, SystemClock(), Rng(1))
    await engine.open()
    return engine


async def append_rate(folder: str, batches: int) -> tuple[float, float, float]:
    """(events a second, bytes written per byte of event, syncs per 1,000 events)."""
    disk = CountingDisk()
    engine = await _engine(folder, disk)
    seconds = await append(engine, LogConfig(sync=Sync.FSYNCED), batches)
    await engine.close()
    events = batches * BATCH_EVENTS
    return events / seconds, disk.bytes_written / (events * EVENT_BYTES), disk.syncs / batches


def fill_and_die(folder: str, batches: int) -> None:
    """In a process of its own: fill a stream and stop without closing it."""

    async def run() -> None:
        engine = await _engine(folder, RealDisk())
        await append(engine, LogConfig(sync=Sync.FSYNCED), batches)

    asyncio.run(run())
    os._exit(0)


async def open_seconds(folder: str) -> tuple[float, float]:
    """(seconds until the stream takes appends, seconds until the ids of the last million events are read)."""
    started = time.perf_counter()
    engine = await _engine(folder, RealDisk())
    log = await engine.open_log("bench/events", LogConfig(sync=Sync.FSYNCED))
    opened = time.perf_counter() - started
    ids = 0
    async for hashes in log.ids(from_time_ns=0, max_ids=1_000_000):
        ids += len(hashes.id_hashes)
    assert ids >= 2 * min(1_000_000, log.next_offset)
    read = time.perf_counter() - started - opened
    await engine.close()
    return opened, read


def rows(quick: bool) -> list[Row]:
    """Measure; one row per metric."""
    repetitions, batches, large = (2, 500, 1_000) if quick else (5, 3_000, 10_000)
    rates, written, syncs = zip(
        *(_in_folder(lambda f: append_rate(f, batches)) for _ in range(repetitions)), strict=True
    )
    opened, ids = _open_after_kill(large, repetitions)
    name = f"{BATCH_EVENTS} x {EVENT_BYTES} B, FSYNCED, {IN_FLIGHT} batches in flight"
    return [
        row("journal", f"append, {name}", rates, "events/s", goal="value >= 500000 events/s"),
        row(
            "journal",
            f"bytes written per byte of event, {name}",
            written,
            "bytes",
            worst=max,
            gate="value <= 1.35 bytes",
            goal="value <= 1.2 bytes",
        ),
        row("journal", f"syncs per 1,000 events, {name}", syncs, "syncs"),
        row("journal", f"open after SIGKILL, {large // 1_000} M events", opened, "s", goal="value <= 1 s"),
        row("journal", f"read the ids of the last 1 M of {large // 1_000} M events", ids, "s"),
    ]


def _in_folder(work: Callable[[str], Awaitable[Any]]) -> Any:
    folder = tempfile.mkdtemp(prefix="trunkline-bench-")
    try:
        return asyncio.run(_awaited(work(folder)))
    finally:
        shutil.rmtree(folder)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _open_after_kill(batches: int, repetitions: int) -> tuple[list[float], list[float]]:
    opened, ids = [], []
    folder = tempfile.mkdtemp(prefix="trunkline-bench-")
    try:
        child = os.fork()
        if child == 0:
            fill_and_die(folder, batches)
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(repetitions):
            child = os.fork()
            if child == 0:
                fill_and_die(folder, 10)
            assert os.waitpid(child, 0)[1] == 0
            seconds, reading = asyncio.run(open_seconds(folder))
            opened.append(seconds)
            ids.append(reading)
    finally:
        shutil.rmtree(folder)
    return opened, ids
