"""Logs and an engine that live in the process. A MEMORY stream has such a log in every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import (
    DurabilityUnmet,
    StreamClosed,
    TrunklineError,
)
from trunkline.core.model import Sync
from trunkline.core.records import Record

from .append_queue import AppendQueue
from .batch import Batch
from .block import Block
from .engine import check_log_name, superfluous_snapshots
from .key_compaction import CompactionRecord, KeyPolicy, LatestEvents
from .key_compaction import thin_blocks as thin_events
from .log import (
    Appended,
    Ids,
    Incarnation,
    Listener,
    Log,
    LogConfig,
    Pending,
    Retention,
    check_position,
    resume_offset,
)
from .recent import RecentBlocks
from .tail import Tail
from .thinning import thin_blocks


class MemoryLog:
    """A log of blocks in memory, bounded by its retention and by `memory_bytes_max`. Begins at offset 0.

    What is appended in one turn of the loop is told in the next, in order.
    """

    def __init__(self, name: str, config: LogConfig, *, incarnation: int) -> None:
        self.name = name
        self.config = config
        self.incarnations: tuple[Incarnation, ...] = (Incarnation(incarnation, 0),)
        self.first_offset = 0
        self.next_offset = 0
        self.failed: TrunklineError | None = None
        self.compacted = CompactionRecord()
        self.last_time_ns = 0
        self._blocks = RecentBlocks()
        self._tail = Tail()
        self._queue = AppendQueue(0, 0, bytes_max=config.queue_bytes_max)
        self._closed = False

    @property
    def sync(self) -> Sync:
        return self.config.sync

    @property
    def incarnation(self) -> int:
        return self.incarnations[-1].id

    @property
    def first_time_ns(self) -> int:
        first = self._blocks.first
        return 0 if first is None else first.time_ns

    @property
    def bytes(self) -> int:
        return self._blocks.bytes

    async def append(self, batch: Batch, *, time_ns: int) -> Appended:
        return await self.append_nowait(batch, time_ns=time_ns).future

    def append_nowait(self, batch: Batch, *, time_ns: int, expected_offset: int | None = None) -> Pending:
        assert batch.count > 0, "an empty batch has no position"
        if self._closed:
            raise StreamClosed(f"stream {self.name} is closed")
        was_empty = not self._queue
        pending = self._queue.add(batch, time_ns, expected_offset)
        if was_empty:
            asyncio.get_running_loop().call_soon(self._publish)
        return pending

    def _publish(self) -> None:
        """Make what was queued visible, tell it, answer."""
        if not self._queue:
            return
        group = self._queue.take(self.config.group_bytes_max)
        self._queue.written(group)
        for part in group:
            block = part.block(self.incarnation)
            self._blocks.add(block)
            self.next_offset = block.end_offset
            self.last_time_ns = block.time_ns
            self._tail.tell(block)
            for queued in part.queued:
                queued.answer()
        self._drop_while(lambda: self._is_over(self.config.retention))
        self._tail.wake()
        if self._queue:  # more than one turn should take
            asyncio.get_running_loop().call_soon(self._publish)

    def on_durable(self, listener: Listener, told: Callable[[], None] | None = None) -> Callable[[], None]:
        return self._tail.listen(listener, told)

    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> list[Block]:
        check_position(self, offset)
        return self._blocks.read(max(offset, self._first_held()), max_bytes=max_bytes) or []

    def _first_held(self) -> int:
        first = self._blocks.first
        return self.next_offset if first is None else first.base_offset

    async def wait_beyond(self, offset: int) -> None:
        while self.next_offset <= offset:
            if self._closed:
                raise StreamClosed(f"stream {self.name} is closed")
            await self._tail.wait()

    async def offset_at(self, time_ns: int) -> int:
        return next((b.base_offset for b in self._blocks.all() if b.time_ns >= time_ns), self.next_offset)

    async def ids(self, *, from_time_ns: int, max_ids: int) -> AsyncIterator[Ids]:
        from_offset = self.next_offset - max_ids
        for block in self._blocks.all():
            if block.time_ns >= from_time_ns and block.end_offset > from_offset:
                for ids in Ids.of_block(block):
                    yield ids

    def resume_offset(self, incarnation: int, offset: int) -> int | None:
        return resume_offset(self.incarnations, incarnation, offset)

    async def trim(self, retention: Retention, *, now_ns: int) -> int:
        self._drop_while(lambda: self._is_over(retention, now_ns=now_ns))
        return self.first_offset

    def _is_over(self, retention: Retention, *, now_ns: int | None = None) -> bool:
        """Whether the oldest block may go."""
        block = self._blocks.first
        assert block is not None
        bytes_max = self.config.memory_bytes_max if retention.max_bytes is None else retention.max_bytes
        return (
            self._blocks.bytes > min(bytes_max, self.config.memory_bytes_max)
            or (retention.max_records is not None and self._blocks.records - block.count >= retention.max_records)
            or (retention.max_offset is not None and block.end_offset <= retention.max_offset)
            or (
                now_ns is not None
                and retention.max_age_ns is not None
                and block.time_ns < now_ns - retention.max_age_ns
            )
        )

    def _drop_while(self, over: Callable[[], bool]) -> None:
        while len(self._blocks) and over():
            self.first_offset = self._blocks.drop_first().end_offset

    async def compact(self, keep: Callable[[Record], bool] | None = None) -> None:
        self._blocks.replace(thin_blocks(self._blocks.all(), keep))

    async def compact_keys(self, policy: KeyPolicy, *, time_ns: Callable[[], int]) -> bool:
        began_ns = time_ns()
        cutoff_ns, clean_end = began_ns - policy.min_lag_ns, self.compacted.end_offset
        blocks = [block for block in self._blocks.all() if block.time_ns <= cutoff_ns]
        dirty = [block for block in blocks if block.base_offset >= clean_end]
        size, in_all = sum(block.size for block in dirty), sum(block.size for block in blocks)
        if not policy.is_due(size, in_all, dirty[0].time_ns if dirty else None, cutoff_ns):
            dirty = []
            if not self.compacted.waits_for_tombstones(began_ns, policy.tombstone_retention_ns):
                return False
        below = self.compacted.tombstones_below(began_ns, policy.tombstone_retention_ns)
        latest = LatestEvents(policy, tombstones_below=below)
        end_offset = clean_end
        for block in dirty:
            await latest.note(block)
            end_offset = block.end_offset
            if latest.is_full:
                break
        taken = [block for block in blocks if block.base_offset < end_offset]
        thinned = await thin_events(taken, latest)
        # Retention may have dropped some meanwhile, and more may have come.
        rest = [block for block in self._blocks.all() if block.base_offset >= end_offset]
        self._blocks.replace([*(block for block in thinned if block.base_offset >= self.first_offset), *rest])
        self.compacted = self.compacted.after(
            end_offset=end_offset,
            began_ns=began_ns,
            now_ns=time_ns(),
            removed=latest.removed,
            saved_bytes=sum(block.size for block in taken) - sum(block.size for block in thinned),
            first_tombstone=latest.first_tombstone,
            retention_ns=policy.tombstone_retention_ns,
        )
        return True

    async def recover(self) -> None:
        """Nothing here can fail."""

    async def close(self) -> None:
        self._closed = True
        while self._queue:
            self._publish()
        self._tail.end(StreamClosed(f"stream {self.name} is closed"))

    async def abandon(self) -> None:
        """Close: the log is about to be deleted."""
        await self.close()


class MemoryEngine:
    """A journal in memory. It promises no more than `offers`.

    FSYNCED is for what outlives the process that uses it: a journal shared by simulated control planes, or a test.
    """

    def __init__(self, clock: Clock, rng: Rng, *, offers: Sync = Sync.MEMORY) -> None:
        self.journal_id = f"{rng.u64():016x}{rng.u64():016x}"
        self.node_id = rng.u64()
        self.offers = offers
        self._clock = clock
        self._rng = rng
        self._logs: dict[str, MemoryLog] = {}
        self._snapshots: dict[int, tuple[int, bytes]] = {}

    async def open_log(self, name: str, config: LogConfig) -> Log:
        check_log_name(name)
        if config.sync > self.offers:
            raise DurabilityUnmet(f"the engine keeps {self.offers.name} at most, {name} asks for {config.sync.name}")
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = MemoryLog(name, config, incarnation=self._rng.u64())
        return log

    async def delete_log(self, name: str) -> None:
        log = self._logs.pop(name, None)
        if log is not None:
            await log.close()

    async def list_logs(self) -> list[str]:
        return sorted(self._logs)

    async def save_snapshot(self, revision: int, data: bytes) -> None:
        self._snapshots[revision] = self._clock.time_ns(), data

    async def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
        for revision in sorted(self._snapshots, reverse=True):
            yield revision, self._snapshots[revision][1]

    async def prune_snapshots(self, *, before_time_ns: int) -> int | None:
        listed = [(revision, time_ns) for revision, (time_ns, _) in self._snapshots.items()]
        superfluous, base = superfluous_snapshots(listed, before_time_ns)
        for revision in superfluous:
            del self._snapshots[revision]
        return base

    async def close(self) -> None:
        for log in self._logs.values():
            await log.close()
        self._logs.clear()
