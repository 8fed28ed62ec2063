"""A stream's log in segment files: one unsynced write at a time, what comes meanwhile gathered for the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from trunkline.core.clock import Rng
from trunkline.core.errors import DiskFull, DiskReadOnly, OutcomeUnknown, StreamClosed, TrunklineError
from trunkline.core.model import Sync

from ..append_queue import AppendQueue, Part
from ..batch import Batch
from ..block import Block
from ..key_compaction import KeyPolicy
from ..log import (
    Appended,
    Ids,
    Incarnation,
    Listener,
    LogConfig,
    Pending,
    Retention,
    check_position,
    resume_offset,
)
from ..recent import RecentBlocks
from ..tail import Tail
from ..thinning import Keep
from .compaction import compact_segments
from .compaction_record import save_record
from .disk import SYNC, Disk
from .log_meta import CleanMark, save_mark, save_meta
from .recovery import Opened
from .refusals import again, definite
from .retention import expired, is_due_to_roll, is_full
from .segments import Segments
from .stream_compaction import compact_keys

log = logging.getLogger(__name__)

READ_ATTEMPTS = 8
"""How often retention or compaction may take a segment away from under one read."""


class SegmentLog:
    """An open log. Made by SegmentEngine, of what recovery.open_files found."""

    def __init__(self, name: str, config: LogConfig, opened: Opened, *, disk: Disk, folder: str, rng: Rng) -> None:
        newest = opened.segments[-1]
        self.name = name
        self.config = config
        self.first_offset = opened.segments[0].first_offset
        self.next_offset = newest.end_offset
        self.durable_end = newest.end_offset
        """Everything below is synced."""
        self.failed: TrunklineError | None = None
        self.compacted = opened.compacted
        self._meta = opened.meta
        self._segments = Segments(disk, folder, opened.segments, opened.file, rng)
        self._disk = disk
        self._folder = folder
        self._rng = rng
        last_time_ns = max(newest.last_time_ns, newest.header.floor_time_ns)
        self._last_time_ns = last_time_ns
        self._durable_mark = newest.mark()
        self._queue = AppendQueue(self.next_offset, last_time_ns, bytes_max=config.queue_bytes_max)
        self._untold: list[Part] = []
        """Written, as far as the stream's sync asks for, and not told yet: the next write begins first."""
        self._recent = RecentBlocks()
        self._tail = Tail()
        self._drain: asyncio.Task[None] | None = None
        self._roll_asked: asyncio.Future[None] | None = None
        self._kept_end: int | None = None
        """After a failure: what may still be believed; None when the active file needs no replacement."""
        self._maintenance = asyncio.Lock()
        self._closing = False

    @property
    def sync(self) -> Sync:
        return self.config.sync

    @property
    def incarnations(self) -> tuple[Incarnation, ...]:
        return self._meta.incarnations

    @property
    def incarnation(self) -> int:
        return self._meta.incarnations[-1].id

    @property
    def first_time_ns(self) -> int:
        return next((segment.first_time_ns for segment in self._segments.all if segment.blocks), 0)

    @property
    def last_time_ns(self) -> int:
        return self._last_time_ns

    @property
    def bytes(self) -> int:
        return self._segments.bytes

    # Appending.

    async def append(self, batch: Batch, *, time_ns: int) -> Appended:
        return await self.append_nowait(batch, time_ns=time_ns).future

    def append_nowait(self, batch: Batch, *, time_ns: int, expected_offset: int | None = None) -> Pending:
        assert batch.count > 0, "an empty batch has no position"
        self._refuse_if_closed()
        pending = self._queue.add(batch, time_ns, expected_offset)
        self._kick()
        return pending

    def _refuse_if_closed(self) -> None:
        if self.failed is not None:
            raise again(self.failed)
        if self._closing:
            raise StreamClosed(f"stream {self.name} is closed")

    def _kick(self) -> None:
        """See to it that the queue is being written. The task ends by itself; `close` waits for it."""
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._write_queue(), name=f"write {self.name}")

    async def _write_queue(self) -> None:
        group: list[Part] = []
        try:
            while self.failed is None:
                if not self._queue or self._roll_asked is not None:
                    self._tell_written()
                if self._roll_asked is not None:
                    await self._roll_as_asked()
                elif self._queue:
                    group = self._queue.take(self.config.group_bytes_max, self.config.segment_records_limit)
                    await self._write_group(group)
                else:
                    break
        except Exception as error:
            # A bug of ours. Whoever waits must hear of it, and the file is not to be trusted.
            self._tell_written()
            unknown = OutcomeUnknown(f"the journal failed: {error!r}")
            self._fail(StreamClosed(unknown.message), group, unknown, kept_end=self.durable_end)
            raise
        finally:
            self._drain = None

    async def _write_group(self, group: list[Part]) -> None:
        """Write a group, and while the disk is at it tell of the one before."""
        if is_full(self._segments.active, self.config, coming=sum([part.batch.size for part in group])):
            self._tell_written()
            try:
                await self._roll()
            except TrunklineError as error:
                self._fail(error, group, definite(error), kept_end=self._believable(error))
                return
        segment, position = self._segments.active, self._segments.active.size
        blocks = segment.encoded(group, self.incarnation, self.durable_end)
        data, synced = [block.data for block in blocks], self.sync is Sync.FSYNCED
        writing = asyncio.ensure_future(self._disk.write(self._segments.file, position, data, sync=synced))
        self._tell_written()
        try:
            await writing
        except TrunklineError as error:
            await self._write_failed(error, group, position)
            return
        for block in blocks:
            segment.note(block.header, segment.size)
        if synced:
            self.durable_end = segment.end_offset
            self._durable_mark = segment.mark()
        self._untold = group

    def _tell_written(self) -> None:
        """Everything in the group has reached the stream's sync: show it, tell it, answer."""
        group, self._untold = self._untold, []
        if not group:
            return
        self._queue.written(group)
        for part in group:
            block = part.block(self.incarnation)
            self._recent.add(block)
            self.next_offset = block.end_offset
            self._last_time_ns = block.time_ns
            self._tail.tell(block)
            for queued in part.queued:
                queued.answer()
        self._recent.shrink(self.config.recent_bytes_max)
        self._tail.wake()

    async def _roll(self) -> None:
        await self._segments.seal_active(synced=self.sync is Sync.FSYNCED)
        self._all_is_durable()
        await self._segments.begin_next(self.incarnation, self.next_offset)
        self._all_is_durable()

    def _all_is_durable(self) -> None:
        self.durable_end = self.next_offset
        self._durable_mark = self._segments.active.mark()

    async def _roll_as_asked(self) -> None:
        asked, self._roll_asked = self._roll_asked, None
        assert asked is not None
        try:
            if self._segments.active.blocks:
                await self._roll()
        except TrunklineError as error:
            self._fail(error, [], definite(error), kept_end=self._believable(error))
            asked.set_exception(again(error))
        except Exception as error:  # a bug of ours: who asked holds the lock that recovery needs
            asked.set_exception(StreamClosed(f"the journal failed: {error!r}"))
            raise
        else:
            asked.set_result(None)

    # Failing and recovering.

    async def _write_failed(self, error: TrunklineError, group: list[Part], position: int) -> None:
        """Find out whether anything may be left of a write that failed, and say so to those who wait."""
        untouched = error.fields.get("written") == "0" and error.fields.get("operation") != SYNC
        if untouched and isinstance(error, DiskReadOnly):
            self._fail(error, group, again(error), kept_end=None)
            return
        if isinstance(error, DiskFull) and error.fields.get("operation") != SYNC:
            try:
                await self._disk.truncate(self._segments.file, position)
                await self._disk.sync(self._segments.file)
            except TrunklineError as second:
                error = second
            else:
                self._all_is_durable()
                self._fail(error, group, again(error), kept_end=None)
                return
        unknown = OutcomeUnknown(f"{error.message}; it may turn up after a restart", **error.fields)
        self._fail(error, group, unknown, kept_end=self._believable(error))

    def _believable(self, error: TrunklineError) -> int:
        """Below this the records can be relied on: after a failed sync, only what was synced before."""
        return self.durable_end if error.fields.get("operation") == SYNC else self.next_offset

    def _fail(self, error: TrunklineError, group: list[Part], answer: TrunklineError, *, kept_end: int | None) -> None:
        """Close the log for appends and answer all who wait: the group with `answer`, the others that it is closed."""
        self.failed = error if isinstance(error, DiskFull | DiskReadOnly) else StreamClosed(error.message)
        self._kept_end = kept_end
        unknown = OutcomeUnknown(f"a part of it was kept: {error.message}")
        for queued in [queued for part in group for queued in part.queued]:
            queued.refuse(unknown if queued.first_offset < self.next_offset else again(answer))
        for queued in self._queue.drop(self.next_offset, self._last_time_ns):
            queued.refuse(unknown if queued.first_offset < self.next_offset else again(self.failed))
        if self._roll_asked is not None:
            self._roll_asked.set_exception(again(self.failed))
            self._roll_asked = None
        details = {"stream": self.name, "reason": error.code, "error": error.message, "next_offset": self.next_offset}
        log.error("stream closed: its disk failed", extra=details)

    async def recover(self) -> None:
        """Reopen from what can be relied on, in a new segment; the failed file's pages are not read again."""
        async with self._maintenance:
            if self.failed is None:
                return
            if self._drain is not None:
                await asyncio.wait([self._drain])
            kept_end = self._kept_end
            if kept_end is not None:
                await self._replace_active(kept_end)
            self._queue.drop(self.next_offset, self._last_time_ns)
            self._kept_end = self.failed = None
            log.info("stream recovered", extra={"stream": self.name, "next_offset": self.next_offset})

    async def _replace_active(self, kept_end: int) -> None:
        """Go on in a new segment behind what can be relied on."""
        active = self._segments.active
        if kept_end > self.durable_end:
            try:
                await self._disk.sync(self._segments.file)
            except TrunklineError:
                self._kept_end = self.durable_end  # at the next attempt
                raise
            self._all_is_durable()
        lost = kept_end < self.next_offset
        meta = self._meta
        if lost:  # said before anything is written in the new incarnation: an attempt that ends here can be repeated
            meta = meta.with_incarnation(Incarnation(self._rng.u64(), kept_end))
            await save_meta(self._disk, self._folder, meta)
        await self._segments.begin_next(meta.incarnations[-1].id, kept_end)
        if lost:
            active.cut(self._durable_mark)
            self._recent.clear()
            self.next_offset = kept_end
            self._meta = meta
        self._all_is_durable()

    # Reading.

    def on_durable(self, listener: Listener, told: Callable[[], None] | None = None) -> Callable[[], None]:
        return self._tail.listen(listener, told)

    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> list[Block]:
        for _ in range(READ_ATTEMPTS):
            check_position(self, offset)
            if offset == self.next_offset:
                return []
            recent = self._recent.read(offset, max_bytes=max_bytes)
            if recent is not None:
                return recent
            try:
                return await self._segments.read(offset, max_bytes=max_bytes, index_only=index_only)
            except FileNotFoundError:
                continue  # retention or compaction was faster: look where the offset is now
        raise StreamClosed(f"the segments of {self.name} are gone")

    async def wait_beyond(self, offset: int) -> None:
        while self.next_offset <= offset:
            if self._closing:
                raise StreamClosed(f"stream {self.name} is closed")
            await self._tail.wait()

    async def offset_at(self, time_ns: int) -> int:
        found = await self._segments.offset_at(time_ns)
        return self.next_offset if found is None else found

    async def ids(self, *, from_time_ns: int, max_ids: int) -> AsyncIterator[Ids]:
        from_offset = max(self.next_offset - max_ids, self.first_offset)
        async for found in self._segments.ids(from_offset, from_time_ns):
            yield found

    def resume_offset(self, incarnation: int, offset: int) -> int | None:
        return resume_offset(self.incarnations, incarnation, offset)

    # Keeping house.

    async def trim(self, retention: Retention, *, now_ns: int) -> int:
        async with self._maintenance:
            if self.failed is None and is_due_to_roll(self._segments.active, retention, now_ns=now_ns):
                await self._begin_next_segment()
            for _ in range(expired(self._segments.all, retention, now_ns=now_ns)):
                self.first_offset = self._segments.all[1].first_offset
                await self._segments.remove_first()
            return self.first_offset

    async def compact(self, keep: Keep | None = None) -> None:
        async with self._maintenance:
            await self._begin_next_segment()
            await compact_segments(
                self._segments,
                len(self._segments.all) - 1,
                incarnation=self.incarnation,
                segment_bytes=self.config.segment_bytes_limit,
                keep=keep,
            )

    async def compact_keys(self, policy: KeyPolicy, *, time_ns: Callable[[], int]) -> bool:
        async with self._maintenance:
            record = await compact_keys(
                self._segments,
                policy,
                self.compacted,
                time_ns=time_ns,
                roll=self._begin_next_segment,
                check=self._refuse_if_closed,
                incarnation=self.incarnation,
                segment_bytes=self.config.segment_bytes_limit,
            )
            if record is not None:
                self.compacted = record
                self._recent.drop_below(record.end_offset)
                await save_record(self._disk, self._folder, self.incarnations[0].id, record)
            return record is not None

    async def _begin_next_segment(self) -> None:
        """Have the task that writes close the active segment, if there is anything in it."""
        self._refuse_if_closed()
        assert self._roll_asked is None, "maintenance is done one thing at a time"
        asked = self._roll_asked = asyncio.get_running_loop().create_future()
        self._kick()
        await asked

    async def close(self) -> None:
        await self._end(clean=True)

    async def abandon(self) -> None:
        """Close without the clean mark: the log is about to be deleted."""
        await self._end(clean=False)

    async def _end(self, *, clean: bool) -> None:
        if self._closing:
            return
        self._closing = True
        async with self._maintenance:
            while self._drain is not None:
                await asyncio.wait([self._drain])
            try:
                if clean and self.failed is None:
                    await self._segments.seal_active(synced=self.sync is Sync.FSYNCED)
                    mark = CleanMark(next_offset=self.next_offset, segment_id=self._segments.active.id)
                    await save_mark(self._disk, self._folder, mark)
            finally:
                await self._disk.close(self._segments.file)
                self._tail.end(StreamClosed(f"stream {self.name} is closed"))
