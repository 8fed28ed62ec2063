"""A stream's log: append, read, tail, retention. Two things implement it: SegmentLog and MemoryLog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trunkline.core.errors import PositionOutOfRange, TrunklineError
from trunkline.core.model import Sync
from trunkline.core.records import Record
from trunkline.core.sequences import NumberedRun

from .batch import Batch
from .block import Block, Column
from .key_compaction import CompactionRecord, KeyPolicy

Listener = Callable[[Block], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What may go: whole segments whose records are all over one of these. None keeps."""

    max_age_ns: int | None = None
    max_bytes: int | None = None
    max_records: int | None = None
    max_offset: int | None = None
    """Records below this offset may go, whatever their age."""

    def __post_init__(self) -> None:
        for name in ("max_age_ns", "max_bytes", "max_records", "max_offset"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative: {value}")


KEEP_ALL = Retention()

SEGMENT_BYTES_MIN = 64 << 10
SEGMENTS_KEPT = 8
"""A stream with a byte or record limit has segments of an eighth of it, so that little more than the limit is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How a stream's log is kept."""

    sync: Sync = Sync.FSYNCED
    """What an append has reached when it returns."""
    retention: Retention = KEEP_ALL
    """What the stream means to keep: sizes its segments and bounds a MEMORY log. Others are trimmed when told to."""
    segment_bytes: int = 64 << 20
    """A segment is closed before it grows beyond this (a single larger block is let through)."""
    queue_bytes_max: int = 64 << 20
    """Bytes that wait to be written; further appends are refused with LimitExceeded."""
    group_bytes_max: int = 4 << 20
    """Bytes gathered into one write; encoding them takes the loop 1 to 2 ms."""
    recent_bytes_max: int = 32 << 20
    """The newest blocks, kept in memory for readers at the tail."""
    memory_bytes_max: int = 64 << 20
    """A MEMORY log keeps no more than this, even if its retention would."""

    def __post_init__(self) -> None:
        for name in ("segment_bytes", "queue_bytes_max", "group_bytes_max", "memory_bytes_max"):
            if getattr(self, name) < SEGMENT_BYTES_MIN:
                raise ValueError(f"{name} must be at least {SEGMENT_BYTES_MIN}: {getattr(self, name)}")

    @property
    def segment_bytes_limit(self) -> int:
        """Where a segment is closed, retention considered."""
        if self.retention.max_bytes is None:
            return self.segment_bytes
        return min(self.segment_bytes, max(self.retention.max_bytes // SEGMENTS_KEPT, SEGMENT_BYTES_MIN))

    @property
    def segment_records_limit(self) -> int | None:
        """Where a segment is closed by the number of its records."""
        limit = self.retention.max_records
        return None if limit is None else max(limit // SEGMENTS_KEPT, 1)


@dataclass(frozen=True, slots=True)
class Appended:
    """Records [offset, offset + count) are durable at the stream's sync."""

    offset: int
    count: int
    time_ns: int
    """The time that the records got: the one asked for, or the log's last if that is later."""


@dataclass(slots=True, eq=False)  # frozen would cost as much again, once an append
class Pending:
    """An append on its way: its position, and the future that is done when it is durable."""

    offset: int
    count: int
    time_ns: int
    future: asyncio.Future[Appended]


class Incarnation(NamedTuple):
    """A history of the stream, and the offset at which it parted from the one before."""

    id: int
    """64 random bits."""
    first_offset: int


class Ids(NamedTuple):
    """By what consecutive records are recognised: hashes of (source, id), and the numbers of producers."""

    base_offset: int
    time_ns: int
    id_hashes: Column
    """'Q': two per record."""
    numbered: Sequence[NumberedRun]

    @staticmethod
    def of_block(block: Block) -> Iterator[Ids]:
        """Those of a block: one for each run of offsets. Numbers that compaction has passed are not known any more: it
        takes nothing of which the stream still recognises repeats."""
        if block.places is None:
            yield Ids(block.base_offset, block.time_ns, block.id_hashes, block.numbered)
            return
        first = 0
        for index in range(1, block.count + 1):
            if index == block.count or block.places[index] != block.places[index - 1] + 1:
                ids = block.id_hashes[2 * first : 2 * index]
                yield Ids(block.base_offset + block.places[first], block.time_ns, ids, ())
                first = index


class Log(Protocol):
    """One stream. Called on one loop; offsets grow in the order of the calls to append."""

    name: str
    config: LogConfig
    first_offset: int
    """The first that is kept (or the next, in an empty log). Compaction may have left gaps behind it."""
    next_offset: int
    """Behind the last record that is durable at the stream's `sync`."""
    failed: TrunklineError | None
    """Why appends are refused, until `recover` succeeds; reading goes on."""
    compacted: CompactionRecord
    """What `compact_keys` has done."""

    @property
    def sync(self) -> Sync: ...

    @property
    def incarnations(self) -> tuple[Incarnation, ...]:
        """Oldest first; the last is the present one. Offsets below its start are the same records as before it."""

    @property
    def incarnation(self) -> int: ...

    @property
    def first_time_ns(self) -> int:
        """Of the oldest record, nearly; 0 when there is none."""

    @property
    def last_time_ns(self) -> int:
        """Of the newest record there was; 0 when there never was one."""

    @property
    def bytes(self) -> int:
        """Bytes kept."""

    async def append(self, batch: Batch, *, time_ns: int) -> Appended:
        """Append, and return when the stream's `sync` is reached. Cancelling does not take it back.

        Raises LimitExceeded (too much is waiting), DiskFull or DiskReadOnly (nothing was kept), StreamClosed (nothing
        was written: the log failed before), OutcomeUnknown (it may have been kept, or may turn up after a restart).
        """

    def append_nowait(self, batch: Batch, *, time_ns: int, expected_offset: int | None = None) -> Pending:
        """Queue an append; its future is done as `append` returns or raises. What is refused at once is raised:
        PositionMismatch, if it would not get the offset that is expected."""

    def on_durable(self, listener: Listener, told: Callable[[], None] | None = None) -> Callable[[], None]:
        """Call `listener` with each durable block, in order, before its append is answered, and `told` when it was called
        with all that became durable together. Returns how to end that."""

    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> list[Block]:
        """Blocks from the one that holds `offset`, or the next behind it, on; at least one unless at the end. With
        `index_only` they may come without their payloads, which are not read then.

        PositionOutOfRange below `first_offset` or above `next_offset`; JournalCorrupt when bytes are not as written.
        """

    async def wait_beyond(self, offset: int) -> None:
        """Return when `next_offset` is above `offset`; StreamClosed when the log is closed meanwhile."""

    async def offset_at(self, time_ns: int) -> int:
        """The first offset at or after a time; `next_offset` when there is none."""

    def ids(self, *, from_time_ns: int, max_ids: int) -> AsyncIterator[Ids]:
        """Ids of the newest records, at most about `max_ids` and none older than a time; oldest first."""

    def resume_offset(self, incarnation: int, offset: int) -> int | None:
        """Where one goes on who had read up to `offset` of an incarnation; None for one that is not known.

        That is `offset` itself unless the history was cut before it.
        """

    async def trim(self, retention: Retention, *, now_ns: int) -> int:
        """Let go of what is over; returns the first offset that is kept."""

    async def compact(self, keep: Callable[[Record], bool] | None = None) -> None:
        """Keep of each key the latest record, unless its body is empty or `keep` says no.

        What is appended meanwhile stays as it is."""

    async def compact_keys(self, policy: KeyPolicy, *, time_ns: Callable[[], int]) -> bool:
        """Keep of each key of an event stream the latest event, if there is enough to gain; whether a pass was made.

        `time_ns` is since the epoch. Raises what the disk does, StreamClosed when the log is closed meanwhile, JournalCorrupt;
        then some of it may be done, and nothing that counts is lost.
        """

    async def recover(self) -> None:
        """Reopen a failed log from what is durable. Raises what stands in the way; then it stays failed."""

    async def close(self) -> None:
        """Finish what is queued and close; the clean mark is set."""


def resume_offset(incarnations: tuple[Incarnation, ...], incarnation: int, offset: int) -> int | None:
    """See Log.resume_offset: every later incarnation may have cut the history that was read."""
    for index, known in enumerate(incarnations):
        if known.id == incarnation:
            return min([offset, *(later.first_offset for later in incarnations[index + 1 :])])
    return None


def check_position(log: Log, offset: int) -> None:
    """PositionOutOfRange unless the log has, or will next have, this offset."""
    if not log.first_offset <= offset <= log.next_offset:
        raise PositionOutOfRange(
            f"offset {offset} of {log.name}: it holds {log.first_offset} to {log.next_offset - 1}",
            first=str(log.first_offset),
            next=str(log.next_offset),
        )
