"""EventService on grpc.aio. Requests are checked and callers known before they come here, but for what is scanned."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any

import grpc

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.api.v1.events_pb2_grpc import EventServiceServicer
from trunkline.core.settlements import Settlement
from trunkline.core.wire import Scan
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.journal.control.requests import request_id_by
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.security.principal import EVERY_TOPIC, Principal, Resource, Verb, authorize
from trunkline.server.transport.sink import SinkConfig, sink_of

from .bus import EventBus
from .delivery import Settled
from .explain import explain
from .feed import Feed
from .operations import copied, redeliver, seek, set_aside
from .publishing import Publishing
from .settings import DEFAULT_STREAM
from .stream import EventStream

Context = grpc.aio.ServicerContext[Any, Any]


class EventService(EventServiceServicer):
    """Thin: converts, asks the bus, converts back. `namespaces` names those that are known besides the streams'."""

    def __init__(
        self,
        bus: EventBus,
        publishing: Publishing,
        header: Callable[[], common_pb2.ResponseHeader],
        sink_config: SinkConfig,
        *,
        namespaces: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._bus = bus
        self._header = header
        self._sink_config = sink_config
        # Answers to publishes say each their own: two of them must not become one message.
        self._answers_config = dataclasses.replace(sink_config, message_bytes_max=1)
        self._publishing = publishing
        self._namespaces = namespaces

    # Publishing.

    async def Publish(self, data: bytes, context: Context) -> bytes:  # type: ignore[override]
        principal = principal_of(context)
        return await self._publishing.publish(data, Origin(author=principal.name), may_publish(principal))

    async def PublishStream(self, requests: AsyncIterable[bytes], context: Context) -> None:  # type: ignore[override]
        principal = principal_of(context)
        async with sink_of(context, self._answers_config) as sink:
            await self._publishing.publish_stream(requests, sink, Origin(author=principal.name), may_publish(principal))

    # Consuming.

    async def Subscribe(  # type: ignore[override]
        self, requests: AsyncIterable[events_pb2.SubscribeRequest | Settlement], context: Any
    ) -> None:
        principal = principal_of(context)
        async with sink_of(context, self._sink_config) as sink:
            session = self._bus.open_session(
                sink,
                Origin(author=principal.name),
                allow=_may_subscribe(principal),
                makes_streams=principal.may(Verb.PUBLISH),
            )
            clean = False
            try:
                await context.answer_each(requests, session.take)
                clean = True
            finally:
                self._bus.close_session(session, clean=clean)

    async def Fetch(self, request: events_pb2.FetchRequest, context: Context) -> bytes:  # type: ignore[override]
        _, feed = await self._feed(request, context)
        pieces = await self._bus.subscriptions.fetch(
            feed,
            max_events=request.max_events,
            max_bytes=request.max_bytes,
            wait_ns=convert.ms_from(request, "wait", 0) * 1_000_000,
            client=request.client or principal_of(context).name,
        )
        return b"".join([events_pb2.FetchResponse(header=self._header()).SerializeToString(), *pieces])

    async def Acknowledge(
        self, request: events_pb2.AcknowledgeRequest, context: Context
    ) -> events_pb2.AcknowledgeResponse:
        _, feed = await self._feed(request, context)
        response = events_pb2.AcknowledgeResponse()
        lists = {
            Settled.LATE: response.late,
            Settled.REPEATED: response.repeated_offsets,
            Settled.NEVER_SENT: response.never_sent,
        }
        for acknowledgement in request.acknowledgements:
            for offset, settled in feed.acknowledge(acknowledgement, None):
                response.not_open.append(offset)
                lists[settled].append(offset)
        if request.sync:
            await self._bus.checkpoints.write_now([feed])
        response.header.CopyFrom(self._header())
        return response

    async def _feed(self, request: Any, context: Context) -> tuple[EventStream, Feed]:
        """The subscription that a request names, if the caller may consume what it takes."""
        principal = principal_of(context)
        stream = await self._bus.streams.get(request.namespace, request.stream, Origin(author=principal.name))
        feed = self._bus.subscriptions.feed(stream, request.subscription)
        authorize(principal, Verb.CONSUME, Resource(request.namespace, feed.settings.filters or EVERY_TOPIC))
        return stream, feed

    # Streams.

    async def CreateStream(
        self, request: events_pb2.CreateStreamRequest, context: Context
    ) -> events_pb2.CreateStreamResponse:
        origin = _origin(context, request)
        stream, created = await self._bus.streams.create(request.stream, origin, deadline_ns=deadline_ns_of(context))
        state = stream.state(copies=self._bus.streams.promise.copies)
        return events_pb2.CreateStreamResponse(header=self._header(), stream=state, created=created)

    async def UpdateStream(
        self, request: events_pb2.UpdateStreamRequest, context: Context
    ) -> events_pb2.UpdateStreamResponse:
        stream = await self._bus.updates.stream(request, _origin(context, request), deadline_ns=deadline_ns_of(context))
        state = stream.state(copies=self._bus.streams.promise.copies)
        return events_pb2.UpdateStreamResponse(header=self._header(), stream=state)

    async def ListStreams(
        self, request: events_pb2.ListStreamsRequest, context: Context
    ) -> events_pb2.ListStreamsResponse:
        sees = principal_of(context).sees
        states = self._bus.streams.states(request.namespace, self._namespaces())
        return events_pb2.ListStreamsResponse(
            header=self._header(), streams=[state for state in states if sees(state.config.namespace)]
        )

    async def DeleteStream(
        self, request: events_pb2.DeleteStreamRequest, context: Context
    ) -> events_pb2.DeleteStreamResponse:
        origin = _origin(context, request)
        await self._bus.streams.delete(request.namespace, request.stream, origin, deadline_ns=deadline_ns_of(context))
        return events_pb2.DeleteStreamResponse(header=self._header())

    # Subscriptions.

    async def CreateSubscription(
        self, request: events_pb2.CreateSubscriptionRequest, context: Context
    ) -> events_pb2.CreateSubscriptionResponse:
        origin = _origin(context, request)
        stream = await self._bus.streams.get(request.namespace, request.stream, origin)
        config = request.config
        if request.copy_of:
            config = copied(request, self._bus.subscriptions.feed(stream, request.copy_of))
            authorize(principal_of(context), Verb.CONSUME, Resource(request.namespace, config.filters or EVERY_TOPIC))
        _may_fill_dead_letters(principal_of(context), request.namespace, config)
        feed, created = await self._bus.subscriptions.create(
            stream, request.name, config, origin, deadline_ns=deadline_ns_of(context)
        )
        return events_pb2.CreateSubscriptionResponse(
            header=self._header(), subscription=self._bus.subscriptions.state_of(feed), created=created
        )

    async def UpdateSubscription(
        self, request: events_pb2.UpdateSubscriptionRequest, context: Context
    ) -> events_pb2.UpdateSubscriptionResponse:
        _may_fill_dead_letters(principal_of(context), request.namespace, request.config)
        feed = await self._bus.updates.subscription(
            request, _origin(context, request), deadline_ns=deadline_ns_of(context)
        )
        return events_pb2.UpdateSubscriptionResponse(
            header=self._header(), subscription=self._bus.subscriptions.state_of(feed)
        )

    async def ListSubscriptions(
        self, request: events_pb2.ListSubscriptionsRequest, context: Context
    ) -> events_pb2.ListSubscriptionsResponse:
        sees = principal_of(context).sees
        states = await self._bus.subscriptions.states_with_lag(request.namespace, request.stream)
        return events_pb2.ListSubscriptionsResponse(
            header=self._header(), subscriptions=[state for state in states if sees(state.namespace)]
        )

    async def DeleteSubscription(
        self, request: events_pb2.DeleteSubscriptionRequest, context: Context
    ) -> events_pb2.DeleteSubscriptionResponse:
        origin = _origin(context, request)
        await self._bus.subscriptions.delete(
            request.namespace,
            request.stream or DEFAULT_STREAM,
            request.name,
            origin,
            deadline_ns=deadline_ns_of(context),
        )
        return events_pb2.DeleteSubscriptionResponse(header=self._header())

    async def ListSetAside(
        self, request: events_pb2.ListSetAsideRequest, context: Context
    ) -> events_pb2.ListSetAsideResponse:
        stream, feed = await self._feed(request, context)
        found = await set_aside(stream, feed, max_events=request.max_events, from_offset=request.from_offset)
        return events_pb2.ListSetAsideResponse(header=self._header(), events=found)

    async def ReleaseSetAside(
        self, request: events_pb2.ReleaseSetAsideRequest, context: Context
    ) -> events_pb2.ReleaseSetAsideResponse:
        _, feed = await self._feed(request, context)
        return events_pb2.ReleaseSetAsideResponse(header=self._header(), released=feed.release(request.offsets))

    async def RedeliverEvents(
        self, request: events_pb2.RedeliverEventsRequest, context: Context
    ) -> events_pb2.RedeliverEventsResponse:
        stream, feed = await self._feed(request, context)
        found = await redeliver(
            stream,
            feed,
            request.offsets,
            self._bus.checkpoints,
            self._bus.dead_letters,
            incarnation=request.incarnation,
        )
        return events_pb2.RedeliverEventsResponse(
            header=self._header(), redelivered=len(found.again), not_kept=found.not_kept, not_done=found.not_done
        )

    async def SeekSubscription(
        self, request: events_pb2.SeekSubscriptionRequest, context: Context
    ) -> events_pb2.SeekSubscriptionResponse:
        stream, feed = await self._feed(request, context)
        old_floor = await seek(stream, feed, request.to, self._bus.subscriptions, self._bus.checkpoints)
        state = self._bus.subscriptions.state_of(feed)
        return events_pb2.SeekSubscriptionResponse(header=self._header(), subscription=state, old_floor=old_floor)

    async def ExplainSubscription(
        self, request: events_pb2.ExplainSubscriptionRequest, context: Context
    ) -> events_pb2.ExplainSubscriptionResponse:
        stream, feed = await self._feed(request, context)
        state = self._bus.subscriptions.state_of(feed)
        await self._bus.subscriptions.add_lag_time(state)
        return events_pb2.ExplainSubscriptionResponse(
            header=self._header(), subscription=state, findings=explain(feed, self._bus.moment(stream, feed))
        )


def _origin(context: Context, request: Any) -> Origin:
    author = principal_of(context).name
    return Origin(author=author, request_id=request_id_by(author, request))


def _allow_all(_scan: Scan) -> None:
    pass


def may_publish(principal: Principal) -> Callable[[Scan], None]:
    """Raises unless the principal may publish what was scanned: Unauthenticated, PermissionDenied."""
    if principal.may_everything:
        return _allow_all

    def allow(scan: Scan) -> None:
        authorize(principal, Verb.PUBLISH, Resource(scan.namespace, scan.topics))

    return allow


def _may_subscribe(principal: Principal) -> Callable[[events_pb2.OpenSubscription, Sequence[str] | None], None]:
    """Reading for an ephemeral subscription, consuming for a durable one, of every topic that its filters take."""

    def allow(request: events_pb2.OpenSubscription, filters: Sequence[str] | None) -> None:
        verb = Verb.CONSUME if request.name else Verb.READ
        topics = request.config.filters if filters is None else filters or EVERY_TOPIC
        authorize(principal, verb, Resource(request.namespace, topics))
        _may_fill_dead_letters(principal, request.namespace, request.config)

    return allow


def _may_fill_dead_letters(principal: Principal, namespace: str, config: events_pb2.SubscriptionConfig) -> None:
    """Whoever names a stream for dead letters publishes to it, whatever topics they will have."""
    if config.dead_letter_stream:
        authorize(principal, Verb.PUBLISH, Resource(namespace, EVERY_TOPIC))
