"""The connection to a control plane: what users hold."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2
from trunkline.core.model import (
    NO_LABELS,
    WEIGHT_DEFAULT,
    Declared,
    Endpoint,
    GrpcHealthCheck,
    Instance,
    Locality,
    RegisteredInstance,
    Sync,
)
from trunkline.core.selector import Selector

from ._advertise import advertised, endpoints_of
from ._answering import Answering
from ._backoff import Backoff
from ._balancer import LoadBalancing
from ._channel import BalancedChannel, ChannelOptions, SentCall
from ._chooser import Chooser
from ._edge import Edge
from ._event import Event
from ._fork import ForkGuard
from ._lease import LeaseKeeper
from ._link import Calling, Link, Stubs
from ._options import ClientOptions
from ._publish import Published, named_events, publish
from ._publisher import Publisher
from ._pull import Fetched, PullPlace, fetch
from ._registration import Registration, Terms, declared_of
from ._requests import RequestCounts, Requests
from ._start import Ordering, Start, subscription_config
from ._subscription import Gap, Subscription, SubscriptionSpec
from ._subscriptions import Subscriptions
from ._tasks import Tasks
from ._view import View
from ._view_cache import ViewCache
from ._watches import Watches

Answer = TypeVar("Answer")


class Trunkline:
    """One connection.

    Not thread-safe: it belongs to the event loop in which it was entered (`connect_sync` serves threads).
    """

    def __init__(
        self, edge: Edge, options: ClientOptions, *, namespace: str, name: str, token: str | None = None,
        cache: ViewCache | None = None, target: str = "",
    ) -> None:  # fmt: skip
        self._edge = edge
        self._options = options
        self._namespace = namespace
        self._name = name
        self._target = target
        self._guard = ForkGuard()
        self._tasks = Tasks()
        self._cache = cache
        self._link = Link(edge, options, self._tasks, token=token)
        self._keeper = LeaseKeeper(self._link, edge.rng, self._new_backoff())
        self._watches = Watches(self._link, edge.clock, self._new_backoff(), options, client=name, cache=cache)
        self._subscriptions = Subscriptions(self._link, self._new_backoff())
        self._requests = Requests(self._link, edge, self._tasks, source=name, requests_max=options.requests_max)
        self._registrations: set[Registration] = set()
        self._closers: set[Publisher | BalancedChannel] = set()
        self._open = False
        self._closed = False

    @property
    def namespace(self) -> str:
        """Of every call that names no other."""
        return self._namespace

    @property
    def name(self) -> str:
        """Who this client says it is."""
        return self._name

    @property
    def guard(self) -> ForkGuard:
        """Which process it belongs to."""
        return self._guard

    @property
    def target(self) -> str:
        """Where the control plane is."""
        return self._target

    async def __aenter__(self) -> Self:
        self._guard.check()
        if self._open or self._closed:
            raise RuntimeError("a connection is entered once")
        self._open = True
        self._tasks.spawn(self._keeper.run(), name="lease keeper")
        self._tasks.spawn(self._watches.run(), name="watches")
        self._tasks.spawn(self._subscriptions.run(), name="subscriptions")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drain and end registrations, wait for publishers' answers, give deliveries back, hang up. Idempotent."""
        if self._closed or not self._open:
            self._closed = True
            return
        self._guard.check()
        try:
            await asyncio.gather(*(registration.close() for registration in self._registrations))
            await asyncio.gather(*(closer.close() for closer in list(self._closers)))
            await self._subscriptions.close_all()
            await self._subscriptions.flushed()
            if self._cache is not None:
                await self._cache.flush()
            for view in self._watches.views:
                view.close()
        finally:
            self._closed = True
            await self._tasks.close()
            await self._link.close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_open", False) and not self._closed and not self._guard.forked:
            _warn(f"unclosed connection to {self._target}", ResourceWarning, source=self, stacklevel=2)

    # Registration.

    async def register(
        self, service: str, *, port: int | None = None, host: str = "", endpoints: Sequence[Endpoint | str] = (),
        protocol: str = "grpc", id: str = "", version: str = "", labels: Mapping[str, str] = NO_LABELS,
        region: str = "", zone: str = "", weight: int = WEIGHT_DEFAULT, declared: Declared | str = Declared.SERVING,
        health_check: GrpcHealthCheck | None = None, ttl_s: float = 10.0, take_over: bool = False,
        drain_on_exit: bool = True, drain_limit_s: float | None = None, namespace: str | None = None,
    ) -> Registration:  # fmt: skip
        """Register an instance of `service` and keep it alive until the registration, or the connection, is closed.

        Give `port`, or `endpoints` ("host:port" texts or Endpoints). Where no host is given, it is the address from
        which the control plane is reached; a wildcard address is refused, loopback too unless the control plane is on
        loopback. `id` is random if empty. Without a keep-alive for `ttl_s` seconds (1 to 300) the lease lapses. An `id`
        that is alive under another holder is InstanceAlive, unless `take_over`. At the end the instance is drained
        first, unless `drain_on_exit` is false; `drain_limit_s` bounds the wait for watchers.
        """
        self._check_open()
        limit_s = self._options.drain_limit_s if drain_limit_s is None else drain_limit_s
        terms = Terms(
            ttl_ms=int(ttl_s * 1_000), take_over=take_over, drain_on_exit=drain_on_exit, drain_limit_s=limit_s
        )
        given = endpoints_of(endpoints, host=host, port=port, protocol=protocol)
        instance = Instance(
            namespace=namespace or self._namespace,
            service=service,
            id=id or f"{service}-{self._edge.entropy(5).hex()}",
            endpoints=await advertised(given, self._edge.addresses),
            version=version,
            weight=weight,
            locality=Locality(region, zone),
            labels=dict(labels),
            declared=declared_of(declared),
            health_check=health_check,
        )
        registration = Registration(
            self._link, self._keeper, self._tasks, self._edge, instance=instance, terms=terms, options=self._options
        )
        await registration.open()
        self._registrations = {one for one in self._registrations if not one.ended} | {registration}
        return registration

    # Discovery.

    async def watch(
        self, service: str = "", *, selector: Selector | None = None, namespace: str | None = None,
        timeout_s: float | None = None,
    ) -> View:  # fmt: skip
        """A live view of a service, or of every service of the namespace if `service` is empty.

        Returns with its first state: the control plane's, or, when that is not reached, the cache folder's. Raises what
        the control plane refuses the watch with, or Unreachable when there is neither within `timeout_s`.
        """
        self._check_open()
        view = View(
            namespace=namespace or self._namespace,
            service=service,
            selector=selector or Selector(),
            clock=self._edge.clock,
            changes_max=self._options.changes_max,
            close=self._watches.close,
        )
        self._watches.open(view)
        await self._watches.first_state(view, within_s=self._options.timeout_s if timeout_s is None else timeout_s)
        return view

    async def channel(
        self, service: str, *, load_balancing: LoadBalancing = "round_robin", hash_header: str = "",
        selector: Selector | None = None, protocol: str = "grpc", connect_timeout_s: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None, namespace: str | None = None,
        timeout_s: float | None = None, on_call: Callable[[SentCall], None] | None = None,
    ) -> BalancedChannel:  # fmt: skip
        """A channel that generated stubs take; every call goes to an instance of its own choice. Raises what `watch`
        does.

        See ChannelOptions for what the options mean; `credentials` are for TLS to the instances; `on_call` is told of
        every call that was sent, when it has ended: where it went, its status, how long it took.
        """
        options = ChannelOptions(
            load_balancing=load_balancing,
            hash_header=hash_header,
            protocol=protocol,
            connect_timeout_s=connect_timeout_s,
        )
        view = await self.watch(service, selector=selector, namespace=namespace, timeout_s=timeout_s)
        dial = partial(self._dial_instance, credentials)
        edge = self._edge
        channel = BalancedChannel(view, dial, edge.rng, self._guard, options, clock=edge.clock, on_call=on_call)
        self._owned(channel)
        return channel

    def _dial_instance(self, credentials: grpc.ChannelCredentials | None, address: str) -> grpc.aio.Channel:
        return self._edge.dial_instance(address, credentials)

    async def chooser(
        self, service: str, *, protocol: str, load_balancing: LoadBalancing = "round_robin",
        selector: Selector | None = None, namespace: str | None = None, timeout_s: float | None = None,
    ) -> Chooser:  # fmt: skip
        """Picks endpoints for protocols other than gRPC: `with chooser.choose() as choice: ...

        choice.endpoint.address`.
        """
        view = await self.watch(service, selector=selector, namespace=namespace, timeout_s=timeout_s)
        return Chooser(view, self._edge.rng, self._guard, load_balancing=load_balancing, protocol=protocol)

    async def resolve(
        self, service: str, *, selector: Selector | None = None, namespace: str | None = None
    ) -> tuple[RegisteredInstance, ...]:
        """The instances of a service that match, now; for one question. To keep asking, `watch`."""
        answer = await self.call(
            lambda stubs: stubs.discovery.Resolve,
            discovery_pb2.ResolveRequest(
                namespace=namespace or self._namespace,
                service=service,
                selector=convert.selector_to(selector or Selector()),
            ),
            discovery_pb2.ResolveResponse,
        )
        return tuple(convert.registered_from(instance) for instance in answer.instances)

    # Events.

    async def publish(
        self, events: Event | Iterable[Event], *, stream: str = "events", require: Sync | None = None,
        timeout_s: float | None = None, namespace: str | None = None,
    ) -> Published:  # fmt: skip
        """Append events to one stream, all or none; returns when they are kept as the stream promises.

        Repeated with the same ids until `timeout_s` when the outcome is not known; the stream recognises repeats.
        `require` refuses a stream that promises less.
        """
        self._check_open()
        named = named_events(events, source=self._name, edge=self._edge)
        place = namespace or self._namespace
        return await publish(self._link, named, namespace=place, stream=stream, require=require, timeout_s=timeout_s)

    def publisher(
        self, *, stream: str = "events", require: Sync | None = None, in_flight_max: int = 10_000,
        timeout_s: float | None = None, namespace: str | None = None,
    ) -> Publisher:  # fmt: skip
        """For many events: answers are not waited for one by one. At most `in_flight_max` events are unanswered."""
        self._check_open()
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
        )
        self._owned(publisher)
        return publisher

    def subscribe(
        self, name: str | None = None, *, filters: Iterable[str] = (), stream: str = "events", credit: int = 256,
        start: Start = "latest", ack_deadline_s: float | None = None, max_deliveries: int = 0, max_in_flight: int = 0,
        ordering: Ordering = "parallel", key_attribute: str = "", acknowledge: bool = True,
        on_gap: Callable[[Gap], None] | None = None, namespace: str | None = None,
    ) -> Subscription:  # fmt: skip
        """Deliveries of a stream's events: `async for delivery in trunkline.subscribe("billing"): ...; delivery.ack()`.

        With a `name` it is durable: consumers of one name share the work, and it goes on where it left off; without, it is
        this connection's alone. `filters` are topics with `*` for one word and a final `>` for the rest. At most `credit`
        deliveries are unsettled here. `start` ("earliest", "latest", an offset, a time) is where a new one begins.
        `ack_deadline_s`, `max_deliveries` and `max_in_flight` are the server's defaults unless given. `ordering` "sequential"
        delivers one event at a time over all consumers, "keyed" one of each value of `key_attribute` (else "partitionkey").
        `acknowledge=False` (ephemeral only) needs no word on deliveries. `on_gap` is told when events went missing.
        """
        self._check_open()
        limits = ack_deadline_s, max_deliveries, max_in_flight
        config = subscription_config(filters, start, ordering, key_attribute, *limits)
        spec = SubscriptionSpec(
            namespace=namespace or self._namespace,
            stream=stream,
            name=name or "",
            config=config,
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

    async def request(
        self, event: Event, *, stream: str = "events", timeout_s: float | None = None, namespace: str | None = None
    ) -> Event:
        """Publish the event and return the reply of whoever serves it (`serve_requests`).

        Raises what its handler raised (RequestFailed for other than TrunklineErrors), DeadlineExceeded without a reply.
        """
        self._check_open()
        limit_s = self._options.timeout_s if timeout_s is None else timeout_s
        place = namespace or self._namespace, stream
        return await self._requests.request(event, place, self.subscribe, timeout_s=limit_s)

    @property
    def request_counts(self) -> RequestCounts:
        """Requests sent, replied to, and replies that came too late."""
        return self._requests.counts

    async def serve_requests(
        self, filters: Iterable[str], handler: Callable[[Event], Awaitable[Event]], *, name: str, stream: str = "events",
        concurrency: int = 16, ack_deadline_s: float | None = None, namespace: str | None = None,
    ) -> None:  # fmt: skip
        """Handle requests whose topic one of `filters` takes, at most `concurrency` at a time, until cancelled.

        Who serves by one `name` shares the work: it is a durable subscription. What the handler returns is the reply; what
        it raises, is raised at who asked. A request past its deadline is not handled; a handler still at it is cancelled.
        """
        subscription = self.subscribe(
            name, filters=filters, stream=stream, credit=concurrency, ack_deadline_s=ack_deadline_s, namespace=namespace
        )
        replies = partial(self.publish, stream=stream, namespace=namespace)
        await subscription.consume(Answering(handler, replies, self._edge.clock).handle, concurrency=concurrency)

    # Everything else.

    async def call(
        self, method: Callable[[Stubs], Calling], request: Any, answer: type[Answer], *, timeout_s: float | None = None
    ) -> Answer:
        """Any unary call of the contract, repeated until `timeout_s` while the control plane is away, errors as our
        classes.

        `await trunkline.call(lambda stubs: stubs.admin.Status, StatusRequest(), StatusResponse)`
        """
        self._check_open()
        return await self._link.call(method, request, answer, timeout_s=timeout_s)

    def _check_open(self) -> None:
        self._guard.check()
        if not self._open or self._closed:
            raise RuntimeError("the connection is not open: use it inside `async with connect(...) as trunkline`")

    def _owned(self, closer: Publisher | BalancedChannel) -> None:
        self._closers = {one for one in self._closers if not one.closed} | {closer}

    def _new_backoff(self) -> Backoff:
        return Backoff(self._options.backoff, self._edge.rng)
