"""A channel that generated stubs take, and that balances every call over a live view."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.core.breakers import make_breaker
from trunkline.core.clock import Clock, Rng
from trunkline.core.policy import PLAIN

from ._balancer import Balancer, Candidate
from ._changes import Change
from ._channel_options import ChannelOptions, ChannelPolicyState, EndpointState, SentCall
from ._channel_policy import ALONE, ChannelPolicy, Surroundings, snapshot_of
from ._finder import EndpointFinder
from ._fork import ForkGuard
from ._multicallable import Method, Rpc
from ._policy_call import (
    PolicyCall,
    PolicyStreamStreamCall,
    PolicyStreamUnaryCall,
    PolicyUnaryStreamCall,
    PolicyUnaryUnaryCall,
)
from ._rpc import NotSent, code_of
from ._subchannel import Subchannel
from ._tasks import Tasks
from ._tries import Sent
from ._view import View
from ._waiting_call import (
    WaitingCall,
    WaitingStreamStreamCall,
    WaitingStreamUnaryCall,
    WaitingUnaryStreamCall,
    WaitingUnaryUnaryCall,
)
from ._way import Route

log = logging.getLogger("trunkline.client")

WAITING_CALLS: dict[str, type[WaitingCall]] = {
    "unary_unary": WaitingUnaryUnaryCall,
    "unary_stream": WaitingUnaryStreamCall,
    "stream_unary": WaitingStreamUnaryCall,
    "stream_stream": WaitingStreamStreamCall,
}
POLICY_CALLS: dict[str, type[PolicyCall]] = {
    "unary_unary": PolicyUnaryUnaryCall,
    "unary_stream": PolicyUnaryStreamCall,
    "stream_unary": PolicyStreamUnaryCall,
    "stream_stream": PolicyStreamStreamCall,
}


class BalancedChannel(grpc.aio.Channel):
    """One subchannel per endpoint, connected when first picked, kept connected, and closed after its last call.

    A refused or lost connection takes its endpoint out of the picker at once, until it stands again. A call whose
    endpoint could not be connected has not left and goes to another one, at most once to each, within its deadline. What
    was sent is sent again only if the service's policy says so.
    """

    def __init__(
        self,
        view: View,
        dial: Callable[[str], grpc.aio.Channel],
        rng: Rng,
        guard: ForkGuard,
        options: ChannelOptions,
        *,
        clock: Clock,
        on_call: Callable[[SentCall], None] | None = None,
        surroundings: Surroundings = ALONE,
    ) -> None:
        """`on_call` is told of every call when it has ended; what it raises is logged, and no affair of the call's."""
        self._view = view
        self._clock = clock
        self._on_call = on_call
        self._dial = dial
        self._guard = guard
        self._options = options
        self._tasks = Tasks()
        self._balancer = Balancer(
            PLAIN, options.protocol, rng, clock=clock, where=options.locality, caller=options.caller,
            make_breaker=lambda settings: make_breaker(settings, rng, clock.now_ns()),
        )  # fmt: skip
        self._subchannels: dict[Candidate, Subchannel] = {}
        self._retired: set[Subchannel] = set()  # of endpoints that are gone, until their last call has ended
        self._closed = False
        self._policy = ChannelPolicy(
            self, self._tasks, options, rng, clock, service=view.service, surroundings=surroundings
        )
        self._finder = EndpointFinder(
            self._balancer, options, self._policy, service=view.service, check_open=self._check_open,
            subchannel_of=self._subchannel,
        )  # fmt: skip
        self._adopt_policy()
        self._stop_listening = view.listen(self._view_changed)

    @property
    def view(self) -> View:
        """The live view that it balances over."""
        return self._view

    @property
    def closed(self) -> bool:
        """It takes no more calls."""
        return self._closed

    def endpoints(self) -> list[EndpointState]:
        """Every endpoint and why it is picked or not."""
        left_out = self._balancer.left_out()
        return [
            EndpointState(
                instance_id=one.instance.instance.id,
                address=one.endpoint.address,
                status=one.instance.status,
                picked=one not in left_out,
                why=left_out.get(one, ""),
                calls_in_flight=one.active,
                breaker=snapshot_of(self._balancer.endpoint_breaker(one), self._clock.now_ns()),
            )
            for one in self._balancer.candidates
        ]

    def policy_state(self) -> ChannelPolicyState:
        """The policy that holds, breakers, ejections, and counts."""
        return self._policy.state(self._balancer)

    def caller_states(self) -> list[CallerState]:
        """What it makes of the service and its instances, where that is not as usual; none once it is closed."""
        return [] if self._closed else self._policy.caller_states(self._balancer, self._view.service)

    # The view.

    def _adopt_policy(self) -> None:
        said = self._view.policy
        policy = self._options.over(said)
        if policy != self._balancer.policy:
            self._balancer.set_policy(policy)
        self._policy.adopt(policy, managed=said.revision > 0)

    def _view_changed(self, change: Change) -> None:
        self._adopt_policy()
        for gone in self._balancer.update(self._view.instances):
            subchannel = self._subchannels.pop(gone, None)
            if subchannel is not None:
                subchannel.retire()
                if subchannel.calls:
                    self._retired.add(subchannel)
        self._policy.set_hosts(self._balancer.candidates)
        self._finder.tell()

    def _endpoint_changed(self, candidate: Candidate, why: str) -> None:
        self._balancer.set_out(candidate, why)
        self._finder.tell()

    # Endpoints for calls.

    def _subchannel(self, candidate: Candidate) -> Subchannel:
        subchannel = self._subchannels.get(candidate)
        if subchannel is None:
            dial = partial(self._dial, candidate.endpoint.address)
            subchannel = Subchannel(dial, self._tasks, partial(self._endpoint_changed, candidate))
            self._subchannels[candidate] = subchannel
        return subchannel

    def choose_endpoint(self, metadata: Any) -> tuple[Candidate | None, Subchannel | None]:
        """See Endpoints."""
        self._check_open()
        candidate = self._balancer.pick(metadata=metadata)
        subchannel = None if candidate is None else self._subchannels.get(candidate)
        return candidate, subchannel if subchannel is not None and subchannel.ready else None

    async def find_endpoint(
        self, chosen: Candidate | None, metadata: Any, *, timeout_s: float | None, wait_for_ready: bool
    ) -> tuple[Candidate, Subchannel, float | None]:
        """See Endpoints."""
        route = Route(chosen)
        try:
            return await self.find(route, metadata, timeout_s=timeout_s, wait_for_ready=wait_for_ready)
        except NotSent as error:
            raise error.error from None

    async def find(
        self, route: Route, metadata: Any, *, timeout_s: float | None, wait_for_ready: bool
    ) -> tuple[Candidate, Subchannel, float | None]:
        """See EndpointFinder."""
        return await self._finder.find(route, metadata, timeout_s=timeout_s, wait_for_ready=wait_for_ready)

    def begun(self, candidate: Candidate, subchannel: Subchannel, call: Any, sent: Sent | None = None) -> None:
        """See Endpoints. `sent` is what a call with a policy knows of it."""
        if sent is None or not sent.counted:
            self._balancer.begun(candidate)
        subchannel.begun()
        call.add_done_callback(partial(self._ended, candidate, subchannel, self._clock.now_ns(), sent))

    def _ended(self, candidate: Candidate, subchannel: Subchannel, sent_ns: int, known: Sent | None, call: Any) -> None:
        code = code_of(call)
        if known is not None:
            code = known.told(code)
        if known is None or not known.counted:
            self._balancer.ended(candidate)
        if code is grpc.StatusCode.UNAVAILABLE:
            subchannel.suspect()
        subchannel.ended()
        if not subchannel.calls:
            self._retired.discard(subchannel)
        if self._on_call is None and not self._policy.observes:
            return
        sent = SentCall(candidate.instance, candidate.endpoint.address, code, sent_ns, self._clock.now_ns())
        self._policy.observe(candidate, sent, connected=subchannel.stands)
        if self._on_call is not None:
            try:
                self._on_call(sent)
            except Exception:
                log.exception("on_call failed", extra={"service": self._view.service, "address": sent.address})

    def choose_again(self) -> None:
        """What outlier detection makes of endpoints has changed."""
        for candidate in self._balancer.candidates:
            self._balancer.set_ejected(candidate, self._policy.why_ejected(candidate))
        self._finder.tell()

    # Calls with a policy.

    @property
    def guarded(self) -> bool:
        """See Endpoints."""
        return self._policy.needed

    def begin_policy_call(
        self, rpc: Rpc, request: Any, timeout_s: float | None, metadata: Any, options: Any, depth: int
    ) -> PolicyCall:
        """See Endpoints."""
        self._check_open()
        ask = self._policy.ask(rpc, request, timeout_s, metadata, options, depth)
        return POLICY_CALLS[rpc.kind](self._policy, ask, request if rpc.streams_in else rpc.serialize(request))

    def _check_open(self) -> None:
        self._guard.check()
        if self._closed:
            raise RuntimeError("the channel is closed")

    # grpc.aio.Channel.

    def _method(
        self,
        kind: str,
        name: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *_: Any,
        **named: Any,
    ) -> Method:
        return self.method_for(Rpc(kind, name, request_serializer, response_deserializer, named))

    def unary_unary(self, method: str, *given: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("unary_unary", method, *given, **named)

    def unary_stream(self, method: str, *given: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("unary_stream", method, *given, **named)

    def stream_unary(self, method: str, *given: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("stream_unary", method, *given, **named)

    def stream_stream(self, method: str, *given: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("stream_stream", method, *given, **named)

    def method_for(self, rpc: Rpc) -> Method:
        """The same method of this service."""
        return Method(self, rpc, WAITING_CALLS[rpc.kind])

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """READY when a call would be sent at once, IDLE while nothing is connected, SHUTDOWN after `close`."""
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if any(subchannel.ready for subchannel in self._subchannels.values()):
            return grpc.ChannelConnectivity.READY
        candidates = self._balancer.candidates
        if candidates and all(candidate.out for candidate in candidates):
            return grpc.ChannelConnectivity.TRANSIENT_FAILURE
        return grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel."""
        while self.get_state() is last_observed_state:
            await self._finder.changed.wait()

    async def channel_ready(self) -> None:
        """Return when one endpoint is connected."""
        await self.find_endpoint(None, None, timeout_s=None, wait_for_ready=True)

    async def close(self, grace: float | None = None) -> None:
        """Send no more calls; those in flight end after `grace` seconds, at once if None. The view is closed, too."""
        if self._closed:
            return
        self._closed = True
        self._finder.tell()
        self._stop_listening()
        self._view.close()
        with suppress(RuntimeError):
            await asyncio.gather(*(one.close(grace) for one in (*self._subchannels.values(), *self._retired)))
        await self._policy.close(grace)
        await self._tasks.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
