"""Whatever is done to a log and whenever it is stopped: what was acknowledged is kept, in order, and nothing is made up.

Every history is made from one seed: appends, retention, faults of the disk, kills and power cuts at any instant. The model
knows what was answered. It is checked after every start.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import async_solipsism
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.sim_disk import DiskFaults, SimDisk

from reference.journal_batches import events_batch
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import (
    DiskFull,
    DiskReadOnly,
    JournalCorrupt,
    LimitExceeded,
    OutcomeUnknown,
    StreamClosed,
)
from trunkline.core.model import Sync
from trunkline.server.journal.block import Block
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.files.segment_log import SegmentLog
from trunkline.server.journal.log import LogConfig, Pending, Retention

STREAM = "shop/events"


@dataclass
class Model:
    """What the one who appends knows. Numbers are of records; each is used once."""

    kept: dict[int, int] = field(default_factory=dict)
    """Offset to number of what was acknowledged or seen."""
    refused: set[int] = field(default_factory=set)
    """Numbers that must never be seen."""
    numbers: int = 0
    first: int = 0


class History:
    """One seeded history of one log."""

    def __init__(self, seed: int, sync: Sync) -> None:
        self.rng = Rng(seed)
        self.disk = SimDisk(Rng(seed + 1), DiskFaults(latency_ns=(0, 2_000_000)))
        self.config = LogConfig(sync=sync, segment_bytes=64 << 10, group_bytes_max=64 << 10, recent_bytes_max=20_000)
        self.model = Model()
        self.told = 0
        self.starts = 0
        self.reached: set[str] = set()

    async def start(self) -> None:
        """Open, as a new process would; then everything must be as the model says."""
        self.starts += 1
        self.engine = SegmentEngine("/data", self.disk, ManualClock(), Rng(self.rng.u64()))
        await self.engine.open()
        log = await self.engine.open_log(STREAM, self.config)
        assert isinstance(log, SegmentLog)
        self.log = log
        self.told = log.next_offset
        log.on_durable(self._tell)
        await self.check()

    def _tell(self, block: Block) -> None:
        assert block.base_offset == self.told, "told in order, without holes, once"
        self.told = block.end_offset

    async def check(self) -> None:
        """Read everything and compare."""
        found: dict[int, int] = {}
        at = self.log.first_offset
        while blocks := await self.log.read(at, max_bytes=1 + self.rng.below(100_000)):
            for block in blocks:
                for index in range(block.count):
                    offset = block.base_offset + index
                    found[offset] = int(bytes(block.body(index)[:20]))
            at = blocks[-1].end_offset
        assert at == self.log.next_offset
        assert self.log.first_offset <= max(self.model.first, 0)
        numbers = [found[offset] for offset in sorted(found)]
        assert numbers == sorted(numbers), "in the order of appending"
        assert not self.model.refused.intersection(numbers), "refused and there all the same"
        for offset, number in self.model.kept.items():
            if offset >= self.log.first_offset:
                assert found.get(offset) == number, f"offset {offset} was acknowledged as {number}"
        self.model.kept = found

    async def append(self, appends: int) -> None:
        """Append some batches without waiting in between, and take down what becomes of each."""
        pendings: list[tuple[Pending, int]] = []
        for _ in range(appends):
            count = 1 + self.rng.below(250 if self.rng.below(4) == 0 else 40)
            first, self.model.numbers = self.model.numbers, self.model.numbers + count
            batch = events_batch(count, first=first, size=40 + self.rng.below(300))
            try:
                pendings.append((self.log.append_nowait(batch, time_ns=first), first))
            except (StreamClosed, DiskFull, DiskReadOnly, LimitExceeded):
                self.model.refused.update(range(first, first + count))
        for pending, first in pendings:
            await self._settle(pending, first)

    async def _settle(self, pending: Pending, first: int) -> None:
        try:
            appended = await pending.future
        except OutcomeUnknown:
            self.reached.add("unknown")
        except (StreamClosed, DiskFull, DiskReadOnly) as error:
            self.reached.add(error.code)
            self.model.refused.update(range(first, first + pending.count))
        else:
            assert appended.offset == pending.offset
            for index in range(appended.count):
                assert self.model.kept.setdefault(appended.offset + index, first + index) == first + index

    async def step(self) -> None:
        """Do one thing."""
        match self.rng.below(12):
            case 0:
                retention = Retention(max_bytes=100_000 + self.rng.below(200_000))
                before = self.log.first_offset
                try:
                    await self.log.trim(retention, now_ns=0)
                finally:
                    self.model.first = self.log.first_offset
                assert before <= self.model.first
            case 1:
                self.disk.faults.sync_fails = self.rng.below(300)
            case 2:
                self.disk.faults.write_fails = self.rng.below(300)
            case 3:
                used = sum(len(self.disk.content(path)) for path in self.disk.paths())
                self.disk.faults.capacity_bytes = used + self.rng.below(50_000)
            case 4:
                self.disk.faults.read_only = bool(self.rng.below(2))
            case 5 | 6:
                self.calm()
                await self.recover()
            case 7:
                await self.check()
            case _:
                await self.append(1 + self.rng.below(8))

    def calm(self) -> None:
        """The disk is good again."""
        self.disk.faults = DiskFaults(latency_ns=self.disk.faults.latency_ns)

    async def recover(self) -> None:
        failed = self.log.failed
        incarnation = self.log.incarnation
        await self.log.recover()
        if failed is not None:
            self.reached.add("recovered")
        if self.log.incarnation != incarnation:
            self.reached.add("new incarnation")
            self.told = self.log.next_offset
            self.forget_from(self.log.next_offset)

    def forget_unsynced(self) -> None:
        """A stream below FSYNCED may lose what was not synced; at FSYNCED there is nothing that was not."""
        if self.config.sync is not Sync.FSYNCED:
            self.forget_from(self.log.durable_end)

    def forget_from(self, offset: int) -> None:
        self.model.kept = {o: n for o, n in self.model.kept.items() if o < offset}

    async def live(self, steps: int) -> None:
        """A process's life until it is stopped."""
        for _ in range(steps):
            with suppress(DiskFull, DiskReadOnly, StreamClosed):
                await self.step()

    async def run(self, lives: int) -> None:
        """Lives that end in every way there is."""
        for _ in range(lives):
            self.calm()
            await self.start()
            living = asyncio.ensure_future(self.live(1 + self.rng.below(30)))
            await asyncio.wait([living], timeout=self.rng.below(400) / 1_000)
            if living.done():
                living.result()
            await self._stop(living)
        self.calm()
        await self.start()

    async def _stop(self, living: asyncio.Future[None]) -> None:
        way = self.rng.below(3)
        if way == 0:
            await asyncio.wait([living])
            living.result()
            self.calm()
            await self.recover()
            await self.engine.close()
            self.disk.kill()
            self.reached.add("closed")
            return
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if way == 1:
            self.disk.kill()
            self.reached.add("killed")
            if self.log.failed is not None:  # it may be stopped in the middle of recovering from a failed sync
                self.forget_unsynced()
        else:
            self.disk.cut_power()
            self.reached.add("power cut")
            self.forget_unsynced()


def play(seed: int, sync: Sync, lives: int = 6) -> History:
    """Run a history in virtual time."""
    history = History(seed, sync)
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(history.run(lives))
    return history


@pytest.mark.parametrize("sync", [Sync.FSYNCED, Sync.WRITTEN])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_was_acknowledged_is_kept(sync: Sync, seed: int) -> None:
    play(seed, sync)


@pytest.mark.parametrize("sync", [Sync.FSYNCED, Sync.WRITTEN])
def test_every_kind_of_accident_is_reached(sync: Sync) -> None:
    reached: set[str] = set()
    for seed in range(60):
        history = play(seed, sync, lives=4)
        reached |= history.reached | history.disk.reached
    expected = {"unknown", "DISK_FULL", "DISK_READ_ONLY", "STREAM_CLOSED", "recovered", "closed", "killed", "power cut"}
    assert reached >= expected | {"ENOSPC", "EROFS", "EIO", "sync failed"}
    assert ("new incarnation" in reached) == (sync is Sync.WRITTEN)


def test_a_history_is_repeated_by_its_seed() -> None:
    contents = []
    for _ in range(2):
        history = play(12, Sync.FSYNCED)
        contents.append({path: history.disk.content(path) for path in history.disk.paths()})
    assert contents[0] == contents[1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_a_flipped_bit_below_what_was_synced_is_never_passed_over(seed: int, data: st.DataObject) -> None:
    """Either the start or the read refuses; the records that come back are right."""

    async def scenario() -> None:
        history = History(seed, Sync.FSYNCED)
        await history.start()
        for _ in range(12):
            await history.append(3)
        segments = [path for path in history.disk.paths() if path.endswith(".seg")]
        path = data.draw(st.sampled_from(segments))
        synced = len(history.disk.content(path))
        if path == segments[-1]:
            synced = history.log._segments.all[-1].index._positions[-1]  # type: ignore[union-attr]
        position = data.draw(st.integers(0, max(synced - 1, 63)))
        history.disk.kill()
        history.disk.flip(path, position, data.draw(st.integers(0, 7)))
        before = dict(history.model.kept)
        try:
            await history.start()
        except JournalCorrupt:
            return
        # Only what nothing depends on may be damaged without notice: a trailer, whose segment is then walked.
        assert history.model.kept == before

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario())
