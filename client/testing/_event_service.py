"""EventService over MemoryStream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from trunkline.api import convert
from trunkline.api.dead_letters import Subscribed, dead_letter
from trunkline.api.status import failure_to
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc
from trunkline.api.v1.events_pb2 import Delivery, SubscribeRequest, SubscribeResponse, SubscriptionNotice
from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, NotSupported, StreamNotFound, SubscriptionNotFound, TrunklineError
from trunkline.core.sequences import NumberedRun

from ._registry_service import answered
from ._streams import MemoryStream, MemorySubscription, Record, takes_of

STREAM_DEFAULT = "events"
DELIVERIES_PER_MESSAGE = 100
TOKEN_PREFIX = b"memory:"

Name = tuple[str, str]
"""Namespace and stream."""


class Consumer:
    """One open subscription of one connection."""

    def __init__(self, opened: events_pb2.OpenSubscription, subscription: MemorySubscription) -> None:
        self.id = opened.subscription_id
        self.subscription = subscription
        self.credit = opened.credit
        self.acknowledges = not opened.no_acknowledgement
        self.told_to = -1


class EventServicer(events_pb2_grpc.EventServiceServicer):
    """Publish, Subscribe, Fetch, Acknowledge, and the streams themselves."""

    def __init__(self, clock: Clock, header: Callable[[], common_pb2.ResponseHeader]) -> None:
        self._clock = clock
        self._header = header
        self.streams: dict[Name, MemoryStream] = {}
        self.durable: dict[tuple[str, str, str], MemorySubscription] = {}
        self.refuse: TrunklineError | None = None
        """What publishing is refused with, once."""
        self._listeners: set[asyncio.Event] = set()

    def stream(self, namespace: str, name: str) -> MemoryStream:
        """A stream; `events` is there from the beginning. StreamNotFound for another that was not made."""
        key = namespace, name or STREAM_DEFAULT
        if key not in self.streams:
            if key[1] != STREAM_DEFAULT:
                raise StreamNotFound(f"no stream {name} in namespace {namespace}")
            self.streams[key] = MemoryStream()
        return self.streams[key]

    def wake(self) -> None:
        """Something may be deliverable."""
        for listener in self._listeners:
            listener.set()

    def look_at_clock(self) -> None:
        """Deliveries whose deadline has passed come again."""
        for subscription in self.durable.values():
            subscription.overdue(self._clock.now_ns())
        self.wake()

    # Publishing.

    async def Publish(self, request: events_pb2.PublishRequest, context: Any) -> events_pb2.PublishResponse:
        async def answer() -> events_pb2.PublishResponse:
            return self._publish(request)

        return await answered(context, answer)

    async def PublishStream(
        self, request_iterator: AsyncIterator[events_pb2.PublishStreamRequest], context: Any
    ) -> AsyncIterator[events_pb2.PublishStreamResponse]:
        async for request in request_iterator:
            try:
                answer = self._publish(request)
            except TrunklineError as error:
                yield events_pb2.PublishStreamResponse(sequence=request.sequence, error=failure_to(error))
                continue
            yield events_pb2.PublishStreamResponse(
                header=answer.header,
                incarnation=answer.incarnation,
                durability=answer.durability,
                published=answer.published,
                sequence=request.sequence,
            )

    def _publish(
        self, request: events_pb2.PublishRequest | events_pb2.PublishStreamRequest
    ) -> events_pb2.PublishResponse:
        stream = self.stream(request.namespace, request.stream)
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error
        runs = self._append(stream, request)
        self.wake()
        return events_pb2.PublishResponse(
            header=self._header(),
            incarnation=stream.incarnation,
            durability=common_pb2.Durability(sync=common_pb2.SYNC_MEMORY, copies=1),
            published=runs,
        )

    def _append(
        self, stream: MemoryStream, request: events_pb2.PublishRequest | events_pb2.PublishStreamRequest
    ) -> list[events_pb2.PublishedRange]:
        events, time_ns = list(request.events), self._clock.time_ns()
        expected_offset = request.expected_offset if request.HasField("expected_offset") else None
        if request.producer:
            run = NumberedRun(0, len(events), request.producer, request.producer_epoch, request.first_sequence)
            return stream.append_numbered(run, events, time_ns=time_ns, expected_offset=expected_offset)
        if expected_offset is not None:
            stream.expect(events, expected_offset)
        return stream.append(events, time_ns=time_ns)

    # Pushing.

    async def Subscribe(
        self, request_iterator: AsyncIterator[SubscribeRequest], context: Any
    ) -> AsyncIterator[SubscribeResponse]:
        consumers: dict[int, Consumer] = {}
        notices: list[SubscriptionNotice] = []
        wake = asyncio.Event()
        reading = asyncio.get_running_loop().create_task(self._read(request_iterator, consumers, notices, wake))
        self._listeners.add(wake)
        try:
            while not reading.done():
                wake.clear()
                response = SubscribeResponse(header=self._header(), notices=notices)
                notices.clear()
                for consumer in consumers.values():
                    self._deliver(consumer, response)
                if response.notices or response.deliveries:
                    yield response
                else:
                    await wake.wait()
        finally:
            self._listeners.discard(wake)
            ended = reading.done() and not reading.cancelled() and reading.exception() is None
            reading.cancel()
            for consumer in consumers.values():
                self._leave(consumer, clean=ended)

    async def _read(
        self,
        requests: AsyncIterator[SubscribeRequest],
        consumers: dict[int, Consumer],
        notices: list[SubscriptionNotice],
        wake: asyncio.Event,
    ) -> None:
        async for request in requests:
            if request.HasField("open"):
                notices.append(self._open(request.open, consumers))
            for word in request.acknowledgements:
                if word.subscription_id in consumers:
                    self._settle(consumers[word.subscription_id].subscription, word)
            for given in request.credits:
                if given.subscription_id in consumers:
                    consumers[given.subscription_id].credit += given.credit
            closed = consumers.pop(request.close.subscription_id, None) if request.HasField("close") else None
            if closed is not None:
                self._leave(closed, clean=True)
                ended = SubscriptionNotice.KIND_ENDED
                notices.append(SubscriptionNotice(subscription_id=request.close.subscription_id, kind=ended))
            self.wake()
        wake.set()

    def _open(self, opened: events_pb2.OpenSubscription, consumers: dict[int, Consumer]) -> SubscriptionNotice:
        try:
            return self._opened(opened, self.stream(opened.namespace, opened.stream), consumers)
        except TrunklineError as error:
            return SubscriptionNotice(
                subscription_id=opened.subscription_id, kind=SubscriptionNotice.KIND_ENDED, error=failure_to(error)
            )

    def _opened(
        self, opened: events_pb2.OpenSubscription, stream: MemoryStream, consumers: dict[int, Consumer]
    ) -> SubscriptionNotice:
        if opened.name:
            key = opened.namespace, opened.stream or STREAM_DEFAULT, opened.name
            if key not in self.durable:
                self._make_durable(key, stream, opened.config)
            subscription = self.durable[key]
        elif opened.config.dead_letter_stream:
            name = opened.config.dead_letter_stream
            raise InvalidArgument.of("open.config.dead_letter_stream", "only with a name", name)
        else:
            subscription = self._new_subscription(stream, opened.config, opened.resume_token)
        consumer = consumers[opened.subscription_id] = Consumer(opened, subscription)
        return self._mark(consumer, SubscriptionNotice.KIND_OPENED)

    def _new_subscription(
        self, stream: MemoryStream, config: events_pb2.SubscriptionConfig, token: bytes
    ) -> MemorySubscription:
        if config.HasField("webhook"):
            raise NotSupported("a control plane for tests has no webhooks")
        takes = takes_of(config)
        incarnation, offset = stream.incarnation, stream.start(config.start)
        if token.startswith(TOKEN_PREFIX):
            incarnation, offset = map(int, token.removeprefix(TOKEN_PREFIX).split(b":"))
        subscription = MemorySubscription(stream, config, takes, incarnation, offset)
        if config.start.last_per_key and not token:
            subscription.latest, subscription.latest_below = stream.latest_per_key(takes), stream.next_offset
        return subscription

    def _make_durable(
        self, key: tuple[str, str, str], stream: MemoryStream, config: events_pb2.SubscriptionConfig
    ) -> None:
        namespace, name, subscription = key
        made = self._new_subscription(stream, config, b"")
        if config.dead_letter_stream:
            if config.dead_letter_stream == name:
                raise InvalidArgument.of("config.dead_letter_stream", "another stream than the subscription's", name)
            target = self.stream(namespace, config.dead_letter_stream)
            by = Subscribed(namespace, name, subscription, self._header().revision)
            made.bury = lambda record, attempts, reason: self._bury(by, stream, target, record, attempts, reason)
        self.durable[key] = made

    def _bury(
        self, by: Subscribed, stream: MemoryStream, target: MemoryStream, record: Record, attempts: int, reason: str
    ) -> None:
        event, time_ns = events_pb2.CloudEvent(), self._clock.time_ns()
        event.CopyFrom(record.event)
        letter = dead_letter(
            event,
            by,
            incarnation=stream.incarnation,
            offset=record.offset,
            attempts=attempts,
            reason=reason,
            time_ns=time_ns,
        )
        target.append([letter], time_ns=time_ns)

    def _mark(
        self, consumer: Consumer, kind: SubscriptionNotice.Kind.ValueType, old: tuple[int, int] = (0, 0)
    ) -> SubscriptionNotice:
        subscription = consumer.subscription
        consumer.told_to = subscription.next_offset
        return SubscriptionNotice(
            subscription_id=consumer.id,
            kind=kind,
            resume_token=TOKEN_PREFIX + b"%d:%d" % (subscription.incarnation, subscription.next_offset)
            if subscription.next_offset >= subscription.latest_below
            else b"",
            incarnation=subscription.incarnation,
            next_offset=subscription.next_offset,
            old_incarnation=old[0],
            old_offset=old[1],
        )

    def _deliver(self, consumer: Consumer, response: SubscribeResponse) -> None:
        subscription, sent = consumer.subscription, 0
        gap = subscription.gap()
        if gap is not None:
            response.notices.append(self._mark(consumer, SubscriptionNotice.KIND_GAP, gap))
            return
        while consumer.credit and sent < DELIVERIES_PER_MESSAGE:
            taken = subscription.take(consumer, now_ns=self._clock.now_ns())
            if taken is None:
                break
            record, attempt = taken
            consumer.credit -= 1
            sent += 1
            response.deliveries.append(
                Delivery(
                    subscription_id=consumer.id,
                    credit=consumer.credit,
                    attempt=attempt,
                    offset=record.offset,
                    time_ns=record.time_ns,
                    event=record.event,
                )
            )
            if not consumer.acknowledges:
                del subscription.open[record.offset]
        if subscription.next_offset > consumer.told_to and response.ByteSize():
            response.notices.append(self._mark(consumer, SubscriptionNotice.KIND_BOOKMARK))

    def _leave(self, consumer: Consumer, *, clean: bool) -> None:
        consumer.subscription.give_back(consumer, clean=clean, now_ns=self._clock.now_ns())
        self.wake()

    def _settle(self, subscription: MemorySubscription, word: events_pb2.Acknowledgement) -> list[int]:
        not_open = [
            offset
            for offset in word.offsets
            if not subscription.settle(
                offset,
                word.outcome,
                delay_ms=convert.ms_from(word, "delay", 0) if word.HasField("delay") else None,
                reason=word.reason,
                now_ns=self._clock.now_ns(),
            )
        ]
        self.wake()
        return not_open

    # Pulling.

    async def Fetch(self, request: events_pb2.FetchRequest, context: Any) -> events_pb2.FetchResponse:
        async def answer() -> events_pb2.FetchResponse:
            subscription = self._durable(request.namespace, request.stream, request.subscription)
            deliveries = self._fetch(subscription, request)
            with suppress(TimeoutError):
                async with asyncio.timeout(convert.ms_from(request, "wait", 0) / 1_000):
                    while not deliveries:
                        await self._woken()
                        deliveries = self._fetch(subscription, request)
            return events_pb2.FetchResponse(header=self._header(), deliveries=deliveries)

        return await answered(context, answer)

    async def _woken(self) -> None:
        wake = asyncio.Event()
        self._listeners.add(wake)
        try:
            await wake.wait()
        finally:
            self._listeners.discard(wake)

    def _fetch(self, subscription: MemorySubscription, request: events_pb2.FetchRequest) -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < (request.max_events or 100):
            found = subscription.take(self, now_ns=self._clock.now_ns())
            if found is None:
                break
            record, attempt = found
            taken.append(Delivery(attempt=attempt, offset=record.offset, time_ns=record.time_ns, event=record.event))
        return taken

    async def Acknowledge(self, request: events_pb2.AcknowledgeRequest, context: Any) -> events_pb2.AcknowledgeResponse:
        async def answer() -> events_pb2.AcknowledgeResponse:
            subscription = self._durable(request.namespace, request.stream, request.subscription)
            not_open = [offset for word in request.acknowledgements for offset in self._settle(subscription, word)]
            return events_pb2.AcknowledgeResponse(header=self._header(), not_open=not_open)

        return await answered(context, answer)

    def _durable(self, namespace: str, stream: str, name: str) -> MemorySubscription:
        found = self.durable.get((namespace, stream or STREAM_DEFAULT, name))
        if found is None:
            raise SubscriptionNotFound(f"no subscription {name}")
        return found

    # Streams and subscriptions.

    async def CreateStream(
        self, request: events_pb2.CreateStreamRequest, context: Any
    ) -> events_pb2.CreateStreamResponse:
        key = request.stream.namespace, request.stream.name
        created = key not in self.streams
        self.streams.setdefault(key, MemoryStream())
        state = events_pb2.StreamState(config=request.stream)
        return events_pb2.CreateStreamResponse(header=self._header(), stream=state, created=created)

    async def CreateSubscription(
        self, request: events_pb2.CreateSubscriptionRequest, context: Any
    ) -> events_pb2.CreateSubscriptionResponse:
        async def answer() -> events_pb2.CreateSubscriptionResponse:
            stream = self.stream(request.namespace, request.stream)
            key = request.namespace, request.stream or STREAM_DEFAULT, request.name
            created = key not in self.durable
            if created:
                self._make_durable(key, stream, request.config)
            return events_pb2.CreateSubscriptionResponse(header=self._header(), created=created)

        return await answered(context, answer)
