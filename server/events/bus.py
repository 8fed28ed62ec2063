"""The event bus: streams, subscriptions, checkpoints and sessions, put together and kept going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import TrunklineError
from trunkline.core.records import Record
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.engine import Engine
from trunkline.server.journal.log import LogConfig

from .attention import Attention
from .bounds import DEFAULT, LookAhead
from .changes import Changes
from .checkpoint import SUBSCRIPTIONS, Checkpoints
from .compaction import CompactionConfig, Compactor
from .dead_letters import DeadLetters
from .explain import Moment
from .feed import Feed
from .fold import EventsFold, SubscriptionEntity
from .metrics import EventsAlarm, alarms, measured
from .outlet import Outlet
from .session import Session
from .stream import EventStream
from .streams import Promise, Streams, StreamsConfig, Writer
from .subscriptions import Subscriptions, SubscriptionsConfig
from .tasks import Tasks
from .updates import Updates
from .webhook_settings import WebhooksConfig
from .webhooks import ClosableSender, Webhooks

log = logging.getLogger(__name__)

JOURNAL_RECENT_BYTES_MAX = 256 << 10
"""Checkpoints that are kept in memory: they are read at a start and when the journal is compacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusConfig:
    """Bounds and paces of the event bus."""

    streams: StreamsConfig = field(default_factory=StreamsConfig)
    subscriptions: SubscriptionsConfig = field(default_factory=SubscriptionsConfig)
    webhooks: WebhooksConfig = field(default_factory=WebhooksConfig)
    compaction: CompactionConfig = field(default_factory=CompactionConfig)
    bookmark_interval_s: float = 5.0
    """Between two bookmarks of an ephemeral subscription."""


class EventBus:
    """`start` when control is folded, then `run`; `stop` when no call is served any more."""

    def __init__(
        self,
        engine: Engine,
        fold: EventsFold,
        writer: Writer,
        clock: Clock,
        rng: Rng,
        config: BusConfig,
        tasks: Tasks,
        *,
        promise: Promise,
        changes: Changes | None = None,
        sender: Callable[[WebhooksConfig], ClosableSender] | None = None,
        look_ahead: LookAhead = DEFAULT,
    ) -> None:
        """With `changes` every namespace has the derived stream; tell it and `on_records` of every group.

        `sender` makes what webhooks send with, if it is not to be the HTTP client. `look_ahead` is of durable subscriptions.
        """
        self.fold = fold
        self.tasks = tasks
        self._changes = changes
        derive = None if changes is None else changes.stream
        self.streams = Streams(
            engine,
            fold,
            writer,
            clock,
            rng,
            self.tasks,
            config.streams,
            promise=promise,
            derive=derive,
        )
        self.compactor = Compactor(self.streams.opened, clock, config.compaction)
        self._engine = engine
        self._writer = writer
        self.attention = Attention(clock)
        self.dead_letters = DeadLetters(self.streams, clock)
        self._config = config
        self._look_ahead = look_ahead
        self._promise = promise
        self._checkpoints: Checkpoints | None = None
        self._subscriptions: Subscriptions | None = None
        self._sessions: set[Session] = set()
        self._consumer_ids = count(1)
        self.webhooks = Webhooks(
            config.webhooks, self.attention, rng, consumer_ids=lambda: next(self._consumer_ids), sender=sender
        )

    @property
    def checkpoints(self) -> Checkpoints:
        """Once started."""
        assert self._checkpoints is not None, "not started"
        return self._checkpoints

    @property
    def updates(self) -> Updates:
        """Once started."""
        return Updates(self.fold, self.streams, self.subscriptions, self._writer)

    @property
    def subscriptions(self) -> Subscriptions:
        """Once started."""
        assert self._subscriptions is not None, "not started"
        return self._subscriptions

    async def start(self, origin: Origin) -> None:
        """Open every stream and go on with every subscription."""
        kept = LogConfig(sync=self._promise.sync, recent_bytes_max=JOURNAL_RECENT_BYTES_MAX)
        journal = await self._engine.open_log(SUBSCRIPTIONS, kept)
        self._checkpoints = Checkpoints(journal, self.attention, is_current=self._is_current)
        self._subscriptions = Subscriptions(
            self.fold,
            self.streams,
            self._checkpoints,
            self.dead_letters,
            self._writer,
            self.attention,
            self._config.subscriptions,
            self.webhooks,
            self._look_ahead,
        )
        saved = await self._checkpoints.load()
        await self.streams.start()
        await self._subscriptions.start(saved, origin)

    def _is_current(self, key: str, created_revision: int) -> bool:
        entity = self.fold.get(key)
        return isinstance(entity, SubscriptionEntity) and entity.created_revision == created_revision

    async def run(self) -> None:
        """Checkpoints, retention, recovery, bookmarks and the watch on stalls, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.attention.run(), name="events: attention")
                tasks.create_task(self.checkpoints.run(), name="events: checkpoints")
                tasks.create_task(self.dead_letters.run(), name="events: dead letters")
                tasks.create_task(self.streams.keep(), name="events: keep streams")
                tasks.create_task(self.compactor.run(), name="events: compact streams")
                tasks.create_task(self._bookmark_forever(), name="events: bookmarks")
        finally:
            await self.webhooks.stop()
            await self.tasks.cancel()

    async def _bookmark_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.bookmark_interval_s)
            if self._changes is not None:
                self._changes.advance()
                await asyncio.sleep(0)  # followers move on in the next turn
            for session in list(self._sessions):
                session.bookmark()

    async def stop(self) -> None:
        """Say exactly what every subscription has done; after `run` has ended."""
        feeds = [feed for stream in self.streams.opened() for feed in stream.feeds.values()]
        try:
            await self.checkpoints.write_now([feed for feed in feeds if feed.state.touched], final=True)
        except TrunklineError as error:
            log.warning("last checkpoints were not written", extra={"reason": error.code})
        for feed in feeds:
            feed.close()
        for stream in self.streams.opened():
            stream.dispatcher.close()

    def on_records(self, records: Sequence[Record]) -> None:
        """Records of control were folded: streams and subscriptions come and go."""
        for record in records:
            kind = record.topic.partition(".")[0]
            if kind == "stream":
                for feed in self.streams.apply(record):
                    self.checkpoints.forget(feed)
                    self.dead_letters.forget(feed)
            elif kind == "subscription":
                _, namespace, stream, _ = record.key.split("/", 3)
                self.subscriptions.apply(record, self.streams.peek(namespace, stream))

    def moment(self, stream: EventStream, feed: Feed) -> Moment:
        """What an explanation of a subscription needs besides its state."""
        return Moment(
            end=stream.dispatcher.end,
            now_ns=self.attention.now_ns(),
            time_ns=self.attention.time_ns(),
            dead_letter_failure=self.dead_letters.failures.get(feed),
        )

    def metrics(self) -> dict[str, float]:
        """Counts and gauges by name, for Prometheus."""
        if self._checkpoints is None:
            return {}
        counted = measured(self.streams.opened(), self.checkpoints, sessions=len(self._sessions))
        counted["compaction_failures_total"] = self.compactor.failures
        return counted | self.webhooks.metrics()

    def alarms(self) -> list[EventsAlarm]:
        """What somebody should look at: subscriptions with events that are set aside or went to dead letters, streams whose log
        has failed, endpoints that fail."""
        return alarms(self.streams.opened(), self.dead_letters) + self.webhooks.alarms()

    # Sessions.

    def open_session(
        self,
        outlet: Outlet,
        origin: Origin,
        *,
        allow: Callable[[events_pb2.OpenSubscription, Sequence[str] | None], None],
        makes_streams: bool = True,
    ) -> Session:
        """A client's Subscribe stream begins; `close_session` when it ends. See Session."""
        session = Session(
            self.streams,
            self.subscriptions,
            self.attention,
            outlet,
            origin,
            allow=allow,
            makes_streams=makes_streams,
            consumer_ids=lambda: next(self._consumer_ids),
        )
        outlet.on_ready(session.wake)
        self._sessions.add(session)
        return session

    def close_session(self, session: Session, *, clean: bool) -> None:
        """The stream ended; `clean` if the client ended it."""
        self._sessions.discard(session)
        session.close(clean=clean)
