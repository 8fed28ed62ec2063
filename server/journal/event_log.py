"""The way of a scanned publish into a stream: recognise what was there, append the rest, answer when all is durable.

A request is taken in whole: nothing awaits between looking up its ids and queueing its append, so two requests with the
same event cannot both be new. Ids are entered when the append is queued and taken back when it fails; a duplicate of an
event that is still on its way is answered when that one is durable, and fails when it fails.

Events that a producer numbered go another way (`numbered_publish`): their ids are neither looked up nor entered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from trunkline.core.clock import Clock
from trunkline.core.dedupe import DedupeWindow
from trunkline.core.errors import (
    DurabilityUnmet,
    NotSupported,
    OutOfOrderSequence,
    PositionMismatch,
    PositionOutOfRange,
    ProducerFenced,
    StreamClosed,
)
from trunkline.core.model import Sync
from trunkline.core.sequences import NumberedRun, Producers
from trunkline.core.wire import event_identity

from .batch import Batch, Scan, numbered_by
from .block import Block
from .log import Appended, Ids, Log
from .numbered import not_numbered
from .numbered_publish import NumberedPublish
from .published import PendingAppend
from .published import Published as Published
from .published import PublishedRange as PublishedRange

SLICE_EVENTS = 500
"""Compared between two looks at the loop."""
SLICE_IDS = 8_192
"""Entered into a new window between two looks at the loop, about 2 ms; reading them lets it look, too."""
_IN_REQUEST = -2
"""Answers at and below this name an event of the same request: index -2 - answer."""
Identity = tuple[bytes, bytes]
"""Source and id of an event."""


class Frames(Protocol):
    """Framed events one after the other, in a batch or a block."""

    @property
    def payload(self) -> bytes | memoryview: ...
    @property
    def ends(self) -> Sequence[int]: ...


@dataclass(slots=True)
class _Known:
    """Who events are that have to be compared: those of the request by index, those of the stream by offset."""

    own: dict[int, Identity] = field(default_factory=dict)
    stored: dict[int, Identity | None] = field(default_factory=dict)
    block: Block | None = None
    """The one read last: originals mostly lie together, too."""


class EventLog:
    """The publishing side of one stream's log. `rebuild` before use and after the log has recovered."""

    def __init__(
        self, log: Log, clock: Clock, *, dedupe_window_ns: int, dedupe_ids: int, producers_max: int, seed: int
    ) -> None:
        """`seed` is random: ids that crowd one part of the table cannot be chosen."""
        self.log = log
        self.published = 0
        self.duplicates = 0
        self.collisions = 0
        """Events whose id hash was that of another event."""
        self.fenced = 0
        self.out_of_order = 0
        """Requests of producers that were refused."""
        self._clock = clock
        self._dedupe_window_ns = dedupe_window_ns
        self._dedupe_ids = dedupe_ids
        self._producers_max = producers_max
        self._seed = seed
        self._window = self._new_window()
        self._producers = self._new_producers()
        self._pending: dict[int, PendingAppend] = {}
        self.undecided: dict[str, list[asyncio.Future[None]]] = {}
        """By producer: requests that are looked into and may be queued yet."""
        self._recovering = False

    async def rebuild(self) -> None:
        """Learn the ids of what the log holds, and what its producers have published."""
        window, producers = self._new_window(), self._new_producers()
        from_time_ns = self.log.last_time_ns - self._dedupe_window_ns
        entered = 0
        async for ids in self.log.ids(from_time_ns=from_time_ns, max_ids=self._dedupe_ids):
            _learn(ids, window, producers)
            entered += len(ids.id_hashes) // 2
            if entered >= SLICE_IDS:
                await asyncio.sleep(0)
                entered = 0
        self._window, self._producers = window, producers

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

    @property
    def remembered_producers(self) -> int:
        """How many there are, those of which the window is about to let go among them."""
        return len(self._producers)

    def _new_window(self) -> DedupeWindow:
        return DedupeWindow(max_ids=self._dedupe_ids, window_ns=self._dedupe_window_ns, seed=self._seed)

    def _new_producers(self) -> Producers:
        return Producers(
            producers_max=self._producers_max, window_ns=self._dedupe_window_ns, events_max=self._dedupe_ids
        )

    async def publish(self, scan: Scan, *, require_sync: int = 0, expected_offset: int | None = None) -> Published:
        """Append what is new; return when all of it, duplicates included, is durable.

        Raises DurabilityUnmet, PositionMismatch, LimitExceeded, DiskFull, DiskReadOnly, StreamClosed, OutcomeUnknown, and of
        a producer what NumberedPublish raises; then nothing of the request is promised, and it may be repeated.
        """
        if require_sync > self.log.sync:
            promised = self.log.sync.name
            raise DurabilityUnmet(f"stream {self.log.name} promises {promised}", required=Sync(require_sync).name)
        numbered = numbered_by(scan)
        if numbered:
            ranges = await self._publish_numbered(scan, numbered[0], expected_offset)
        else:
            ranges = await self._publish_by_ids(scan, expected_offset)
        return Published(ranges, self.log.sync, self.log.incarnation)

    async def _publish_by_ids(self, scan: Scan, expected_offset: int | None) -> Sequence[PublishedRange]:
        known: _Known | None = None
        while True:
            self._refuse_if_recovering()
            self._window.expire(self._now_ns())
            found = self._window.find_many(scan.id_hashes, scan.count)
            try:
                if found is None:
                    pending = self.append(Batch.of_scan(scan), expected_offset)
                    await asyncio.shield(pending.future)
                    return (PublishedRange(pending.offset, scan.count, False),)
                known = known or _Known()
                if await self._learn(scan, found, known):
                    return await self._publish_some(scan, found, known, expected_offset)
            except PositionMismatch:
                rests_on = self.mismatch_rests_on(expected_offset)
                if not rests_on:
                    raise
                await asyncio.wait([one.future for one in rests_on])

    async def _publish_numbered(
        self, scan: Scan, run: NumberedRun, expected_offset: int | None
    ) -> Sequence[PublishedRange]:
        if self._dedupe_window_ns == 0:
            raise NotSupported(f"stream {self.log.name} has no dedupe window: it remembers no producers")
        try:
            ranges = await NumberedPublish(self, scan, run, expected_offset).publish()
        except ProducerFenced:
            self.fenced += 1
            raise
        except OutOfOrderSequence:
            self.out_of_order += 1
            raise
        self.duplicates += sum(one.count for one in ranges if one.duplicate)
        return ranges

    def _now_ns(self) -> int:
        """The stream's time."""
        return max(self._clock.time_ns(), self.log.last_time_ns)

    def _refuse_if_recovering(self) -> None:
        if self._recovering:
            raise StreamClosed(f"stream {self.log.name} is being recovered")

    # Appending.

    @property
    def producers(self) -> Producers:
        """Those that are remembered now; StreamClosed while they are being learned anew."""
        self._refuse_if_recovering()
        self._producers.expire(self._now_ns(), self.log.next_offset)
        return self._producers

    @property
    def durable_end(self) -> int:
        """Behind the last event that is durable."""
        return self.log.next_offset

    def pending(self) -> Iterable[PendingAppend]:
        """What is not durable yet, in order."""
        return self._pending.values()

    def mismatch_rests_on(self, expected_offset: int | None) -> Sequence[PendingAppend]:
        """What stands in the way of an expected offset and may fail yet: nothing when that is durable."""
        return () if self.log.next_offset > (expected_offset or 0) else list(self._pending.values())

    async def block_from(self, offset: int) -> Block | None:
        """The durable block that holds an offset, or the next behind it where retention or compaction has removed that."""
        while True:
            try:
                blocks = await self.log.read(max(offset, self.log.first_offset), max_bytes=1)
            except PositionOutOfRange:
                if offset < self.log.first_offset:
                    continue  # retention was faster
                return None
            return blocks[0] if blocks else None

    def append(self, batch: Batch, expected_offset: int | None) -> PendingAppend:
        """Queue an append and enter its ids, or its numbers. PositionMismatch."""
        queued = self.log.append_nowait(batch, time_ns=self._clock.time_ns(), expected_offset=expected_offset)
        if not batch.numbered:
            self._window.add_many(batch.id_hashes, queued.offset, queued.time_ns)
        for run in batch.numbered:
            self._producers.enter(run, queued.offset, queued.time_ns)
        pending = PendingAppend(queued.offset, batch, queued.future)
        self._pending[pending.offset] = pending
        queued.future.add_done_callback(partial(self._settle, pending))
        return pending

    def _settle(self, pending: PendingAppend, future: asyncio.Future[Appended]) -> None:
        """An append is durable, or has failed and with it all behind it: then their ids are as good as new."""
        self._pending.pop(pending.offset)
        failed = future.cancelled() or future.exception() is not None
        if failed:
            self._window.take_back(pending.offset)
        else:
            self.published += pending.batch.count
        for run in pending.batch.numbered:
            if failed:
                self._producers.take_back(run.producer, pending.offset)
            else:
                self._producers.settle(run.producer, pending.end_offset)

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
            if pending.holds(offset):
                known.stored[offset] = _identity(pending.batch, offset - pending.offset)
                return
        block = known.block
        if block is None or not block.base_offset <= offset < block.end_offset:
            block = known.block = await self.block_from(offset)
        index = None if block is None else block.index_of(offset)
        known.stored[offset] = None if block is None or index is None else _identity(block, index)

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
        waited = [p.future for p in self._pending.values() if any(p.holds(offset) for offset in originals)]
        offsets = stored
        if keep:
            pending = self.append(Batch.of_scan(scan, keep), expected_offset)
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


def _learn(ids: Ids, window: DedupeWindow, producers: Producers) -> None:
    """Enter what a block of the log holds: events that were numbered by their numbers, the others by their ids."""
    for first, last in not_numbered(ids.numbered, len(ids.id_hashes) // 2):
        window.add_many(ids.id_hashes[2 * first : 2 * last], ids.base_offset + first, ids.time_ns)
    for run in ids.numbered:
        producers.learn(run, ids.base_offset, ids.time_ns)


def _hash(scan: Scan, index: int) -> tuple[int, int]:
    return scan.id_hashes[2 * index], scan.id_hashes[2 * index + 1]


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
