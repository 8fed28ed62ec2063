"""The way of a scanned publish into a stream: recognise what was there, append the rest, answer when all is durable.

A request is taken in whole: nothing awaits between looking up its ids and queueing its append, so two requests with the
same event cannot both be new. Ids are entered when the append is queued and taken back when it fails; a duplicate of an
event that is still on its way is answered when that one is durable, and fails when it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from trunkline.core.clock import Clock
from trunkline.core.dedupe import DedupeWindow
from trunkline.core.errors import DurabilityUnmet, PositionMismatch, PositionOutOfRange, StreamClosed
from trunkline.core.model import Sync
from trunkline.core.wire import event_identity

from .batch import Batch, Scan
from .block import Block
from .log import Appended, Log

SLICE_EVENTS = 500
"""Compared between two looks at the loop."""
SLICE_IDS = 8_192
"""Entered into a new window between two looks at the loop, about 2 ms; reading them lets it look, too."""
_NEW = b"\xff"
"""What an array of answers consists of when none of the ids is known: -1, -1, ..."""
_IN_REQUEST = -2
"""Answers at and below this name an event of the same request: index -2 - answer."""
Identity = tuple[bytes, bytes]
"""Source and id of an event."""


@dataclass(frozen=True, slots=True)
class PublishedRange:
    """A run of events that lie behind one another; `duplicate` if they had been published before, at these offsets."""

    offset: int
    count: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Published:
    """Where the events of a request are, in its order, and what is promised of them."""

    ranges: Sequence[PublishedRange]
    sync: Sync
    incarnation: int


class Frames(Protocol):
    """Framed events one after the other, in a batch or a block."""

    @property
    def payload(self) -> bytes | memoryview: ...
    @property
    def ends(self) -> Sequence[int]: ...


class _Pending(NamedTuple):
    offset: int
    batch: Batch
    future: asyncio.Future[Appended]


@dataclass(slots=True)
class _Known:
    """Who events are that have to be compared: those of the request by index, those of the stream by offset."""

    own: dict[int, Identity] = field(default_factory=dict)
    stored: dict[int, Identity | None] = field(default_factory=dict)
    block: Block | None = None
    """The one read last: originals mostly lie together, too."""


class EventLog:
    """The publishing side of one stream's log. `rebuild` before use and after the log has recovered."""

    def __init__(self, log: Log, clock: Clock, *, dedupe_window_ns: int, dedupe_ids: int, seed: int) -> None:
        """`seed` is random: ids that crowd one part of the table cannot be chosen."""
        self.log = log
        self.published = 0
        self.duplicates = 0
        self.collisions = 0
        """Events whose id hash was that of another event."""
        self._clock = clock
        self._dedupe_window_ns = dedupe_window_ns
        self._dedupe_ids = dedupe_ids
        self._seed = seed
        self._window = self._new_window()
        self._pending: dict[int, _Pending] = {}
        self._recovering = False

    async def rebuild(self) -> None:
        """Learn the ids of what the log holds."""
        window = self._new_window()
        from_time_ns = self.log.last_time_ns - self._dedupe_window_ns
        entered = 0
        async for column in self.log.id_hash_columns(from_time_ns=from_time_ns, max_ids=self._dedupe_ids):
            window.add_many(column.id_hashes, column.base_offset, column.time_ns)
            entered += len(column.id_hashes) // 2
            if entered >= SLICE_IDS:
                await asyncio.sleep(0)
                entered = 0
        self._window = window

    async def recover(self) -> None:
        """Reopen the log after its disk failed, and learn its ids anew: what was on its way may have been kept.

        Raises what stands in the way; then nothing is published until it has been called again.
        """
        self._recovering = True
        await self.log.recover()
        await self.rebuild()
        self._recovering = False

    @property
    def failed(self) -> bool:
        """Whether `recover` is needed."""
        return self._recovering or self.log.failed is not None

    def _new_window(self) -> DedupeWindow:
        return DedupeWindow(max_ids=self._dedupe_ids, window_ns=self._dedupe_window_ns, seed=self._seed)

    async def publish(self, scan: Scan, *, require_sync: int = 0, expected_offset: int | None = None) -> Published:
        """Append what is new; return when all of it, duplicates included, is durable.

        Raises DurabilityUnmet, PositionMismatch, LimitExceeded, DiskFull, DiskReadOnly, StreamClosed, OutcomeUnknown; then
        nothing of the request is promised, and it may be repeated.
        """
        if require_sync > self.log.sync:
            promised = self.log.sync.name
            raise DurabilityUnmet(f"stream {self.log.name} promises {promised}", required=Sync(require_sync).name)
        known = _Known()
        while True:
            if self._recovering:
                raise StreamClosed(f"stream {self.log.name} is being recovered")
            self._window.expire(max(self._clock.time_ns(), self.log.last_time_ns))
            found = self._window.find_many(scan.id_hashes, scan.count)
            try:
                if not found.tobytes().strip(_NEW):
                    pending = self._append(Batch.of_scan(scan), expected_offset)
                    await asyncio.shield(pending.future)
                    ranges: Sequence[PublishedRange] = (PublishedRange(pending.offset, scan.count, False),)
                    break
                if await self._learn(scan, found, known):
                    ranges = await self._publish_some(scan, found, known, expected_offset)
                    break
            except PositionMismatch:
                # What stands in the way may fail yet, unless it is durable.
                if not self._pending or self.log.next_offset > (expected_offset or 0):
                    raise
                await asyncio.wait([one.future for one in self._pending.values()])
        return Published(ranges, self.log.sync, self.log.incarnation)

    def _append(self, batch: Batch, expected_offset: int | None) -> _Pending:
        """Queue an append and enter its ids. PositionMismatch."""
        queued = self.log.append_nowait(batch, time_ns=self._clock.time_ns(), expected_offset=expected_offset)
        self._window.add_many(batch.id_hashes, queued.offset, queued.time_ns)
        pending = _Pending(queued.offset, batch, queued.future)
        self._pending[pending.offset] = pending
        queued.future.add_done_callback(lambda future: self._settle(pending, future))
        return pending

    def _settle(self, pending: _Pending, future: asyncio.Future[Appended]) -> None:
        """An append is durable, or has failed and with it all behind it: then their ids are as good as new."""
        self._pending.pop(pending.offset)
        if future.cancelled() or future.exception() is not None:
            self._window.take_back(pending.offset)
        else:
            self.published += pending.batch.count

    # Requests with events that may be duplicates.

    async def _learn(self, scan: Scan, found: Sequence[int], known: _Known) -> bool:
        """Find out who the events are whose hashes are equal. True: all was known, and nothing was awaited.

        A slice of the work at a time; what is found may have changed meanwhile, so it is looked up again.
        """
        work = 0
        for index, answer in enumerate(found):
            if answer == -1:
                continue
            for one in (index,) if answer >= 0 else (index, _IN_REQUEST - answer):
                if one not in known.own:
                    known.own[one] = _identity(scan, one)
                    work += 1
            for offset in self._window.candidates(*_hash(scan, index)):
                if offset not in known.stored:
                    await self._learn_stored(offset, known)
                    work += 1
            if work >= SLICE_EVENTS:
                break
        if work:
            await asyncio.sleep(0)
        return not work

    async def _learn_stored(self, offset: int, known: _Known) -> None:
        """Who stands at an offset; None when retention or compaction has removed it, and the hash alone has to do."""
        for pending in self._pending.values():
            if _holds(pending, offset):
                known.stored[offset] = _identity(pending.batch, offset - pending.offset)
                return
        block = known.block
        if block is None or not block.base_offset <= offset < block.end_offset:
            block = known.block = await self._read(offset)
        index = None if block is None else block.index_of(offset)
        known.stored[offset] = None if block is None or index is None else _identity(block, index)

    async def _read(self, offset: int) -> Block | None:
        try:
            blocks = await self.log.read(offset, max_bytes=1)
        except PositionOutOfRange:
            return None
        return next((block for block in blocks if block.base_offset <= offset < block.end_offset), None)

    async def _publish_some(
        self, scan: Scan, found: Sequence[int], known: _Known, expected_offset: int | None
    ) -> Sequence[PublishedRange]:
        """Append what is new. A duplicate has the offset of its original, or its index when that is in this request."""
        stored: dict[int, int] = {}
        earlier: dict[int, int] = {}
        for index, answer in enumerate(found):
            if answer != -1:
                self._compare(scan, index, found, known, stored, earlier)
        keep = [index for index in range(scan.count) if index not in stored and index not in earlier]
        originals = set(stored.values())
        waited = [p.future for p in self._pending.values() if any(_holds(p, offset) for offset in originals)]
        offsets = stored
        if keep:
            pending = self._append(Batch.of_scan(scan, keep), expected_offset)
            waited.append(pending.future)
            offsets = stored | {index: pending.offset + place for place, index in enumerate(keep)}
        self.duplicates += scan.count - len(keep)
        new = set(keep)
        for future in waited:
            await asyncio.shield(future)
        return _ranges([(offsets[earlier.get(i, i)], i not in new) for i in range(scan.count)])

    def _compare(
        self,
        scan: Scan,
        index: int,
        found: Sequence[int],
        known: _Known,
        stored: dict[int, int],
        earlier: dict[int, int],
    ) -> None:
        """Whether the event whose hash is known is known itself: note where its original is."""
        identity = known.own[index]
        answer = found[index]
        while answer <= _IN_REQUEST:
            other = _IN_REQUEST - answer
            if known.own[other] == identity:
                earlier[index] = earlier.get(other, other)
                return
            answer = found[other]
        if answer >= 0:
            for offset in self._window.candidates(*_hash(scan, index)):
                if known.stored[offset] in (identity, None):
                    stored[index] = offset
                    return
        self.collisions += 1


def _hash(scan: Scan, index: int) -> tuple[int, int]:
    return scan.id_hashes[2 * index], scan.id_hashes[2 * index + 1]


def _holds(pending: _Pending, offset: int) -> bool:
    return pending.offset <= offset < pending.offset + pending.batch.count


def _identity(frames: Frames, index: int) -> Identity:
    """Source and id of one event."""
    frame = memoryview(frames.payload)[frames.ends[index - 1] if index else 0 : frames.ends[index]]
    at = 1
    while frame[at] & 0x80:
        at += 1
    return event_identity(frame[at + 1 :])


def _ranges(places: Sequence[tuple[int, bool]]) -> list[PublishedRange]:
    """Offsets, each with whether it is a duplicate, as runs."""
    ranges: list[PublishedRange] = []
    first, count, what = 0, 0, False
    for offset, duplicate in places:
        if count and duplicate == what and offset == first + count:
            count += 1
            continue
        if count:
            ranges.append(PublishedRange(first, count, what))
        first, count, what = offset, 1, duplicate
    ranges.append(PublishedRange(first, count, what))
    return ranges
