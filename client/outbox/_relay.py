"""The relay: takes committed events out of the table and publishes them, once each and in order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from trunkline.api.v1.events_pb2 import CloudEvent, PublishRequest, PublishResponse
from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument, TrunklineError
from trunkline.core.model import Sync

from .._backoff import Backoff, BackoffOptions
from .._connection import Trunkline
from .._publish import EVENTS_PER_REQUEST_MAX, sync_to
from ._plan import BackOff, Plan, Publish, Read, Rest, Row, Settle, Verdict, verdict_on
from ._store import Reading, Store, StoreAway, open_store, rung
from ._table import TABLE_DEFAULT, Table

log = logging.getLogger("trunkline.outbox")

BATCH_BYTES_LIMIT = 15 << 20
"""A request must stay below 16 MiB, whatever stands around its events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """The numbers of a relay. Times in seconds."""

    batch_events: int = 500
    """Published in one request; with `batch_bytes` all that is ever held in memory."""
    batch_bytes: int = 4 << 20
    """A batch ends before it has more; one event may be larger."""
    publish_timeout_s: float = 10.0
    """Deadline of one publish. An end that is asked for waits for it."""
    database_timeout_s: float = 30.0
    """Deadline of one statement, and of the wait for a locked SQLite file."""
    poll_interval_s: float | None = None
    """How often to look for rows that nothing told of; None: 0.2 with SQLite, 5 with PostgreSQL, which tells by NOTIFY."""
    take_over_interval_s: float = 1.0
    """How often a second relay looks whether the first one is gone."""
    keep_s: float = 0.0
    """How long published rows stay in the table; 0: they are deleted when they are acknowledged."""
    backoff: BackoffOptions = field(default_factory=lambda: BackoffOptions(initial_backoff_s=0.2, max_backoff_s=30.0))
    """Waits while the bus or the database is away."""

    def __post_init__(self) -> None:
        for name, most in (("batch_events", EVENTS_PER_REQUEST_MAX), ("batch_bytes", BATCH_BYTES_LIMIT)):
            if not 1 <= getattr(self, name) <= most:
                raise InvalidArgument.of(f"options.{name}", f"between 1 and {most}", getattr(self, name))
        for name in ("publish_timeout_s", "database_timeout_s", "take_over_interval_s"):
            if getattr(self, name) <= 0:
                raise InvalidArgument.of(f"options.{name}", "more than 0", getattr(self, name))
        if self.keep_s < 0:
            raise InvalidArgument.of("options.keep_s", "at least 0", self.keep_s)
        if self.poll_interval_s is not None and self.poll_interval_s <= 0:
            raise InvalidArgument.of("options.poll_interval_s", "more than 0", self.poll_interval_s)


@dataclass(slots=True)
class RelayCounts:
    """What a relay has done since it was made."""

    published: int = 0
    """Events that the bus acknowledged."""
    duplicates: int = 0
    """Of them, those that it knew already: published before a crash, or by a request whose answer was lost."""
    failed: int = 0
    """Rows that were marked because no bus takes their event."""
    bus_away: int = 0
    """Publishes that came to nothing: their rows are published again."""
    database_away: int = 0
    """Connections to the database that were lost or not made."""


PURGE_INTERVAL_S = 10.0
PURGE_ROWS = 1_000


class Relay:
    """Publishes the events of one table to one stream.

    Any number may run: one works, the others wait and take over. Every event is published at least once, with the id that
    it was given when it was added, so that the stream recognises a repeat within its dedupe window. Events are published in
    the order of their rows' ids: of one transaction in the order of the adds; behind the events of every transaction that
    had committed when they were added.
    """

    def __init__(
        self, trunkline: Trunkline, database: str, *, table: str = TABLE_DEFAULT, stream: str = "events",
        require: Sync | None = None, options: RelayOptions | None = None, rng: Rng | None = None,
    ) -> None:  # fmt: skip
        self._trunkline = trunkline
        self._database = database
        self._table = Table(table)
        self._stream = stream
        self._require = sync_to(require)
        self._options = options or RelayOptions()
        rng = rng or Rng(int.from_bytes(os.urandom(8), "little"))
        self._bus_backoff = Backoff(self._options.backoff, rng)
        self._database_backoff = Backoff(self._options.backoff, rng)
        self._plan = Plan()
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()
        self._purge_at_s = 0.0
        self._leads = False
        self.counts = RelayCounts()

    @property
    def leads(self) -> bool:
        """It works; otherwise it waits, for the database or for another relay to end."""
        return self._leads

    def stop(self) -> None:
        """Let `run` return when what is in flight is answered, or has timed out, and the table says so."""
        self._stopping.set()
        self._bell.set()

    async def run(self) -> None:
        """Until `stop`, or until cancelled, which loses nothing either.

        Waits while the bus or the database is away. Raises what somebody has to mend: InvalidArgument without the table,
        StreamNotFound, PermissionDenied and their like.
        """
        while not self._stopping.is_set():
            try:
                async with self._opened() as store:
                    if await self._lead(store):
                        await self._work(store)
            except StoreAway as error:
                self.counts.database_away += 1
                wait_s = self._database_backoff.next_s()
                log.warning("the outbox's database is away: %s; next try in %.1f s", error, wait_s)
                await rung(self._stopping, within_s=wait_s)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Store]:
        store = await open_store(self._database, self._table, timeout_s=self._options.database_timeout_s)
        try:
            yield store
        finally:
            self._leads = False
            self._plan.forget()
            await store.close()

    async def _lead(self, store: Store) -> bool:
        """Wait until no other relay works. False when there is no need any more."""
        is_told = False
        while not self._stopping.is_set():
            if await store.lead():
                self._leads = True
                log.info("relaying %s to stream %s", self._table.name, self._stream)
                return True
            if not is_told:
                log.info("another relay works on %s: waiting for its end", self._table.name)
            is_told = True
            await rung(self._stopping, within_s=self._options.take_over_interval_s)
        return False

    async def _work(self, store: Store) -> None:
        while True:
            action = self._plan.next()
            if self._stopping.is_set() and not isinstance(action, Settle):
                return
            await self._act(store, action)
            await self._purge(store)

    async def _act(self, store: Store, action: Read | Publish | Settle | BackOff | Rest) -> None:
        match action:
            case Read():
                self._bell.clear()
                most = Reading(rows=self._options.batch_events, bytes=self._options.batch_bytes)
                self._plan.read(await store.read(most))
                self._database_backoff.reset()
            case Publish(rows):
                await self._publish(rows)
            case Settle(published, failed):
                await store.settle(published, failed, keep=self._options.keep_s > 0)
                self._tell_failed(action)
                self._plan.settled()
            case BackOff():
                await rung(self._stopping, within_s=self._bus_backoff.next_s())
                self._plan.backed_off()
            case Rest():
                await store.wait(self._bell, within_s=self._options.poll_interval_s or store.poll_interval_s)
                self._plan.rested()

    async def _publish(self, rows: Sequence[Row]) -> None:
        try:
            answer = await self._trunkline.call(
                lambda stubs: stubs.events.Publish,
                PublishRequest(
                    namespace=self._trunkline.namespace,
                    stream=self._stream,
                    require_sync=self._require,
                    events=[CloudEvent.FromString(row.event) for row in rows],
                ),
                PublishResponse,
                timeout_s=self._options.publish_timeout_s,
            )
        except TrunklineError as error:
            self._not_published(rows, error)
        else:
            self._bus_backoff.reset()
            self.counts.published += len(rows)
            self.counts.duplicates += sum(run.count for run in answer.published if run.duplicate)
            self._plan.published()

    def _not_published(self, rows: Sequence[Row], error: TrunklineError) -> None:
        match verdict_on(error):
            case Verdict.INVALID:
                self._plan.invalid(str(error))
            case Verdict.LATER:
                self.counts.bus_away += 1
                log.warning("%d events wait: %s: %s", len(rows), error.code, error)
                self._plan.unpublished()
            case Verdict.REFUSED:
                raise error

    def _tell_failed(self, settled: Settle) -> None:
        self.counts.failed += len(settled.failed)
        for row, reason in settled.failed:
            log.error("row %d of %s is no event that can be published: %s", row.id, self._table.name, reason)

    async def _purge(self, store: Store) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._options.keep_s and now_s >= self._purge_at_s:
            gone = await store.purge(older_than_s=self._options.keep_s, rows=PURGE_ROWS)
            self._purge_at_s = now_s + (0 if gone == PURGE_ROWS else PURGE_INTERVAL_S)
