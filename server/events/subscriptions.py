"""Every durable subscription: made, recovered, consumed with single calls, listed, deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LimitExceeded,
    SubscriptionExists,
    SubscriptionNotFound,
)
from trunkline.core.records import Change, Record
from trunkline.server.journal.control.fold import View
from trunkline.server.journal.control.sequencer import Origin

from .bounds import LookAhead
from .checkpoint import Checkpoints
from .consumer import PullConsumer
from .dead_letters import DeadLetters
from .delivery import NEVER
from .feed import Feed
from .fold import (
    SUBSCRIPTION_CREATED,
    SUBSCRIPTION_DELETED,
    SUBSCRIPTION_UPDATED,
    EventsFold,
    SubscriptionEntity,
    stream_key,
    subscription_key,
)
from .latest import LatestPerKey, find_latest
from .progress import Progress
from .settings import SubscriptionSettings
from .stream import EventStream
from .streams import Streams, Writer, not_found
from .subscription import SubscriptionState
from .webhooks import Webhooks

log = logging.getLogger(__name__)

FETCH_EVENTS_DEFAULT = 100
FETCH_BYTES_DEFAULT = 1 << 20
SEARCH_WITHIN_S = 60.0
"""How long the latest of each key are looked for, the searches before this one included."""
FETCH_GRACE_NS = 1_000_000_000
"""How long a Fetch that does not wait for events may wait for what is there: a read, a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionsConfig:
    """Bounds of subscriptions."""

    subscriptions_per_stream_max: int = 1_000
    """Durable ones of one stream."""
    last_per_key_keys_max: int = 1_000_000
    """Keys of which the latest events can be a subscription's start. Finding them takes about 130 bytes of memory each, one
    search at a time; 8 bytes each are kept until they are delivered."""


class Subscriptions:
    """By stream and name."""

    def __init__(
        self,
        fold: EventsFold,
        streams: Streams,
        checkpoints: Checkpoints,
        dead_letters: DeadLetters,
        writer: Writer,
        clock: Clock,
        config: SubscriptionsConfig,
        webhooks: Webhooks,
        look_ahead: LookAhead,
    ) -> None:
        self.pulls = 0
        self._webhooks = webhooks
        self._fold = fold
        self._streams = streams
        self._checkpoints = checkpoints
        self._dead_letters = dead_letters
        self._writer = writer
        self._clock = clock
        self._config = config
        self._look_ahead = look_ahead
        self._found: dict[str, LatestPerKey] = {}
        """Of subscriptions that are being made, by key: what their start takes."""
        self._searches = asyncio.Semaphore(1)

    # Where one begins.

    async def begin(
        self, stream: EventStream, start: events_pb2.StartPosition, settings: SubscriptionSettings
    ) -> tuple[int, LatestPerKey | None]:
        """The offset of a start and, for `last_per_key`, what is taken up to the end as it is now.

        PositionOutOfRange, LimitExceeded for too many keys, DeadlineExceeded when the stream cannot be looked through in time.
        """
        offset = await stream.start_offset(start)
        if not start.last_per_key:
            return offset, None
        try:
            async with asyncio.timeout(SEARCH_WITHIN_S), self._searches:
                end = stream.dispatcher.end
                limit = self._config.last_per_key_keys_max
                offsets = await find_latest(stream.dispatcher, settings, offset, end, keys_max=limit)
        except TimeoutError:
            raise DeadlineExceeded(f"the latest of each key is not found within {SEARCH_WITHIN_S:.0f} s") from None
        latest = LatestPerKey(end, offsets)
        return latest.following(offset), latest

    # Recovery.

    async def start(self, saved: dict[tuple[str, int], Progress], origin: Origin) -> None:
        """Go on with every subscription where its last checkpoint left it; streams are open.

        One whose stream has another incarnation is written before anything can be appended, so that the new history's
        first position is never forgotten.
        """
        moved: list[Feed] = []
        for entity in list(self._fold.subscriptions()):
            stream = await self._streams.get(entity.namespace, entity.stream, origin)
            feed = self._recover(stream, entity, saved.get((entity.key, entity.created_revision)))
            if feed.untold_gap is not None:
                moved.append(feed)
        await self._checkpoints.write_now(moved)

    def _recover(self, stream: EventStream, entity: SubscriptionEntity, progress: Progress | None) -> Feed:
        if progress is None:
            progress = Progress(
                incarnation=entity.incarnation,
                floor=entity.offset,
                delivered_to=entity.offset,
                latest_below=entity.latest_below,
            )
        incarnation = stream.incarnation
        gap: tuple[int, int] | None = None
        if progress.incarnation != incarnation:
            gap = (progress.incarnation, progress.floor)
            progress = progress.moved_to(incarnation, stream.moved(progress.incarnation, NEVER))
        state = SubscriptionState.recover(
            entity.settings.limits(durable=True, look_ahead=self._look_ahead),
            progress,
            end=stream.dispatcher.end,
            now_ns=self._clock.now_ns(),
            time_ns=self._clock.time_ns(),
        )
        feed = self._open(stream, entity, state)
        feed.untold_gap = gap
        return feed

    def _open(self, stream: EventStream, entity: SubscriptionEntity, state: SubscriptionState) -> Feed:
        feed = Feed(
            stream.dispatcher,
            state,
            self._clock,
            key=entity.key,
            created_revision=entity.created_revision,
            settings=entity.settings,
            checkpoint=self._checkpoints.mark,
            bury=self._bury(entity.settings),
            latest=self._found.get(entity.key),
        )
        stream.feeds[entity.name] = feed
        feed.open()
        if entity.settings.webhook is not None:
            self._webhooks.begin(feed, entity.settings.webhook)
        return feed

    def _bury(self, settings: SubscriptionSettings) -> Callable[[Feed], None] | None:
        return self._dead_letters.mark if settings.dead_letter_stream else None

    # Making and deleting.

    async def create(
        self,
        stream: EventStream,
        name: str,
        config: events_pb2.SubscriptionConfig,
        origin: Origin,
        *,
        exact: bool = True,
        deadline_ns: int | None = None,
    ) -> tuple[Feed, bool]:
        """Make a subscription, and whether it was not there. SubscriptionExists, StreamNotFound, PositionOutOfRange.

        One that is there is taken if it is configured so; unless `exact`, what `config` does not say may be anything.
        """
        settings = SubscriptionSettings.of(config)
        await self.check(stream, settings, origin)
        key = subscription_key(stream.namespace, stream.name, name)
        there = stream.feeds.get(name)
        offset, latest = (there.state.floor, None) if there else await self.begin(stream, config.start, settings)
        body = control_pb2.SubscriptionCreated(
            config=settings.message(),
            incarnation=stream.incarnation,
            offset=offset,
            latest_below=0 if latest is None else latest.below,
        ).SerializeToString()

        def decide(view: View) -> Sequence[Change]:
            if not stream.derived and view.get(stream_key(stream.namespace, stream.name)) is None:
                raise not_found(stream.namespace, stream.name)
            found = view.get(key)
            if found is None:
                self._refuse_too_many(stream)
                return [Change(topic=SUBSCRIPTION_CREATED, key=key, body=body, namespace=stream.namespace)]
            if found.settings != settings and (exact or not found.settings.agrees_with(config)):
                raise SubscriptionExists(f"subscription {name} is there with another configuration", name=name)
            return []

        if latest is not None:
            self._found[key] = latest
        try:
            written = await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        finally:
            self._found.pop(key, None)
        feed = self.feed(stream, name)
        if written.repeated:
            return feed, feed.created_revision == written.revision
        return feed, bool(written.records)

    async def check(self, stream: EventStream, settings: SubscriptionSettings, origin: Origin) -> None:
        """StreamNotFound for dead letters; InvalidArgument for a stream that would take its own, or lose some, and for
        webhooks that must not be; NotSupported where there are none."""
        if settings.webhook is not None:
            self._webhooks.check(settings.webhook)
        name = settings.dead_letter_stream
        if name == stream.name:
            raise InvalidArgument.of("config.dead_letter_stream", "another stream than the subscription's", name)
        if name and (await self._streams.get(stream.namespace, name, origin)).settings.compaction is not None:
            raise InvalidArgument.of("config.dead_letter_stream", "a stream that is not compacted", name)

    def _refuse_too_many(self, stream: EventStream) -> None:
        limit = self._config.subscriptions_per_stream_max
        if len(list(self._fold.subscriptions_of(stream.namespace, stream.name))) >= limit:
            raise LimitExceeded("subscriptions_per_stream_max", limit)

    async def delete(
        self, namespace: str, stream: str, name: str, origin: Origin, *, deadline_ns: int | None = None
    ) -> None:
        """Delete a subscription and what it has done. SubscriptionNotFound."""
        key = subscription_key(namespace, stream, name)
        body = control_pb2.SubscriptionDeleted().SerializeToString()

        def decide(view: View) -> Sequence[Change]:
            if view.get(key) is None:
                raise subscription_not_found(namespace, stream, name)
            return [Change(topic=SUBSCRIPTION_DELETED, key=key, body=body, namespace=namespace)]

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)

    def apply(self, record: Record, stream: EventStream | None) -> None:
        """A record about a subscription of an open stream was folded."""
        _, namespace, stream_name, name = record.key.split("/", 3)
        if stream is None:
            return
        feed = stream.feeds.get(name)
        if record.topic == SUBSCRIPTION_DELETED and feed is not None:
            del stream.feeds[name]
            self._checkpoints.forget(feed)
            self._dead_letters.forget(feed)
            feed.end(subscription_not_found(namespace, stream_name, name))
        entity = self._fold.subscription(namespace, stream_name, name)
        if record.topic == SUBSCRIPTION_UPDATED and feed is not None and entity is not None:
            self._dead_letters.forget(feed)
            feed.configure(entity.settings, self._bury(entity.settings))
            self._webhooks.change(feed, entity.settings.webhook)
        elif (
            record.topic == SUBSCRIPTION_CREATED
            and entity is not None
            and (feed is None or feed.created_revision != entity.created_revision)
        ):
            self._recover(stream, entity, None)

    # Using.

    def feed(self, stream: EventStream, name: str) -> Feed:
        """A subscription by name. SubscriptionNotFound."""
        feed = stream.feeds.get(name)
        if feed is None:
            raise subscription_not_found(stream.namespace, stream.name, name)
        return feed

    async def fetch(self, feed: Feed, *, max_events: int, max_bytes: int, wait_ns: int, client: str) -> list[bytes]:
        """Deliveries, encoded; waits for the first up to `wait_ns`. When this is cancelled, they are given back."""
        self.pulls += 1
        consumer = PullConsumer(-self.pulls, client=client, max_bytes=max_bytes or FETCH_BYTES_DEFAULT)
        feed.join(consumer, max_events or FETCH_EVENTS_DEFAULT)
        answered = False
        try:
            feed.pump()
            if not consumer.done.done():
                grace_ns = FETCH_GRACE_NS if feed.has_more else 0
                await asyncio.wait([consumer.done], timeout=max(wait_ns, grace_ns) / 1e9)
            if consumer.done.done():
                consumer.done.result()
            answered = True
        finally:
            if answered:
                feed.retire(consumer.id, consumer.left_over)
            else:
                consumer.done.cancel()
                feed.leave(consumer.id, clean=True)
        return consumer.pieces

    # Showing.

    def states(self, namespace: str, stream: str) -> list[events_pb2.SubscriptionState]:
        """The subscriptions of a stream, of a namespace, or of all, sorted."""
        shown: list[events_pb2.SubscriptionState] = []
        for entity in sorted(self._fold.subscriptions(), key=lambda entity: entity.key):
            if namespace in ("", entity.namespace) and stream in ("", entity.stream):
                shown.append(self.state(entity))
        return shown

    def state(self, entity: SubscriptionEntity) -> events_pb2.SubscriptionState:
        """What a subscription has done, for people."""
        shown = events_pb2.SubscriptionState(
            namespace=entity.namespace,
            stream=entity.stream,
            name=entity.name,
            config=entity.settings.shown(),
            floor=entity.offset,
            webhook=self._webhooks.state(entity),
        )
        stream = self._streams.peek(entity.namespace, entity.stream)
        feed = None if stream is None else stream.feeds.get(entity.name)
        if feed is not None:
            state = feed.state
            shown.floor = state.floor
            shown.in_flight = state.in_flight
            shown.lag = feed.lag
            shown.set_aside = len(state.set_aside)
            shown.held = state.held
            shown.consumers.extend(feed.clients())
            shown.redelivered = state.counts.redelivered
            shown.waiting = state.waiting
            shown.parked_lanes = state.parked
            shown.delivered = state.counts.delivered
            shown.done = state.counts.done
            shown.dead_lettered = state.counts.dead_lettered
            shown.expired = state.counts.expired
            shown.in_flight_by_consumer.update(feed.in_flight_by_client())
        return shown

    async def states_with_lag(self, namespace: str, stream: str) -> list[events_pb2.SubscriptionState]:
        """The same with how long ago the first event that is not done was appended."""
        shown = self.states(namespace, stream)
        for state in shown:
            await self.add_lag_time(state)
        return shown

    async def add_lag_time(self, state: events_pb2.SubscriptionState) -> None:
        """Say how long ago the event at the floor was appended, if one is behind."""
        stream = self._streams.peek(state.namespace, state.stream)
        if state.lag and stream is not None:
            block = await stream.dispatcher.block_of(state.floor)
            if block is not None and block.count:
                late_ns = max(0, self._clock.time_ns() - block.time_ns)
                state.lag_time.CopyFrom(convert.ms_to(late_ns // 1_000_000))

    def state_of(self, feed: Feed) -> events_pb2.SubscriptionState:
        """The same of a feed. SubscriptionNotFound if it was deleted meanwhile."""
        entity = self._fold.get(feed.key)
        if not isinstance(entity, SubscriptionEntity):
            _, namespace, stream, name = feed.key.split("/", 3)
            raise subscription_not_found(namespace, stream, name)
        return self.state(entity)


def subscription_not_found(namespace: str, stream: str, name: str) -> SubscriptionNotFound:
    """No such subscription."""
    return SubscriptionNotFound(f"no subscription {name} of stream {stream} in {namespace}", name=name)
