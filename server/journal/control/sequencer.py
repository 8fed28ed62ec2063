"""One line for all of control: decide, append in groups, fold, answer.

A write is decided against the durable folds with the node's own pending records on top, appended together with what
gathered meanwhile, and answered when its record has been folded. What rests on a pending record (a refusal, or 'nothing to
do') waits until that record is durable and is decided again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trunkline.core.clock import Clock
from trunkline.core.errors import LimitExceeded, NotReady, TrunklineError, WriteConflict
from trunkline.core.records import Change, Draft, Record, Version

from ..batch import Batch
from ..block import Block
from ..log import Log
from .admission import NODE_STARTED, Admission
from .fold import Decide, Folds
from .overlay import Overlay
from .pending_write import PendingWrite, Waits, late
from .requests import RecentRequests

log = logging.getLogger(__name__)

GROUP_RECORDS_MAX = 512
"""Records of one append, and of one step of the folds, which takes about 30 us a record; the rest goes with the next."""
QUEUE_RECORDS_MAX = 65_536
"""Records decided and not yet durable; further writes are refused."""
WRITE_TIMEOUT_NS = 10_000_000_000
"""How long a write without a deadline of its own may take."""


class Origin(NamedTuple):
    """On whose behalf a write is made: what stands in its records' heads."""

    author: str
    reason: str = ""
    request_id: str = ""
    traceparent: str = ""


class Written(NamedTuple):
    """A write's answer: the revision at which it is in force, and its records (none if nothing was written)."""

    revision: int
    records: tuple[Record, ...] = ()
    repeated: bool = False
    """The request id was seen before: `revision` is that of the first time, `records` is empty."""


@dataclass(frozen=True, slots=True)
class Group:
    """Records that were folded in one step."""

    revision: int
    time_ns: int
    applied: tuple[Record, ...]
    skipped: int


class _View:
    """The state a decision reads; notes which pending keys it rests on."""

    __slots__ = ("_overlay", "read", "revision")

    def __init__(self, overlay: Overlay, revision: int) -> None:
        self._overlay = overlay
        self.revision = revision
        self.read: tuple[str, ...] = ()

    def get(self, key: str) -> Any | None:
        if key in self._overlay:
            self.read = (*self.read, key)
        return self._overlay.get(key)

    def pending(self, prefix: str) -> Sequence[str]:
        found = self._overlay.keys(prefix)
        self.read = (*self.read, *found)
        return found


class Sequencer:
    """The control stream's writer on this node, and the folding of every writer's records.

    `node_id` and `epoch` name this start of this node; `start` appends the record that fences older ones.
    """

    def __init__(
        self,
        folds: Folds,
        control: Log,
        clock: Clock,
        *,
        node_id: int,
        program_version: str,
        admission: Admission | None = None,
        requests: RecentRequests | None = None,
        revision: int = -1,
    ) -> None:
        self.folds = folds
        self.admission = Admission() if admission is None else admission
        self.requests = RecentRequests() if requests is None else requests
        self.revision = revision
        """Position of the last record that is folded; -1 before the first."""
        self.time_ns = 0
        self.epoch = 0
        self.skipped = 0
        self.failed = asyncio.Event()
        """Set while the control stream is closed after a failed append; `recovered` clears it."""
        self.broken: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Done when a record could not be folded."""
        self._node_id = node_id
        self._program_version = program_version
        self._log = control
        self._clock = clock
        self._overlay = Overlay(folds)
        self._sequence = 0
        self._queue: deque[PendingWrite] = deque()
        self._queued_records = 0
        self._by_sequence: dict[int, PendingWrite] = {}
        self._by_request: dict[str, PendingWrite] = {}
        self._waits = Waits(clock)
        self._work = asyncio.Event()
        self._listeners: list[Callable[[Group], None]] = []
        self._stopping = False

    # Folding: what is durable, in order, from every writer.

    def on_group(self, listener: Callable[[Group], None]) -> None:
        """Call `listener` after every group, when all folds have taken it in and before any write is answered."""
        self._listeners.append(listener)

    def fold_block(self, block: Block) -> None:
        """Fold a durable block in one step, tell the listeners, then settle the writes that wait for it.

        What goes wrong here is a fault of the program, and leaves the folds in nobody knows which state: `broken` tells,
        nothing more is decided, and whoever runs the control plane must end it.
        """
        try:
            self._fold_block(block)
        except Exception as error:
            if not self.broken.done():
                self.broken.set_result(error)
            self._stopping = True
            raise

    def _fold_block(self, block: Block) -> None:
        applied: list[Record] = []
        skipped = 0
        settled: list[tuple[PendingWrite, Record | None]] = []
        for index in range(block.count):
            record = block.record(index)
            if record.offset <= self.revision:
                continue  # told twice around a recovery
            admitted = self._fold(record)
            if admitted:
                applied.append(record)
            else:
                skipped += 1
            write = self._own_write(record)
            if write is not None:
                settled.append((write, record if admitted else None))
            self.revision = record.offset
        self.time_ns = block.time_ns
        self.skipped += skipped
        group = Group(self.revision, block.time_ns, tuple(applied), skipped)
        for listener in self._listeners:
            listener(group)
        for write, folded in settled:
            self._settle_one(write, folded)

    def _fold(self, record: Record) -> bool:
        if not self.admission.admit(record):
            return False
        self.folds.apply(record)
        if record.topic != NODE_STARTED and self.folds.get(record.key) is None:
            self.admission.forget(record.key)
        if record.id:
            self.requests.add(record.id, record.offset, record.time_ns)
        return True

    def _own_write(self, record: Record) -> PendingWrite | None:
        if record.version.writer != self._node_id or record.version.epoch != self.epoch:
            return None
        write = self._by_sequence.pop(record.version.sequence, None)
        if write is not None:  # else it was given up, or came before: what is pending for its key is another record
            self._overlay.pop(record.key)
        return write

    def _settle_one(self, write: PendingWrite, folded: Record | None) -> None:
        write.outstanding -= 1
        if folded is None:
            write.skipped = True
        else:
            write.folded(folded)
        if not write.outstanding and write.outcome is None:
            self._settle(write, not write.skipped)

    def _settle(self, write: PendingWrite, outcome: bool | TrunklineError) -> None:
        if write.request_id:
            self._by_request.pop(write.request_id, None)
        write.settle(outcome)

    # Writing.

    async def write(self, decide: Decide, origin: Origin, *, deadline_ns: int | None = None) -> Written:
        """Decide, append and fold; return when that is durable.

        `deadline_ns` is monotonic. Raises what `decide` refuses with; DeadlineExceeded (the write may still happen),
        WriteConflict (other writers kept winning), LimitExceeded (too much is pending), OutcomeUnknown, DiskFull,
        DiskReadOnly, NotReady.
        """
        if deadline_ns is None:
            deadline_ns = self._clock.now_ns() + WRITE_TIMEOUT_NS
        conflicts = 0
        while True:
            if self._clock.now_ns() >= deadline_ns:
                raise WriteConflict(f"lost to other writers {conflicts} times") if conflicts else late()
            repeated = await self._repeated(origin.request_id, deadline_ns)
            if repeated is not None:
                return repeated
            # Nothing is awaited between this and the queue: a request and its repetition must not both be new.
            view = _View(self._overlay, self.revision)
            changes = self._decide(decide, view)
            if changes:
                write = self._enqueue(changes, origin)
                del view, changes  # thousands may wait here
                waiter = self._waits.enter(write, deadline_ns)
                try:
                    await waiter
                finally:
                    self._waits.leave(waiter)
                if write.came_through():
                    records = tuple(write.records or ())
                    return Written(records[-1].offset, records)
                conflicts += write.skipped
            elif view.read:  # refused, or nothing to do, because of what is not durable yet: wait, look again
                await self._until_durable(view.read, deadline_ns)
            else:
                return Written(max(self.revision, 0))

    async def _repeated(self, request_id: str, deadline_ns: int) -> Written | None:
        """The answer to a request id that was seen before, once it is durable."""
        if not request_id:
            return None
        while (write := self._by_request.get(request_id)) is not None:
            await self._waits.until(write, deadline_ns)
        revision = self.requests.get(request_id)
        return None if revision is None else Written(revision, repeated=True)

    def _decide(self, decide: Decide, view: _View) -> Sequence[Change]:
        """What to write; nothing, too, when the refusal rests on what is pending."""
        self._refuse_when_closed()
        try:
            return decide(view)
        except TrunklineError:
            if not view.read:
                raise
            return ()

    def _refuse_when_closed(self) -> None:
        if self._stopping:
            raise NotReady("the control plane is stopping")
        if self.failed.is_set():
            raise NotReady("the control stream is being recovered")
        if self._queued_records >= QUEUE_RECORDS_MAX:
            raise LimitExceeded("control_queue_records_max", QUEUE_RECORDS_MAX)

    def _enqueue(self, changes: Sequence[Change], origin: Origin) -> PendingWrite:
        author, reason, request_id, traceparent = origin
        drafts: list[Draft] = []
        write = PendingWrite(drafts, request_id)
        now_ns = self._clock.time_ns()
        for change in changes:
            self._sequence += 1
            version = Version(self._node_id, self.epoch, self._sequence)
            expects = self._expected(change.key)
            drafts.append(change.draft(request_id, version, expects, author, reason, traceparent))
            self._overlay.push(change, version, revision=self.revision + 1, time_ns=now_ns)
            self._by_sequence[self._sequence] = write
        write.outstanding = len(drafts)
        if request_id:
            self._by_request[request_id] = write
        self._queue.append(write)
        self._queued_records += len(changes)
        self._work.set()
        return write

    def _expected(self, key: str) -> Version | None:
        """The record of the key that will be its last when a record decided now is folded; None behind a removal."""
        if key not in self._overlay:
            return self.admission.last.get(key)
        return None if self._overlay.get(key) is None else self._overlay.version(key)

    async def _until_durable(self, keys: Sequence[str], deadline_ns: int) -> None:
        """Wait until what was pending for these keys is folded or dropped."""
        versions = [version for key in keys if (version := self._overlay.version(key)) is not None]
        waited = {id(write): write for v in versions if (write := self._by_sequence.get(v.sequence)) is not None}
        for write in waited.values():
            await self._waits.until(write, deadline_ns)

    # Appending.

    async def start(self) -> None:
        """Begin this node's next epoch; older ones are fenced from its record on. `run` must be running."""
        from trunkline.api.journal.v1 import control_pb2

        self.epoch = self.admission.epochs.get(self._node_id, 0) + 1
        body = control_pb2.NodeStarted(
            epoch=self.epoch, program_version=self._program_version, time_ns=self._clock.time_ns()
        )
        change = Change(topic=NODE_STARTED, key=f"node/{self._node_id:016x}", body=body.SerializeToString())
        await self.write(lambda _: [change], Origin(author=f"node/{self._node_id:016x}"))

    async def run(self) -> None:
        """Append what is queued, group after group, until cancelled or stopped."""
        while not (self._stopping and not self._queue):
            await self._work.wait()
            self._work.clear()
            while self._queue:
                await self._append_group()

    def stop(self) -> None:
        """Take no more writes; `run` ends when what is queued is durable."""
        self._stopping = True
        self._work.set()

    async def _append_group(self) -> None:
        writes: list[PendingWrite] = []
        drafts: list[Draft] = []
        while self._queue and (not drafts or len(drafts) + len(self._queue[0].drafts) <= GROUP_RECORDS_MAX):
            write = self._queue.popleft()
            writes.append(write)
            drafts.extend(write.drafts)
        time_ns = max(self._clock.time_ns(), self.time_ns)
        try:
            await self._log.append(Batch.of_records(drafts), time_ns=time_ns)
        except TrunklineError as error:
            self._fail(writes, error)
        finally:
            self._queued_records -= len(drafts)

    def _fail(self, writes: Sequence[PendingWrite], error: TrunklineError) -> None:
        """An append failed: those writes are told, and what was decided on top of them is decided again."""
        log.warning("control append failed", extra={"reason": error.code, "writes": len(writes)})
        self._overlay.drop()
        for write in writes:
            self._forget_sequences(write)
            if write.outcome is None:
                self._settle(write, error)
        while self._queue:
            write = self._queue.popleft()
            self._queued_records -= len(write.drafts)
            self._forget_sequences(write)
            if write.outcome is None:
                self._settle(write, False)
        if self._log.failed is not None:
            self.failed.set()

    def recovered(self) -> None:
        """The log is open again and everything durable is folded: take writes."""
        assert self._log.failed is None
        self.failed.clear()

    def _forget_sequences(self, write: PendingWrite) -> None:
        for draft in write.drafts:
            assert draft.version is not None
            self._by_sequence.pop(draft.version.sequence, None)
