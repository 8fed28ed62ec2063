"""Checkpoints: what subscriptions have done, kept in the stream `trunkline.subscriptions`.

Every 50 ms those subscriptions that have something new to say are written in one append. Sooner is written only what
something to deliver waits for. The id of a record is the revision that made the subscription, so that a checkpoint of an
earlier one of the same name is told apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from trunkline.api.journal.v1 import control_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import JournalCorrupt, TrunklineError
from trunkline.core.records import Draft, Record
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.log import Log

from .progress import OpenDelivery, ParkedLane, Progress, SetAside
from .saving import Saving
from .subscription import SubscriptionState

log = logging.getLogger(__name__)

SUBSCRIPTIONS = "trunkline.subscriptions"
TOPIC = "subscription.checkpoint"
SCHEMA = 1
INTERVAL_NS = 50_000_000
"""Between two appends, unless something to deliver waits."""
RETRY_NS = 1_000_000_000
"""After an append failed."""
BATCH_BYTES_MAX = 4 << 20
"""Of one append; the others go with the next."""
BATCH_RECORDS = 100
"""Checkpoints that are encoded between two looks at the loop."""
REASON_BYTES_MIN = 16
REASONS_BYTES_MAX = 384 << 10
"""Of what a checkpoint says why events are set aside: when they are many, each is told in fewer words."""
COMPACT_BYTES_MIN = 16 << 20
READ_BYTES = 1 << 20


class Checkpointed(Protocol):
    """A subscription, as far as its checkpoints go."""

    @property
    def key(self) -> str: ...
    @property
    def created_revision(self) -> int: ...
    @property
    def state(self) -> SubscriptionState: ...
    def on_saved(self) -> None:
        """A checkpoint of it is durable."""


class Checkpoints:
    """Writes them; `load` first, then `run`."""

    def __init__(self, journal: Log, clock: Clock, *, is_current: Callable[[str, int], bool]) -> None:
        """`is_current` tells whether a subscription (key, revision that made it) is there."""
        self.written = 0
        self.failures = 0
        self._log = journal
        self._clock = clock
        self._is_current = is_current
        self._dirty: dict[Checkpointed, None] = {}
        self._blocked: dict[Checkpointed, None] = {}
        """Those among them that something to deliver waits for."""
        self._next_ns = 0
        """When those that nothing waits for may be written."""
        self._work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._compacted_bytes = 0

    async def load(self) -> dict[tuple[str, int], Progress]:
        """The last checkpoint of every subscription, by its key and the revision that made it."""
        last: dict[tuple[str, int], Record] = {}  # most were overwritten: only what counts is decoded
        offset = self._log.first_offset
        while blocks := await self._log.read(offset, max_bytes=READ_BYTES):
            for block in blocks:
                for index in range(block.count):
                    record = block.record(index)
                    if record.body:
                        last[record.key, int(record.id)] = record
                offset = block.end_offset
            await asyncio.sleep(0)
        self._compacted_bytes = self._log.bytes
        found: dict[tuple[str, int], Progress] = {}
        for number, (key, record) in enumerate(last.items()):
            found[key] = decode(record)
            if number % BATCH_RECORDS == 0:
                await asyncio.sleep(0)
        return found

    def mark(self, subscription: Checkpointed) -> None:
        """Write it at the next opportunity."""
        self._dirty[subscription] = None
        if subscription.state.blocked:
            self._blocked[subscription] = None
            self._urgent.set()
        self._work.set()

    def forget(self, subscription: Checkpointed) -> None:
        """It was deleted."""
        self._dirty.pop(subscription, None)
        self._blocked.pop(subscription, None)

    async def run(self) -> None:
        """Write what is marked until cancelled."""
        while True:
            await self._work.wait()
            await self._pace()
            self._work.clear()
            if not await self._write_due():
                await asyncio.sleep(RETRY_NS / 1e9)
            if self._dirty:
                self._work.set()
            await self._compact()

    async def _pace(self) -> None:
        """Return when all may be written, or when something to deliver waits for one."""
        wait_ns = self._next_ns - self._clock.now_ns()
        if wait_ns <= 0:
            return
        try:
            async with asyncio.timeout(wait_ns / 1e9):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _write_due(self) -> bool:
        now_ns, time_ns = self._clock.now_ns(), self._clock.time_ns()
        candidates = self._blocked
        if now_ns >= self._next_ns:
            candidates, self._next_ns = self._dirty, now_ns + INTERVAL_NS
        self._urgent.clear()
        due: list[Checkpointed] = []
        size = 0
        savings: list[Saving] = []
        drafts: list[Draft] = []
        for subscription in list(candidates):
            if size >= BATCH_BYTES_MAX:  # the others go at once with the next
                self._next_ns = now_ns
                break
            self.forget(subscription)
            if not subscription.state.dirty:
                continue
            savings.append(subscription.state.save(now_ns, time_ns))
            drafts.append(draft(subscription.key, subscription.created_revision, savings[-1].progress))
            due.append(subscription)
            size += len(drafts[-1].body)
        return await self._append(due, savings, drafts)

    async def _append(self, due: list[Checkpointed], savings: list[Saving], drafts: list[Draft]) -> bool:
        if not drafts:
            return True
        try:
            await self._log.append(Batch.of_records(drafts), time_ns=self._clock.time_ns())
        except TrunklineError as error:
            self.failures += 1
            log.warning("checkpoints were not written", extra={"reason": error.code, "subscriptions": len(due)})
            for subscription in due:
                if self._is_current(subscription.key, subscription.created_revision):  # it may be deleted by now
                    self.mark(subscription)
            await self._recover()
            return False
        self.written += len(drafts)
        for subscription, saving in zip(due, savings, strict=True):
            subscription.state.saved(saving)
            subscription.on_saved()
        return True

    async def _recover(self) -> None:
        """Reopen the log if its disk has failed; what is marked is written to it at the next attempt."""
        if self._log.failed is None:
            return
        try:
            await self._log.recover()
        except TrunklineError as error:
            log.warning("checkpoints not recovered", extra={"reason": error.code, "error": error.message})

    async def write_now(self, subscriptions: Sequence[Checkpointed], *, final: bool = False) -> None:
        """Write these, whatever they say, and return when that is durable. With `final`, nothing is counted ahead."""
        now_ns, time_ns = self._clock.now_ns(), self._clock.time_ns()
        for at in range(0, len(subscriptions), BATCH_RECORDS):
            some = subscriptions[at : at + BATCH_RECORDS]
            savings = [one.state.save(now_ns, time_ns, final=final) for one in some]
            drafts = [draft(one.key, one.created_revision, s.progress) for one, s in zip(some, savings, strict=True)]
            await self._log.append(Batch.of_records(drafts), time_ns=time_ns)
            self.written += len(drafts)
            for one, saving in zip(some, savings, strict=True):
                one.state.saved(saving)

    async def _compact(self) -> None:
        """Let go of what was overwritten once the stream has grown to twice of what was kept."""
        if self._log.bytes < max(COMPACT_BYTES_MIN, 2 * self._compacted_bytes):
            return
        try:
            await self._log.compact(lambda record: self._is_current(record.key, int(record.id)))
        except TrunklineError as error:
            log.warning("checkpoints not compacted", extra={"reason": error.code, "error": error.message})
        self._compacted_bytes = self._log.bytes


def draft(key: str, created_revision: int, progress: Progress) -> Draft:
    """The record of a checkpoint."""
    namespace = key.split("/", 2)[1]
    body = encode(progress)
    return Draft(topic=TOPIC, key=key, id=str(created_revision), namespace=namespace, schema=SCHEMA, body=body)


def encode(progress: Progress) -> bytes:
    """A SubscriptionCheckpoint. Whatever is held (see bounds.HELD_MAX), it fits into a record."""
    message = control_pb2.SubscriptionCheckpoint(
        incarnation=progress.incarnation,
        floor=progress.floor,
        done_bitmap=progress.done,
        delivered_to=progress.delivered_to,
        untried_bitmap=progress.untried,
        latest_below=progress.latest_below,
    )
    for offset, attempts, not_before_ns, key, again_ms in progress.open:
        message.open.add(offset=offset, attempts=attempts, not_before_ns=not_before_ns, key=key, again_ms=again_ms)
    for lane in progress.parked:
        message.parked.add(key=lane.key, from_offset=lane.from_offset, tried_below=lane.tried_below)
    size = max(REASON_BYTES_MIN, REASONS_BYTES_MAX // max(1, len(progress.set_aside)))
    for aside in progress.set_aside:
        reason = aside.reason.encode()[:size].decode(errors="ignore")
        message.set_aside.add(
            offset=aside.offset,
            attempts=aside.attempts,
            reason=reason,
            time_ns=aside.time_ns,
            key=aside.key,
            again_ms=aside.again_ms,
        )
    return message.SerializeToString()


def decode(record: Record) -> Progress:
    """What a record of the stream says. JournalCorrupt when it cannot be read."""
    try:
        message = control_pb2.SubscriptionCheckpoint.FromString(record.body)
    except DecodeError as error:
        raise JournalCorrupt(f"checkpoint {record.offset} of {record.key} cannot be read: {error}") from error
    return Progress(
        incarnation=message.incarnation,
        floor=message.floor,
        done=message.done_bitmap,
        delivered_to=message.delivered_to,
        untried=message.untried_bitmap,
        latest_below=message.latest_below,
        parked=tuple(ParkedLane(lane.key, lane.from_offset, lane.tried_below) for lane in message.parked),
        open=tuple(OpenDelivery(e.offset, e.attempts, e.not_before_ns, e.key, e.again_ms) for e in message.open),
        set_aside=tuple(
            SetAside(e.offset, e.attempts, e.reason, e.time_ns, e.key, e.again_ms) for e in message.set_aside
        ),
    )
