"""Batches that wait to be written, in order, with their positions. Small ones are written as one block."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from trunkline.core.errors import LimitExceeded, PositionMismatch, TrunklineError

from .batch import Batch
from .block import Block
from .log import Appended, Pending

GROUP_APPENDS_MAX = 1_024
"""Appends answered by one write: more would hold the loop too long."""
MERGED_RECORDS_MAX = 128
MERGED_BYTES_MAX = 64 << 10
"""Batches up to these are put together with others ..."""
BLOCK_RECORDS_AIM = 4_096
BLOCK_BYTES_AIM = 256 << 10
"""... until a block has so much, so that readers still get it in pieces."""
MERGE_WINDOW_NS = 1_000_000
"""A small batch that comes so soon behind one that still waits gets its time: records of a block have one time."""


class Queued(NamedTuple):
    """A batch that fits into a block. The last part of an append carries what to answer."""

    batch: Batch
    base_offset: int
    time_ns: int
    first_offset: int
    """Of the append that it is part of."""
    pending: Pending | None

    @property
    def is_small(self) -> bool:
        """Whether it is worth while to write it together with others."""
        return self.batch.count <= MERGED_RECORDS_MAX and len(self.batch.payload) <= MERGED_BYTES_MAX

    def answer(self) -> None:
        """The append is durable."""
        pending = self.pending
        if pending is not None and not pending.future.done():
            pending.future.set_result(Appended(pending.offset, pending.count, pending.time_ns))

    def refuse(self, error: TrunklineError) -> None:
        """The append failed."""
        if self.pending is not None and not self.pending.future.done():
            self.pending.future.set_exception(error)


class Part(NamedTuple):
    """What becomes one block."""

    batch: Batch
    base_offset: int
    time_ns: int
    queued: Sequence[Queued]

    @staticmethod
    def of(queued: Sequence[Queued]) -> Part:
        """Put batches together that follow each other and have the same time."""
        first = queued[0]
        batch = first.batch if len(queued) == 1 else Batch.merge([one.batch for one in queued])
        return Part(batch, first.base_offset, first.time_ns, queued)

    def block(self, incarnation: int) -> Block:
        """As readers get it."""
        return Block.of_batch(self.batch, base_offset=self.base_offset, time_ns=self.time_ns, incarnation=incarnation)


class AppendQueue:
    """What was appended and is not in a write yet. `end_offset` is the position that the next record gets."""

    def __init__(self, end_offset: int, last_time_ns: int, *, bytes_max: int) -> None:
        self.end_offset = end_offset
        self.last_time_ns = last_time_ns
        self.bytes = 0
        """Waiting and in the write that is under way."""
        self._bytes_max = bytes_max
        self._queued: deque[Queued] = deque()

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, batch: Batch, time_ns: int, expected_offset: int | None = None) -> Pending:
        """Give a batch its position and time. LimitExceeded when too much is waiting; PositionMismatch."""
        size = batch.size
        if expected_offset not in (None, self.end_offset):
            raise PositionMismatch(
                f"the next record gets offset {self.end_offset}, expected was {expected_offset}",
                next=str(self.end_offset),
            )
        if self.bytes + size > self._bytes_max:
            raise LimitExceeded("queue_bytes_max", self._bytes_max)
        if not self._queued or time_ns - self.last_time_ns >= MERGE_WINDOW_NS:
            self.last_time_ns = max(time_ns, self.last_time_ns)
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        pending = Pending(self.end_offset, batch.count, self.last_time_ns, future)
        for part in batch.split():
            base, self.end_offset = self.end_offset, self.end_offset + part.count
            is_last = self.end_offset == pending.offset + batch.count
            queued = Queued(part, base, self.last_time_ns, pending.offset, pending if is_last else None)
            self._queued.append(queued)
            self.bytes += part.size
        return pending

    def take(self, bytes_max: int, records_max: int | None = None) -> list[Part]:
        """What goes into the next write: at least one part."""
        group = [self._queued.popleft()]
        if not self._queued:
            return [Part.of(group)]
        size, records = group[0].batch.size, group[0].batch.count
        while self._queued and len(group) < GROUP_APPENDS_MAX:
            size += self._queued[0].batch.size
            records += self._queued[0].batch.count
            if size > bytes_max or (records_max is not None and records > records_max):
                break
            group.append(self._queued.popleft())
        return [Part.of(run) for run in _runs(group)]

    def written(self, group: Sequence[Part]) -> None:
        """A group is not in memory any more on account of the queue."""
        self.bytes -= sum(queued.batch.size for part in group for queued in part.queued)

    def drop(self, end_offset: int, last_time_ns: int) -> list[Queued]:
        """Take everything out and go on at an earlier position."""
        dropped = list(self._queued)
        self._queued.clear()
        self.bytes = 0
        self.end_offset = end_offset
        self.last_time_ns = last_time_ns
        return dropped


def _runs(group: Sequence[Queued]) -> list[list[Queued]]:
    """What can be written as one block each."""
    runs: list[list[Queued]] = []
    records = size = 0
    for queued in group:
        records += queued.batch.count
        size += len(queued.batch.payload)
        joins = (
            bool(runs)
            and runs[-1][-1].is_small
            and queued.is_small
            and queued.time_ns == runs[-1][-1].time_ns
            and bool(queued.batch.drafts) == bool(runs[-1][-1].batch.drafts)
            and records <= BLOCK_RECORDS_AIM
            and size <= BLOCK_BYTES_AIM
        )
        if joins:
            runs[-1].append(queued)
        else:
            runs.append([queued])
            records, size = queued.batch.count, len(queued.batch.payload)
    return runs
