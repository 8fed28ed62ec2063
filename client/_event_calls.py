"""What a connection does with events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Unpack

from trunkline.api.formats import FORMS
from trunkline.api.v1 import events_pb2
from trunkline.api.v1.rules_pb2 import FORMAT_ID
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Sync

from ._connected import Connected
from ._event import Event
from ._publish import Published, named_events, publish
from ._publisher import Publisher
from ._pull import Fetched, PullPlace, fetch
from ._subscription import Gap, Subscription, SubscriptionSpec
from ._subscription_options import Start, SubscriptionOptions, seek_request, subscription_config, update_request
from ._subscriptions import Subscriptions


class EventCalls(Connected):
    """See Trunkline."""

    _subscriptions: Subscriptions

    async def publish(
        self, events: Event | Iterable[Event], *, stream: str = "events", require: Sync | None = None,
        expected_offset: int | None = None, timeout_s: float | None = None, namespace: str | None = None,
    ) -> Published:  # fmt: skip
        """Append events to one stream, all or none; returns when they are kept as the stream promises.

        Repeated with the same ids until `timeout_s` when the outcome is not known; the stream recognises repeats.
        `require` refuses a stream that promises less; `expected_offset`, if the first event would get another one
        (PositionMismatch: somebody else has published since you looked).
        """
        self._check_open()
        named = named_events(events, source=self._name, edge=self._edge)
        return await publish(
            self._link,
            named,
            namespace=namespace or self._namespace,
            stream=stream,
            require=require,
            timeout_s=timeout_s,
            expected_offset=expected_offset,
        )

    def publisher(
        self, *, stream: str = "events", require: Sync | None = None, in_flight_max: int = 10_000,
        timeout_s: float | None = None, namespace: str | None = None, producer: str | None = None, epoch: int | None = None,
    ) -> Publisher:  # fmt: skip
        """For many events: answers are not waited for one by one. At most `in_flight_max` events are unanswered.

        With a `producer`, a name that belongs to one publisher of the stream at a time, its events are numbered: appended
        once and in the order of the calls, whatever is repeated. The last to be opened fences those before it. That is
        told by `epoch`: give a larger one at each start, or leave it to the clock.
        """
        self._check_open()
        if producer is not None and not FORMS[FORMAT_ID].accepts(producer):
            raise InvalidArgument.of("producer", FORMS[FORMAT_ID].rule, producer)
        if epoch is not None and (producer is None or not 0 <= epoch < 1 << 63):
            raise InvalidArgument.of("epoch", "between 0 and 2^63 - 1, with a producer", epoch)
        publisher = Publisher(
            self._link,
            self._edge,
            self._new_backoff(),
            self._tasks,
            namespace=namespace or self._namespace,
            stream=stream,
            source=self._name,
            require=require,
            in_flight_max=in_flight_max,
            timeout_s=self._options.timeout_s if timeout_s is None else timeout_s,
            producer=producer,
            epoch=epoch,
        )
        self._owned(publisher)
        return publisher

    def subscribe(
        self, name: str | None = None, *, stream: str = "events", credit: int = 256, acknowledge: bool = True,
        on_gap: Callable[[Gap], None] | None = None, namespace: str | None = None, **options: Unpack[SubscriptionOptions],
    ) -> Subscription:  # fmt: skip
        """Deliveries of a stream's events: `async for delivery in trunkline.subscribe("billing"): ...; delivery.ack()`.

        With a `name` it is durable: consumers of one name share the work, and it goes on where it left off; without, it is
        this connection's alone. `options` say what it takes, where it begins, how often and in which order it delivers: see
        SubscriptionOptions. At most `credit` deliveries are unsettled here. `acknowledge=False` (ephemeral only) needs no word
        on deliveries. `on_gap` is told when events went missing.
        """
        self._check_open()
        if not 1 <= credit <= 1_000_000:
            raise InvalidArgument.of("credit", "between 1 and 1000000", credit)
        if name and not acknowledge:
            raise InvalidArgument.of("acknowledge", "True for a durable subscription", acknowledge)
        spec = SubscriptionSpec(
            namespace=namespace or self._namespace,
            stream=stream,
            name=name or "",
            config=subscription_config(options),
            credit=credit,
            acknowledge=acknowledge,
            client=self._name,
            on_gap=on_gap,
        )
        subscription = Subscription(self._subscriptions, spec, self._guard)
        self._subscriptions.open(subscription)
        return subscription

    async def fetch(
        self, name: str, *, stream: str = "events", max_events: int = 100, max_bytes: int = 0, wait_s: float = 0.0,
        namespace: str | None = None,
    ) -> Fetched:  # fmt: skip
        """Up to `max_events` deliveries of a durable subscription, waiting up to `wait_s` seconds for the first.

        Say what became of each, then `await fetched.settle()`; `async with` does that.
        """
        self._check_open()
        place = PullPlace(namespace or self._namespace, stream, name, self._name)
        return await fetch(self._link, place, max_events=max_events, max_bytes=max_bytes, wait_s=wait_s)

    async def update_subscription(
        self, name: str, *, stream: str = "events", namespace: str | None = None, **options: Unpack[SubscriptionOptions]
    ) -> None:
        """Change how a durable subscription delivers; what is not given stays, and so do its place and what is in flight.

        Filters hold for events that were not looked at yet. `ordering` and `key_attribute` stay as they were made, and `start`
        is for `seek`: InvalidArgument.
        """
        request = update_request(namespace or self._namespace, stream, name, options)
        await self.call(lambda stubs: stubs.events.UpdateSubscription, request, events_pb2.UpdateSubscriptionResponse)

    async def seek(self, name: str, to: Start, *, stream: str = "events", namespace: str | None = None) -> int:
        """Move a durable subscription ("earliest", "latest", "last_per_key", an offset, a time); gives the offset at which it
        stood.

        Everything before the place counts as done, nothing from it on does; with "last_per_key", all that is there but the
        latest event of each key.
        """
        request = seek_request(namespace or self._namespace, stream, name, to)
        answer = await self.call(
            lambda stubs: stubs.events.SeekSubscription, request, events_pb2.SeekSubscriptionResponse
        )
        return answer.old_floor
