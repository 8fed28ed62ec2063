"""Compaction by key against a plain model: whatever is done and whenever it is stopped, every reader sees the last event of
each key, in order, and nothing that went comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import async_solipsism
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.sim_disk import DiskFaults, SimDisk

from reference.keyed_events import Keyed, KeyModel, batch_of, read_events
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import DiskFull, OutcomeUnknown, PositionOutOfRange, StreamClosed, TrunklineError
from trunkline.core.model import Sync
from trunkline.server.events.compaction import EventKeys
from trunkline.server.journal.files.inspect import check
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.key_compaction import KeyPolicy
from trunkline.server.journal.log import Log, LogConfig, Retention
from trunkline.server.journal.memory import MemoryEngine

STREAM = "shop/prices"
TOMBSTONES_STAY_NS = 3_600_000_000_000
"""Longer than any of these histories: a slow reader is promised no more."""


def policy(rng: Rng) -> KeyPolicy:
    """Some rules for one pass."""
    return KeyPolicy(
        reader=EventKeys(),
        min_lag_ns=(0, 0, 200_000_000)[rng.below(3)],
        tombstone_retention_ns=TOMBSTONES_STAY_NS,
        dirty_bytes_min=(0, 40_000)[rng.below(2)],
        dirty_ratio=(0.0, 0.3)[rng.below(2)],
        dirty_age_max_ns=10**18,
        keys_max=(1, 5, 1_000)[rng.below(3)],
    )


def time_ns() -> int:
    return int(asyncio.get_running_loop().time() * 1e9)


class Reader:
    """Reads on slowly while everything else goes on, and keeps the last event of each key."""

    def __init__(self, rng: Rng) -> None:
        self.last: dict[str, int] = {}
        self.at = 0
        self.rng = rng

    async def step(self, log: Log) -> None:
        try:
            blocks = await log.read(self.at, max_bytes=1 + self.rng.below(20_000))
        except PositionOutOfRange:
            self.at, self.last = log.first_offset, {}
            return
        for block in blocks[: 1 + self.rng.below(3)]:
            for index, offset in enumerate(block.offsets):
                if offset >= self.at:
                    event = Keyed.of(bytes(block.body(index)))
                    assert self.last.get(event.key, -1) < offset, "an older one after a newer one"
                    self.last[event.key] = offset
            self.at = block.end_offset

    async def finish(self, log: Log, model: KeyModel) -> None:
        """Read to the end: then it knows the last of each key that is not over."""
        while self.at < log.next_offset:
            before = self.at
            await self.step(log)
            if self.at == before and not await log.read(self.at, max_bytes=1):
                break
        for key, offset in model.latest().items():
            if offset >= log.first_offset:
                assert self.last.get(key) == offset or model.events[offset].ends, f"missed {offset}, the last of {key}"
                assert key not in self.last or self.last[key] == offset, f"{key} is at {self.last.get(key)} of {offset}"


class History:
    """One seeded history of one log on disk."""

    def __init__(self, seed: int) -> None:
        self.rng = Rng(seed)
        self.disk = SimDisk(Rng(seed + 1), DiskFaults(latency_ns=(0, 2_000_000)))
        self.config = LogConfig(
            segment_bytes=64 << 10, group_bytes_max=64 << 10, recent_bytes_max=self.rng.below(60_000)
        )
        self.keys = 1 + self.rng.below(30)
        self.model = KeyModel()
        self.unknown: set[Keyed] = set()
        self.numbers = 0
        self.reached: set[str] = set()

    async def start(self) -> None:
        self.engine = SegmentEngine("/data", self.disk, ManualClock(), Rng(self.rng.u64()))
        await self.engine.open()
        self.log = await self.engine.open_log(STREAM, self.config)
        self.reader = Reader(Rng(self.rng.u64()))
        await self.check()

    async def check(self) -> None:
        """Read everything and compare; what was on its way when something failed is adopted, if it is there."""
        found = await read_events(self.log, max_bytes=1 + self.rng.below(100_000))
        for offset, event in found.items():
            if event in self.unknown:
                self.model.events.setdefault(offset, event)
        problems = self.model.broken(found, from_offset=self.log.first_offset)
        assert not problems, problems

    async def append(self) -> None:
        count = 1 + self.rng.below(120 if self.rng.below(3) == 0 else 12)
        events = []
        for number in range(self.numbers, self.numbers + count):
            key = "" if self.rng.below(20) == 0 else f"k{self.rng.below(self.keys)}"
            events.append(Keyed(number, key, bool(key) and self.rng.below(6) == 0))
        self.numbers += count
        try:
            pending = self.log.append_nowait(batch_of(events, self.rng.below(400)), time_ns=time_ns())
            self.unknown.update(events)
            await pending.future
        except OutcomeUnknown:
            self.reached.add("unknown")
        except (StreamClosed, DiskFull):
            self.unknown.difference_update(events)
        else:
            self.unknown.difference_update(events)
            self.model.events.update(zip(range(pending.offset, pending.offset + count), events, strict=True))

    async def compact(self) -> None:
        try:
            if await self.log.compact_keys(policy(self.rng), time_ns=time_ns):
                self.reached.add("compacted")
        except TrunklineError as error:
            self.reached.add(f"compaction: {error.code}")
            raise

    async def step(self) -> None:
        match self.rng.below(14):
            case 0:
                await self.log.trim(Retention(max_bytes=150_000), now_ns=time_ns())
            case 1:
                self.disk.faults.sync_fails = self.rng.below(200)
            case 2:
                used = sum(len(self.disk.content(path)) for path in self.disk.paths())
                self.disk.faults.capacity_bytes = used + self.rng.below(30_000)
            case 3 | 4:
                self.disk.faults = DiskFaults(latency_ns=self.disk.faults.latency_ns)
                await self.log.recover()
                await self.check()
            case 5 | 6 | 7:
                await self.compact()
            case 8:
                await self.reader.step(self.log)
            case 9:
                await self.check()
            case _:
                await self.append()

    async def live(self, steps: int) -> None:
        """Several things at a time, until stopped."""

        reader = Reader(Rng(self.rng.u64()))

        async def one() -> None:
            for _ in range(steps):
                with suppress(DiskFull, StreamClosed):
                    await self.append() if self.rng.below(2) else await reader.step(self.log)

        beside = asyncio.create_task(one())
        for _ in range(steps):
            with suppress(DiskFull, StreamClosed):
                await self.step()
        await beside

    async def run(self, lives: int) -> None:
        for _ in range(lives):
            self.disk.faults = DiskFaults(latency_ns=self.disk.faults.latency_ns)
            await self.start()
            living = asyncio.ensure_future(self.live(1 + self.rng.below(25)))
            await asyncio.wait([living], timeout=None if self.rng.below(3) == 0 else self.rng.below(600) / 1_000)
            if living.done():
                living.result()
                self.disk.faults = DiskFaults(latency_ns=self.disk.faults.latency_ns)
                await self.log.recover()
                await self.check()
                await self.reader.finish(self.log, self.model)
            await self.stop()
        self.disk.faults = DiskFaults()
        await self.start()
        report = await check(self.disk, "/data")
        assert report.sound, report

    async def stop(self) -> None:
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            assert not isinstance(outcome, AssertionError), outcome
        if self.rng.below(2):
            self.disk.kill()
        else:
            self.disk.cut_power()


def play(seed: int, lives: int = 5) -> History:
    history = History(seed)
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(history.run(lives))
    return history


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_last_of_each_key_is_there_and_nothing_comes_back(seed: int) -> None:
    play(seed)


def test_every_kind_of_accident_is_reached() -> None:
    reached: set[str] = set()
    for seed in range(40):
        reached |= play(seed).reached
    assert reached >= {"compacted", "unknown", "compaction: DISK_FULL", "compaction: STREAM_CLOSED"}


@pytest.mark.parametrize("memory", [False, True])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_when_all_is_old_each_key_stands_once_and_ended_ones_go_in_time(memory: bool, seed: int) -> None:
    async def scenario() -> None:
        rng = Rng(seed)
        engine: SegmentEngine | MemoryEngine
        if memory:
            engine = MemoryEngine(ManualClock(), Rng(seed))
            log = await engine.open_log(STREAM, LogConfig(sync=Sync.MEMORY))
        else:
            engine = SegmentEngine("/data", SimDisk(Rng(seed)), ManualClock(), Rng(seed))
            await engine.open()
            log = await engine.open_log(STREAM, LogConfig(segment_bytes=64 << 10, recent_bytes_max=0))
        model, now_ns, number = KeyModel(), 0, 0
        times: dict[int, int] = {}
        rules = KeyPolicy(
            reader=EventKeys(),
            min_lag_ns=1_000,
            tombstone_retention_ns=10_000,
            dirty_bytes_min=0,
            dirty_ratio=0.0,
            dirty_age_max_ns=10**18,
            keys_max=1 + rng.below(40),
        )
        for _ in range(2 + rng.below(4)):
            for _ in range(1 + rng.below(20)):
                count = 1 + rng.below(60)
                events = [
                    Keyed(n, "" if rng.below(30) == 0 else f"k{rng.below(20)}", rng.below(5) == 0)
                    for n in range(number, number + count)
                ]
                appended = await log.append(batch_of(events, rng.below(300)), time_ns=now_ns)
                offsets = range(appended.offset, appended.offset + count)
                model.events.update(zip(offsets, events, strict=True))
                times.update(dict.fromkeys(offsets, now_ns))
                number, now_ns = number + count, now_ns + rng.below(100)
            young = await read_events(log)
            while await log.compact_keys(rules, time_ns=lambda: now_ns):  # noqa: B023
                pass
            kept = await read_events(log)
            assert not model.broken(kept)
            assert all(times[offset] <= now_ns - rules.min_lag_ns for offset in young.keys() - kept.keys())
            now_ns += 2_000
            while await log.compact_keys(rules, time_ns=lambda: now_ns):  # noqa: B023
                pass
            found = await read_events(log)
            assert not model.broken(found)
            latest = model.latest()
            keyed = [event for event in found.values() if event.key]
            assert len(keyed) == len({event.key for event in keyed}), "each key stands once"
            assert {o for o, event in model.events.items() if event.key and not event.ends} & set(
                latest.values()
            ) <= found.keys()
        now_ns += 20_000
        await log.compact_keys(rules, time_ns=lambda: now_ns)
        found = await read_events(log)
        assert found.keys() == {
            o for o, event in model.events.items() if not event.key or (latest[event.key] == o and not event.ends)
        }
        await engine.close()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario())
