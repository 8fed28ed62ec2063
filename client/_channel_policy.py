"""What a channel keeps for its policy: guards, outlier detection, and the way of an attempt to an endpoint."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.core.breaker import Outcome, Snapshot, State
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import Unreachable
from trunkline.core.policy import PLAIN, Destination, Policy, StatusCode

from ._attempts import PREVIOUS_ATTEMPTS_KEY
from ._balancer import Balancer, Candidate
from ._channel_options import ChannelOptions, ChannelPolicyState, SentCall
from ._guards import Guards
from ._multicallable import Method, Rpc
from ._outliers import Outliers
from ._rpc import NotSent, number_of
from ._subchannel import Subchannel
from ._tasks import Tasks
from ._tries import Ask, Sent
from ._way import Route


class OtherChannel(Protocol):
    """A channel of another service, of which `BalancedChannel` has these."""

    def method_for(self, rpc: Rpc) -> Method: ...
    async def close(self, grace: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a channel has of the connection that it belongs to."""

    open_service: Callable[[str], Awaitable[OtherChannel]] | None = None
    """A channel of another service of the namespace, with its own policy."""
    report: Callable[[SentCall, int], None] | None = None
    """Told of each attempt that was sent, when it has ended, with its status code."""
    reports_all: bool = False
    """It is told so even of services that the control plane has said nothing of."""


ALONE = Surroundings()


class Finder(Protocol):
    """The channel."""

    async def find(
        self, route: Route, metadata: Any, *, timeout_s: float | None, wait_for_ready: bool
    ) -> tuple[Candidate, Subchannel, float | None]: ...

    def begun(self, candidate: Candidate, subchannel: Subchannel, call: Any, sent: Sent | None = None) -> None: ...

    def choose_again(self) -> None: ...


class ChannelPolicy:
    """See the module. `Caller` of the channel's calls."""

    def __init__(
        self, finder: Finder, tasks: Tasks, options: ChannelOptions, rng: Rng, clock: Clock, *, service: str,
        surroundings: Surroundings,
    ) -> None:  # fmt: skip
        self.options = options
        self.rng = rng
        self.clock = clock
        self.guards = Guards(PLAIN, service=service, caller=options.caller, now_ns=clock.now_ns())
        self.needed = options.fallback is not None
        """A call is more than a pick."""
        self._reports = surroundings.report if surroundings.reports_all else None
        self._finder = finder
        self._tasks = tasks
        self._surroundings = surroundings
        self._outliers = Outliers(rng, clock, tasks, finder.choose_again)
        self._others: dict[str, asyncio.Task[OtherChannel]] = {}
        self._raw: WeakKeyDictionary[Rpc, Rpc] = WeakKeyDictionary()

    @property
    def observes(self) -> bool:
        """Attempts that have ended are of interest here."""
        return self._reports is not None or self._outliers.on

    # The policy.

    def adopt(self, policy: Policy, *, managed: bool) -> None:
        """What holds from now on. What did not change keeps its state. `managed`: the control plane has said something."""
        self._reports = self._surroundings.report if managed or self._surroundings.reports_all else None
        if policy == self.guards.policy:
            return
        self.guards.set_policy(policy, self.clock.now_ns())
        self.needed = self.guards.needed or self.options.fallback is not None
        self._outliers.adopt(policy.outlier_detection)

    def set_hosts(self, candidates: Sequence[Candidate]) -> None:
        """Those that there are now."""
        self._outliers.set_hosts(candidates)

    def why_ejected(self, candidate: Candidate) -> str:
        """Empty when it is not."""
        return self._outliers.why(candidate)

    def state(self, balancer: Balancer) -> ChannelPolicyState:
        """See ChannelPolicyState."""
        guards, counts, now_ns = self.guards, self.guards.counts, self.clock.now_ns()
        candidates = balancer.candidates
        breakers = {one.endpoint.address: snapshot_of(balancer.endpoint_breaker(one), now_ns) for one in candidates}
        return ChannelPolicyState(
            policy=guards.policy,
            in_flight=guards.in_flight,
            breaker=snapshot_of(balancer.breaker, now_ns),
            endpoint_breakers={address: breaker for address, breaker in breakers.items() if breaker is not None},
            ejected={one.endpoint.address: why for one in candidates if (why := self._outliers.why(one))},
            counts=replace(
                counts,
                refused=counts.refused.copy(), stopped=counts.stopped.copy(), fallbacks=counts.fallbacks.copy(),
            ),
        )  # fmt: skip

    def caller_states(self, balancer: Balancer, service: str) -> list[CallerState]:
        """Breakers that let not all calls through, and ejected instances."""
        now_ns = self.clock.now_ns()
        found = [told(service, "", snapshot_of(balancer.breaker, now_ns), "")]
        for one in balancer.candidates:
            breaker = snapshot_of(balancer.endpoint_breaker(one), now_ns)
            found.append(told(service, one.instance.instance.id, breaker, self._outliers.why(one)))
        return [state for state in found if state is not None]

    # Attempts.

    def ask(
        self, rpc: Rpc, request: Any, timeout_s: float | None, metadata: Any, options: dict[str, Any], depth: int
    ) -> Ask:
        """What the caller asks for, within the policy's timeout or the caller's own shorter one."""
        limit_s = self.guards.policy.timeout_ns / 1e9
        if limit_s and (timeout_s is None or limit_s < timeout_s):
            timeout_s = limit_s
        given = None if metadata is None else tuple(metadata)
        return Ask(rpc, None if rpc.streams_in else request, given, options, timeout_s=timeout_s, depth=depth)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """See Caller."""
        return self._tasks.spawn(work, name=name)

    async def send(
        self, ask: Ask, before: int, *, tried: set[Candidate], timeout_s: float | None, subset: str = ""
    ) -> Sent:
        """See Caller."""
        # What stands in for a call that limits or breakers refused does not ask them again.
        destination = Destination(subset=subset) if subset else None
        route = Route(avoid=tried, destination=destination, earlier=ask.destination, guarded=not subset)
        try:
            candidate, subchannel, limit_s = await self._finder.find(
                route, ask.metadata, timeout_s=_shorter(ask.left_s(), timeout_s),
                wait_for_ready=bool(ask.options["wait_for_ready"]),
            )  # fmt: skip
        finally:
            ask.destination = route.earlier
        # An attempt's own time ends a stream only while it has not answered, so that gRPC is not told of it.
        seconds = ask.left_s() if ask.method.streams_out else limit_s
        try:
            call = _sent_to(subchannel, ask, before, seconds)
        except BaseException:
            if route.ticket is not None:
                route.ticket.end(Outcome.CANCELLED)
            raise
        sent = Sent(candidate, call, route.ticket, self.guards)
        self._finder.begun(candidate, subchannel, call, sent)
        return sent

    def not_connected(self, candidate: Candidate) -> None:
        """The endpoint could not be connected."""
        self._outliers.record(candidate, StatusCode.UNAVAILABLE, local_origin=True)

    def observe(self, candidate: Candidate, sent: SentCall, *, connected: bool) -> None:
        """An attempt has ended. One that was cancelled says nothing."""
        code = number_of(sent.code)
        if code is StatusCode.CANCELLED:
            return
        lost = code is StatusCode.UNAVAILABLE and not connected
        self._outliers.record(candidate, code, local_origin=lost)
        if self._reports is not None:
            self._reports(sent, code)

    # Other services.

    async def method_of(self, service: str, method: Rpc) -> Method:
        """See Caller. Channels are opened when they are first needed, and closed with this one."""
        open_service = self._surroundings.open_service
        if open_service is None:
            raise NotSent(grpc.StatusCode.UNAVAILABLE, Unreachable(f"no way to {service} from here"))
        opening = self._others.get(service)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            opening = self._others[service] = self.spawn(_opened(open_service, service), name=f"channel to {service}")
        raw = self._raw.get(method)
        if raw is None:
            raw = self._raw[method] = method.raw()
        return (await asyncio.shield(opening)).method_for(raw)

    async def close(self, grace: float | None) -> None:
        """Close the channels of other services."""
        for opening in self._others.values():
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                await opening.result().close(grace)


async def _opened(open_service: Callable[[str], Awaitable[OtherChannel]], service: str) -> OtherChannel:
    return await open_service(service)


def _sent_to(subchannel: Subchannel, ask: Ask, before: int, timeout_s: float | None) -> Any:
    method = subchannel.method(ask.method, ask.method.make_raw)
    metadata = ask.metadata
    if before:
        metadata = (*(metadata or ()), (PREVIOUS_ATTEMPTS_KEY, str(before)))
    request = ask.request if ask.buffer is None else ask.buffer.requests()
    return method(request, timeout=timeout_s, metadata=metadata, **ask.options)


def _shorter(one_s: float | None, other_s: float | None) -> float | None:
    if one_s is None or other_s is None:
        return one_s if other_s is None else other_s
    return min(one_s, other_s)


def told(service: str, instance_id: str, breaker: Snapshot | None, ejected: str) -> CallerState | None:
    """What the control plane is told of a breaker and an ejection; None when both are as usual."""
    state = CallerState(service=service, instance_id=instance_id, ejected=ejected.removeprefix("ejected: "))
    if breaker is not None:
        state.breaker = CallerState.Breaker.ValueType(breaker.state)
        state.rejection_percent = math.ceil(breaker.rejection_rate or 0)
    usual = breaker is None or breaker.state is State.CLOSED
    return None if usual and not state.rejection_percent and not ejected else state


def snapshot_of(breaker: Any, now_ns: int) -> Snapshot | None:
    """Of a breaker; None without one."""
    found: Snapshot | None = None if breaker is None else breaker.snapshot(now_ns)
    return found
