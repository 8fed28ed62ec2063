"""Batches that wait to be written, in order, with their positions."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from trunkline.core.errors import LimitExceeded, TrunklineError

from .batch import Batch
from .log import Appended, Pending


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """A batch that fits into a block. The last part of an append carries what to answer."""

    batch: Batch
    base_offset: int
    time_ns: int
    first_offset: int
    """Of the append that it is part of."""
    pending: Pending | None

    def answer(self) -> None:
        """The append is durable."""
        pending = self.pending
        if pending is not None and not pending.future.done():
            pending.future.set_result(Appended(pending.offset, pending.count, pending.time_ns))

    def refuse(self, error: TrunklineError) -> None:
        """The append failed."""
        if self.pending is not None and not self.pending.future.done():
            self.pending.future.set_exception(error)


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

    def add(self, batch: Batch, time_ns: int) -> Pending:
        """Give a batch its position. LimitExceeded when too much is waiting."""
        if self.bytes + batch.size > self._bytes_max:
            raise LimitExceeded("queue_bytes_max", self._bytes_max)
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

    def take(self, bytes_max: int, records_max: int | None) -> list[Queued]:
        """What goes into the next write: at least one."""
        group = [self._queued.popleft()]
        size, records = group[0].batch.size, group[0].batch.count
        while self._queued:
            size += self._queued[0].batch.size
            records += self._queued[0].batch.count
            if size > bytes_max or (records_max is not None and records > records_max):
                break
            group.append(self._queued.popleft())
        return group

    def written(self, group: list[Queued]) -> None:
        """A group has left memory's queue."""
        self.bytes -= sum(queued.batch.size for queued in group)

    def drop(self, end_offset: int, last_time_ns: int) -> list[Queued]:
        """Take everything out and go on at an earlier position."""
        dropped = list(self._queued)
        self._queued.clear()
        self.bytes = 0
        self.end_offset = end_offset
        self.last_time_ns = last_time_ns
        return dropped
