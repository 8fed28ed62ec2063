"""A log that becomes durable, or fails, when the test says so, and publishing to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from trunkline.core.clock import ManualClock
from trunkline.core.errors import PositionMismatch, StreamClosed, TrunklineError
from trunkline.core.model import Sync
from trunkline.core.wire import Scan, scan_publish
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.block import Block
from trunkline.server.journal.event_log import EventLog, Published
from trunkline.server.journal.log import Appended, Ids, Pending

from .events_world import event, publish_request

SECOND = 1_000_000_000


class HeldLog:
    """Appends wait until they are let through, in order; a failure fails all that waits, and closes."""

    name = "shop/events"
    sync = Sync.FSYNCED
    incarnation = 7
    first_offset = 0

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.next_offset = 0
        self.last_time_ns = 0
        self.failed: TrunklineError | None = None
        self.reads = 0
        self._end = 0
        self._held: list[tuple[Batch, Pending]] = []

    def append_nowait(self, batch: Batch, *, time_ns: int, expected_offset: int | None = None) -> Pending:
        if self.failed is not None:
            raise StreamClosed("closed")
        if expected_offset not in (None, self._end):
            raise PositionMismatch("another one", next=str(self._end))
        self.last_time_ns = max(time_ns, self.last_time_ns)
        pending = Pending(self._end, batch.count, self.last_time_ns, asyncio.get_running_loop().create_future())
        self._end += batch.count
        self._held.append((batch, pending))
        return pending

    async def let_through(self, appends: int = 100) -> None:
        for batch, pending in self._held[:appends]:
            block = Block.of_batch(batch, base_offset=pending.offset, time_ns=pending.time_ns, incarnation=7)
            self.blocks.append(block)
            self.next_offset = block.end_offset
            pending.future.set_result(Appended(pending.offset, pending.count, pending.time_ns))
        del self._held[:appends]
        await turns()

    async def fail(self, error: TrunklineError) -> None:
        self.failed = error
        for _, pending in self._held:
            pending.future.set_exception(error)
        self._held.clear()
        self._end = self.next_offset
        await turns()

    async def recover(self) -> None:
        self.failed = None

    async def read(self, offset: int, *, max_bytes: int) -> list[Block]:
        self.reads += 1
        await asyncio.sleep(0)
        return [block for block in self.blocks if block.end_offset > offset]

    async def ids(self, *, from_time_ns: int, max_ids: int) -> AsyncIterator[Ids]:
        for block in self.blocks:
            if block.time_ns >= from_time_ns:
                yield Ids(block.base_offset, block.time_ns, block.id_hashes, block.numbered)


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class Bench:
    """An event log, its held log and its clock."""

    def __init__(self, *, window_s: int = 120, ids: int = 1_000) -> None:
        self.log = HeldLog()
        self.clock = ManualClock(epoch_ns=1_000 * SECOND)
        held: Any = self.log
        self.events = EventLog(
            held, self.clock, dedupe_window_ns=window_s * SECOND, dedupe_ids=ids, producers_max=100, seed=3
        )

    def begin(
        self, *ids: str, data: bytes = b"", expected_offset: int | None = None, **more: Any
    ) -> asyncio.Task[Published]:
        scan = scan_of(*ids, data=data, **more)
        return asyncio.create_task(self.events.publish(scan, expected_offset=expected_offset))

    async def publish(self, *ids: str, **more: Any) -> list[tuple[int, int, bool]]:
        task = self.begin(*ids, **more)
        await turns()
        await self.log.let_through()
        return shown(await task)


def scan_of(*ids: str, data: bytes = b"", **more: Any) -> Scan:
    return scan_publish(publish_request([event(one, data=data) for one in ids], **more), stream_request=False)


def shown(published: Published) -> list[tuple[int, int, bool]]:
    return [(run.offset, run.count, run.duplicate) for run in published.ranges]


def in_loop(main: Callable[[], Awaitable[None]]) -> None:
    async def awaited() -> None:
        await main()

    asyncio.run(awaited())
