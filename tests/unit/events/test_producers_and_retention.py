"""What is known of a producer when retention has removed its first events, before and after a start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import async_solipsism
import pytest
from simulation.sim_disk import SimDisk

from reference.held_log import SECOND, scan_of, shown
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import DuplicateSequence, OutOfOrderSequence, TrunklineError
from trunkline.server.journal.event_log import EventLog
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import LogConfig, Retention

RETENTION = Retention(max_records=8)


class Stream:
    """A stream on segment files, opened by one process after the other."""

    def __init__(self) -> None:
        self.disk = SimDisk(Rng(1))
        self.clock = ManualClock(epoch_ns=1_000 * SECOND)

    async def start(self) -> None:
        self.engine = SegmentEngine("/data", self.disk, self.clock, Rng(2))
        await self.engine.open()
        log = await self.engine.open_log("shop/events", LogConfig(retention=RETENTION))
        self.events = EventLog(
            log, self.clock, dedupe_window_ns=120 * SECOND, dedupe_ids=1_000, producers_max=10, seed=3
        )
        await self.events.rebuild()

    async def publish(self, first: int, count: int = 1) -> list[tuple[int, int, bool]]:
        ids = [f"e{sequence}" for sequence in range(first, first + count)]
        return shown(await self.events.publish(scan_of(*ids, producer="p", first_sequence=first)))

    async def refused(self, first: int) -> TrunklineError:
        with pytest.raises(TrunklineError) as caught:
            await self.publish(first)
        return caught.value


def in_virtual_time(main: Callable[[Stream], Awaitable[None]]) -> None:
    async def run() -> None:
        await main(Stream())

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(run())


def test_the_latest_numbers_outlive_the_events_of_earlier_ones() -> None:
    async def main(stream: Stream) -> None:
        await stream.start()
        for sequence in range(1, 21):
            await stream.publish(sequence)
        kept = await stream.events.log.trim(RETENTION, now_ns=stream.clock.time_ns())
        assert 0 < kept <= 12
        # Its places are remembered; who stands there is not.
        assert await stream.publish(1, 21) == [(0, 20, True), (20, 1, False)]
        await stream.engine.close()
        await stream.start()
        gone = await stream.refused(1)
        assert isinstance(gone, DuplicateSequence)
        assert gone.fields == {"first_remembered": str(kept + 1)}
        assert await stream.publish(kept + 1, 21 - kept) == [(kept, 21 - kept, True)]
        assert isinstance(await stream.refused(23), OutOfOrderSequence)
        assert await stream.publish(22) == [(21, 1, False)]
        await stream.engine.close()

    in_virtual_time(main)
