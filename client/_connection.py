"""The connection to a control plane: what users hold."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2
from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.core.errors import InvalidArgument
from trunkline.core.localities import NOWHERE
from trunkline.core.model import (
    NO_LABELS,
    TTL_MS_MAX,
    TTL_MS_MIN,
    WEIGHT_DEFAULT,
    Declared,
    Endpoint,
    GrpcHealthCheck,
    Instance,
    Locality,
    RegisteredInstance,
)
from trunkline.core.policy import Codes, Policy
from trunkline.core.selector import Selector

from ._advertise import advertised, endpoints_of
from ._balancer import LoadBalancing
from ._channel import BalancedChannel
from ._channel_options import FALLBACK_CODES, ChannelOptions, FallbackFunction, SentCall
from ._channel_policy import Surroundings
from ._chooser import Chooser
from ._edge import Edge
from ._lease import LeaseKeeper
from ._options import ClientOptions
from ._outcomes import Key, OutcomeCounts, Outcomes
from ._policy_calls import PolicyCalls
from ._registration import Registration, Terms, declared_of
from ._release_calls import ReleaseCalls
from ._request_calls import RequestCalls
from ._requests import Requests
from ._schedule_calls import ScheduleCalls
from ._subscriptions import Subscriptions
from ._view import View
from ._view_cache import ViewCache
from ._watches import Watches

Answer = TypeVar("Answer")


class Trunkline(RequestCalls, ScheduleCalls, PolicyCalls, ReleaseCalls):
    """One connection.

    Not thread-safe: it belongs to the event loop in which it was entered (`connect_sync` serves threads).
    """

    def __init__(
        self, edge: Edge, options: ClientOptions, *, namespace: str, name: str, token: str | None = None,
        cache: ViewCache | None = None, target: str = "", locality: Locality = NOWHERE,
    ) -> None:  # fmt: skip
        super().__init__(edge, options, namespace=namespace, name=name, token=token, target=target)
        self._cache = cache
        self._locality = locality
        self._keeper = LeaseKeeper(self._link, edge.rng, self._new_backoff())
        self._watches = Watches(self._link, edge.clock, self._new_backoff(), options, client=name, cache=cache)
        self._subscriptions = Subscriptions(self._link, self._new_backoff())
        self._requests = Requests(self._link, edge, self._tasks, source=name, requests_max=options.requests_max)
        self._registrations: set[Registration] = set()
        self._outcomes = Outcomes(
            self._link, edge.rng, interval_s=options.report_interval_s, caller=self._own_service, client=name,
            states=self._caller_states,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        self._guard.check()
        if self._open or self._closed:
            raise RuntimeError("a connection is entered once")
        self._open = True
        self._tasks.spawn(self._keeper.run(), name="lease keeper")
        self._tasks.spawn(self._watches.run(), name="watches")
        self._tasks.spawn(self._subscriptions.run(), name="subscriptions")
        self._reporting = self._tasks.spawn(self._outcomes.run(), name="outcomes")
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
            self._reporting.cancel()
            await self._outcomes.flush()
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
        ttl_ms = int(ttl_s * 1_000)
        if not TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX:
            raise InvalidArgument.of("ttl_s", f"between {TTL_MS_MIN / 1_000:g} and {TTL_MS_MAX / 1_000:g}", ttl_s)
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
        limit_s = self._options.drain_limit_s if drain_limit_s is None else drain_limit_s
        terms = Terms(ttl_ms=ttl_ms, take_over=take_over, drain_on_exit=drain_on_exit, drain_limit_s=limit_s)
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
        await self._watches.first_state(view, self._options.timeout_s if timeout_s is None else timeout_s)
        return view

    async def channel(
        self, service: str, *, load_balancing: LoadBalancing | None = None, hash_header: str = "",
        selector: Selector | None = None, protocol: str = "grpc", connect_timeout_s: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None, namespace: str | None = None,
        timeout_s: float | None = None, on_call: Callable[[SentCall], None] | None = None,
        policy: Policy | None = None, fallback: FallbackFunction | None = None, fallback_on: Codes = FALLBACK_CODES,
    ) -> BalancedChannel:  # fmt: skip
        """A channel that generated stubs take; every call goes to an instance of its own choice. Raises what `watch`
        does.

        See ChannelOptions for what the options mean; `credentials` are for TLS to the instances; `on_call` is told of
        every attempt that was sent, when it has ended: where it went, its status, how long it took.
        """
        options = ChannelOptions(
            load_balancing=load_balancing, hash_header=hash_header, protocol=protocol,
            connect_timeout_s=connect_timeout_s, locality=self._locality, caller=self._name, policy=policy,
            fallback=fallback, fallback_on=fallback_on,
        )  # fmt: skip
        view = await self.watch(service, selector=selector, namespace=namespace, timeout_s=timeout_s)
        edge, where = self._edge, view.namespace
        another = partial(
            self.channel, protocol=protocol, connect_timeout_s=connect_timeout_s, credentials=credentials,
            namespace=where, on_call=on_call,
        )  # fmt: skip
        channel = BalancedChannel(
            view, partial(self._dial_instance, credentials), edge.rng, self._guard, options, clock=edge.clock,
            on_call=on_call,
            surroundings=Surroundings(
                open_service=another,
                report=partial(self._report, where) if self._options.report_outcomes != "never" else None,
                reports_all=self._options.report_outcomes == "always",
            ),
        )  # fmt: skip
        self._owned(channel)
        return channel

    def _report(self, namespace: str, sent: SentCall, code: int) -> None:
        instance = sent.instance.instance
        key = Key(instance.service, instance.id, instance.version, code)
        self._outcomes.count(namespace, key, sent.ended_ns - sent.sent_ns)

    def _caller_states(self) -> dict[str, list[CallerState]]:
        """What the channels make of those they call, where that is not as usual; by namespace."""
        found: dict[str, list[CallerState]] = {}
        if self._options.report_outcomes == "never":
            return found
        for channel in self._closers:
            if isinstance(channel, BalancedChannel) and (states := channel.caller_states()):
                found.setdefault(channel.view.namespace, []).extend(states)
        return found

    def _own_service(self) -> str:
        """What calls: the service that is registered here, if one is."""
        return next((one.instance.service for one in self._registrations), "")

    @property
    def outcome_counts(self) -> OutcomeCounts:
        """Calls that the control plane was told of, and those that it was not."""
        return self._outcomes.counts

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
        return Chooser(
            view, self._edge.rng, self._guard, load_balancing=load_balancing, protocol=protocol, clock=self._edge.clock,
            locality=self._locality, caller=self._name,
        )  # fmt: skip

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
