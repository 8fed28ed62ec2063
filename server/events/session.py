"""One client's Subscribe stream: many subscriptions, opened, given credit, acknowledged and closed by messages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, LimitExceeded, TrunklineError
from trunkline.core.settlements import Settlement
from trunkline.server.journal.control.sequencer import Origin

from . import notices
from .consumer import PushConsumer
from .feed import Feed
from .latest import LatestPerKey
from .order import Ordering
from .outlet import Outlet
from .settings import SubscriptionSettings
from .stream import EventStream
from .streams import Streams
from .subscription import SubscriptionState
from .subscriptions import Subscriptions
from .tap import Tap

SUBSCRIPTIONS_PER_SESSION_MAX = 1_000


class OpenOne(Protocol):
    """A subscription that is open on the stream."""

    def add_credit(self, credit: int) -> None: ...
    def settle(self, acknowledgement: events_pb2.Acknowledgement) -> None: ...
    def done(self, offsets: Sequence[int]) -> None:
        """What `settle` does with an acknowledgement that says no more."""

    def bookmark(self) -> None:
        """Tell how far it is, if it can be resumed by a token."""

    def wake(self) -> None:
        """The client takes more again."""

    def close(self, *, clean: bool) -> None:
        """The client has closed it (`clean`), or its stream broke."""


class Session:
    """Lives as long as the stream. `allow` raises PermissionDenied unless the caller may subscribe to these filters (None: to
    what the request names, in its namespace);
    `makes_streams` says whether a default stream that is not there yet is made for it."""

    def __init__(
        self,
        streams: Streams,
        subscriptions: Subscriptions,
        clock: Clock,
        outlet: Outlet,
        origin: Origin,
        *,
        allow: Callable[[events_pb2.OpenSubscription, Sequence[str] | None], None],
        makes_streams: bool,
        consumer_ids: Callable[[], int],
    ) -> None:
        self._streams = streams
        self._subscriptions = subscriptions
        self._clock = clock
        self._outlet = outlet
        self._origin = origin
        self._allow = allow
        self._makes_streams = makes_streams
        self._consumer_ids = consumer_ids
        self._open: dict[int, OpenOne] = {}

    def take(self, request: events_pb2.SubscribeRequest | Settlement) -> Coroutine[Any, Any, None] | None:
        """Do what a message says, or give what is to be awaited before the next one is taken.

        InvalidArgument ends the stream; what concerns one subscription ends that one.
        """
        if isinstance(request, Settlement):
            self._settle(request)
        elif request.HasField("open"):
            return self._open_first(request)
        else:
            self._handle(request)
        return None

    async def _open_first(self, request: events_pb2.SubscribeRequest) -> None:
        await self._handle_open(request.open)
        self._handle(request)

    def _settle(self, settlement: Settlement) -> None:
        for subscription_id, offsets in settlement.done:
            found = self._open.get(subscription_id)
            if found is not None:
                found.done(offsets)
        for subscription_id, credit in settlement.credits:
            found = self._open.get(subscription_id)
            if found is not None:
                found.add_credit(credit)

    def _handle(self, request: events_pb2.SubscribeRequest) -> None:
        for acknowledgement in request.acknowledgements:
            found = self._open.get(acknowledgement.subscription_id)
            if found is not None:
                found.settle(acknowledgement)
        for credit in request.credits:
            found = self._open.get(credit.subscription_id)
            if found is not None:
                found.add_credit(credit.credit)
        if request.HasField("close"):
            found = self._open.pop(request.close.subscription_id, None)
            if found is not None:
                found.close(clean=True)
                self._outlet.offer(notices.ended(request.close.subscription_id, None))

    async def _handle_open(self, request: events_pb2.OpenSubscription) -> None:
        subscription_id = request.subscription_id
        if subscription_id in self._open:
            raise InvalidArgument.of("open.subscription_id", "is open on this stream already", subscription_id)
        if len(self._open) >= SUBSCRIPTIONS_PER_SESSION_MAX:
            raise LimitExceeded("subscriptions_per_session_max", SUBSCRIPTIONS_PER_SESSION_MAX)
        try:
            self._allow(request, None)  # before anything is made or told
            stream = await self._streams.get(request.namespace, request.stream, self._origin, make=self._makes_streams)
            if request.name:
                await self._open_durable(request, stream)
            else:
                await self._open_ephemeral(request, stream)
        except TrunklineError as error:
            self._ended(subscription_id, error)

    async def _open_durable(self, request: events_pb2.OpenSubscription, stream: EventStream) -> None:
        if request.resume_token:
            raise InvalidArgument.of("open.resume_token", "only without a name", request.name)
        if request.no_acknowledgement:
            raise InvalidArgument.of("open.no_acknowledgement", "only without a name", request.name)
        known = stream.feeds.get(request.name)
        self._allow(request, known.settings.filters if known is not None else request.config.filters)
        if request.HasField("config"):
            feed, _ = await self._subscriptions.create(stream, request.name, request.config, self._origin, exact=False)
        else:
            feed = self._subscriptions.feed(stream, request.name)
        self._consume(request, stream, feed, token=b"", next_offset=feed.state.floor)

    def _consume(
        self, request: events_pb2.OpenSubscription, stream: EventStream, feed: Feed, *, token: bytes, next_offset: int
    ) -> PushConsumer:
        subscription_id = request.subscription_id
        consumer = PushConsumer(
            self._consumer_ids(),
            self._outlet,
            subscription_id=subscription_id,
            client=request.client or self._origin.author,
            on_end=lambda: self._forget(subscription_id, consumer),
        )
        self._outlet.offer(
            notices.opened(subscription_id, incarnation=stream.incarnation, next_offset=next_offset, token=token)
        )
        self._open[subscription_id] = _OpenFeed(
            feed, consumer, stream, self._outlet, subscription_id, ephemeral=not request.name
        )
        feed.join(consumer, request.credit)
        return consumer

    def _forget(self, subscription_id: int, consumer: PushConsumer) -> None:
        found = self._open.get(subscription_id)
        if isinstance(found, _OpenFeed) and found.consumer is consumer:
            del self._open[subscription_id]
            found.forget()

    async def _open_ephemeral(self, request: events_pb2.OpenSubscription, stream: EventStream) -> None:
        settings = SubscriptionSettings.of(request.config)
        if settings.dead_letter_stream:
            raise InvalidArgument.of("open.config.dead_letter_stream", "only with a name", settings.dead_letter_stream)
        if request.no_acknowledgement and settings.ordering is not Ordering.PARALLEL:
            # Order is kept by waiting for acknowledgements.
            raise InvalidArgument.of("open.no_acknowledgement", "only without an ordering", settings.ordering.name)
        if settings.webhook is not None:
            raise InvalidArgument.of("open.config.webhook", "only with a name", "a webhook")
        self._allow(request, settings.filters)
        gap: tuple[int, int] | None = None
        latest: LatestPerKey | None = None
        if request.resume_token:
            position, gap = stream.resume(request.resume_token)
        else:
            position, latest = await self._subscriptions.begin(stream, request.config.start, settings)
        if request.no_acknowledgement:
            self._open_tap(request, stream, settings, position, latest)
        else:
            state = SubscriptionState(settings.limits(durable=False), incarnation=stream.incarnation, position=position)
            state.latest_below = 0 if latest is None else latest.below
            feed = Feed(stream.dispatcher, state, self._clock, key="", settings=settings, latest=latest)
            feed.open()
            token = stream.token(state.incarnation, position) if latest is None else b""
            self._consume(request, stream, feed, token=token, next_offset=position)
        if gap is not None:
            new = (stream.incarnation, position)
            self._outlet.offer(notices.gap(request.subscription_id, old=gap, new=new))

    def _open_tap(
        self,
        request: events_pb2.OpenSubscription,
        stream: EventStream,
        settings: SubscriptionSettings,
        position: int,
        latest: LatestPerKey | None,
    ) -> None:
        subscription_id, incarnation = request.subscription_id, stream.incarnation

        def moved(old: tuple[int, int], new: tuple[int, int]) -> None:
            self._outlet.offer(notices.gap(subscription_id, old=old, new=new))

        def failed(error: TrunklineError) -> None:
            found = self._open.pop(subscription_id, None)
            if found is not None:
                found.close(clean=False)
            self._ended(subscription_id, error)

        tap = Tap(
            stream.dispatcher,
            self._outlet,
            self._clock,
            subscription_id=subscription_id,
            filters=settings.filters,
            attribute_filters=settings.attribute_filters,
            place=(incarnation, position),
            on_gap=moved,
            on_failure=failed,
            latest=latest,
        )
        self._outlet.offer(
            notices.opened(
                subscription_id,
                incarnation=incarnation,
                next_offset=position,
                token=stream.token(incarnation, position) if latest is None else b"",
            )
        )
        self._open[subscription_id] = _OpenTap(tap, stream, self._outlet, subscription_id)
        tap.credit = request.credit
        tap.open()

    def _ended(self, subscription_id: int, error: TrunklineError) -> None:
        self._outlet.offer(notices.ended(subscription_id, error))

    def bookmark(self) -> None:
        """Tell the client how far its ephemeral subscriptions are."""
        for found in self._open.values():
            found.bookmark()

    def wake(self) -> None:
        """The client takes more again."""
        for found in list(self._open.values()):
            found.wake()

    def close(self, *, clean: bool) -> None:
        """The stream is over; `clean` if the client ended it."""
        while self._open:
            _, found = self._open.popitem()
            found.close(clean=clean)


class _OpenFeed:
    """A durable subscription that this client consumes, or an ephemeral one of its own."""

    def __init__(
        self,
        feed: Feed,
        consumer: PushConsumer,
        stream: EventStream,
        outlet: Outlet,
        subscription_id: int,
        *,
        ephemeral: bool,
    ) -> None:
        self.consumer = consumer
        self._feed = feed
        self._stream = stream
        self._outlet = outlet
        self._subscription_id = subscription_id
        self._ephemeral = ephemeral

    def add_credit(self, credit: int) -> None:
        self._feed.add_credit(self.consumer.id, credit)

    def settle(self, acknowledgement: events_pb2.Acknowledgement) -> None:
        self._feed.acknowledge(acknowledgement, self.consumer.id)

    def done(self, offsets: Sequence[int]) -> None:
        self._feed.settle(events_pb2.Acknowledgement.OUTCOME_ACK, offsets, self.consumer.id)

    def bookmark(self) -> None:
        incarnation, floor = self._feed.state.incarnation, self._feed.state.floor
        # Before, a token would not say that of each key only the latest is taken: who has none begins so anew.
        if self._ephemeral and floor >= self._feed.state.latest_below:
            self._outlet.offer(
                notices.bookmark(
                    self._subscription_id,
                    incarnation=incarnation,
                    next_offset=floor,
                    token=self._stream.token(incarnation, floor),
                )
            )

    def wake(self) -> None:
        self._feed.wake()

    def close(self, *, clean: bool) -> None:
        self._feed.leave(self.consumer.id, clean=clean)
        self.forget()

    def forget(self) -> None:
        """Its consumer has left it: an ephemeral one has nobody else."""
        if self._ephemeral:
            self._feed.close()


class _OpenTap:
    """An ephemeral subscription without acknowledgements."""

    def __init__(self, tap: Tap, stream: EventStream, outlet: Outlet, subscription_id: int) -> None:
        self._tap = tap
        self._stream = stream
        self._outlet = outlet
        self._subscription_id = subscription_id

    def add_credit(self, credit: int) -> None:
        self._tap.add_credit(credit)

    def settle(self, acknowledgement: events_pb2.Acknowledgement) -> None:
        """Nothing is open here: it is ignored."""

    def done(self, offsets: Sequence[int]) -> None:
        """The same."""

    def bookmark(self) -> None:
        if self._tap.latest is not None:  # see _OpenFeed
            return
        incarnation, position = self._tap.incarnation, self._tap.position
        self._outlet.offer(
            notices.bookmark(
                self._subscription_id,
                incarnation=incarnation,
                next_offset=position,
                token=self._stream.token(incarnation, position),
            )
        )

    def wake(self) -> None:
        self._tap.add_credit(0)

    def close(self, *, clean: bool) -> None:
        self._tap.close()
