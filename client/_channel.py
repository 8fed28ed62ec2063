"""A channel that generated stubs take, and that balances every call over a live view."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import CircuitOpen, NoInstance, TrunklineError, Unreachable
from trunkline.core.policy import PLAIN, Policy

from ._balancer import Balancer, Candidate
from ._changes import Change
from ._channel_options import ChannelOptions, ChannelPolicyState, EndpointState, SentCall
from ._channel_policy import ALONE, ChannelPolicy, Route, Surroundings
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
from ._view import View
from ._waiting_call import (
    WaitingCall,
    WaitingStreamStreamCall,
    WaitingStreamUnaryCall,
    WaitingUnaryStreamCall,
    WaitingUnaryUnaryCall,
)

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
        self._balancer = Balancer(options.load_balancing, options.protocol, rng)
        self._subchannels: dict[Candidate, Subchannel] = {}
        self._changed = asyncio.Event()
        self._had_instances = False
        self._closed = False
        self._policy = ChannelPolicy(
            self, self._tasks, options, rng, clock, service=view.service, surroundings=surroundings
        )
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
        self._balancer.pick()
        return [
            EndpointState(
                instance_id=one.instance.instance.id,
                address=one.endpoint.address,
                status=one.instance.status,
                picked=one.index >= 0,
                why="" if one.index >= 0 else one.out or one.ejected or "behind better ones",
                calls_in_flight=one.active,
                breaker=self._policy.endpoint_breaker(one),
            )
            for one in self._balancer.candidates
        ]

    def policy_state(self) -> ChannelPolicyState:
        """The policy that holds, breakers, ejections, and counts."""
        return self._policy.state(self._balancer.candidates)

    # The view.

    def _adopt_policy(self) -> None:
        said: Policy = getattr(self._view, "policy", PLAIN)
        self._policy.adopt(self._options.policy or said, managed=said.revision > 0)

    def _view_changed(self, change: Change) -> None:
        self._adopt_policy()
        for gone in self._balancer.update(self._view.instances):
            self._policy.forget(gone)
            subchannel = self._subchannels.pop(gone, None)
            if subchannel is not None:
                subchannel.retire()
        self._policy.set_hosts(self._balancer.candidates)
        self._had_instances = self._had_instances or bool(self._balancer.candidates)
        self._tell()

    def _endpoint_changed(self, candidate: Candidate, why: str) -> None:
        self._balancer.set_out(candidate, why)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # Endpoints for calls.

    def _subchannel(self, candidate: Candidate) -> Subchannel:
        subchannel = self._subchannels.get(candidate)
        if subchannel is None:
            dial = partial(self._dial, candidate.endpoint.address)
            subchannel = Subchannel(dial, self._tasks, partial(self._endpoint_changed, candidate))
            self._subchannels[candidate] = subchannel
        return subchannel

    def _hash_key(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> bytes | None:
        if not self._options.hash_header:
            return None
        for key, value in metadata or ():
            if key == self._options.hash_header:
                return value if isinstance(value, bytes) else value.encode()
        return None

    def choose_endpoint(self, metadata: Any) -> tuple[Candidate | None, Subchannel | None]:
        """See Endpoints."""
        self._check_open()
        candidate = self._balancer.pick(self._hash_key(metadata))
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
        """A connected endpoint by way of `route`, and what is left of the time; NotSent when there is none."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        refusal: TrunklineError = NoInstance(f"no instance of {self._view.service} can be called")
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = self._changed
                    try:
                        candidate, subchannel = await self._connected_endpoint(route, metadata)
                    except TrunklineError as error:
                        refusal, route.chosen = error, None
                        if self._had_instances and not wait_for_ready:
                            raise
                        await self._wait(changed, timeout_s)
                    else:
                        left_s = None if timeout_s is None else max(timeout_s - (loop.time() - began_s), 0.001)
                        return candidate, subchannel, left_s
        except TimeoutError:
            raise NotSent(grpc.StatusCode.DEADLINE_EXCEEDED, refusal) from None
        except TrunklineError as error:
            raise NotSent(grpc.StatusCode.UNAVAILABLE, error) from None

    async def _wait(self, changed: asyncio.Event, timeout_s: float | None) -> None:
        """For the view or an endpoint to change; a call without deadline gives up on the first instance some time."""
        if timeout_s is not None or self._had_instances:
            await changed.wait()
            return
        try:
            async with asyncio.timeout(self._options.first_instance_within_s):
                await changed.wait()
        except TimeoutError:
            raise NoInstance(f"no instance of {self._view.service} was there in time") from None

    async def _connected_endpoint(self, route: Route, metadata: Any) -> tuple[Candidate, Subchannel]:
        candidate = self._first_choice(route, metadata)
        if candidate is None:
            raise NoInstance(f"no instance of {self._view.service} can be called")
        tried: set[Candidate] = set()
        refused: set[Candidate] = set()
        while candidate is not None:
            self._check_open()
            if not self._policy.admits(route, candidate):
                refused.add(candidate)
            elif await self._connected(route, candidate):
                return candidate, self._subchannel(candidate)
            else:
                tried.add(candidate)
            candidate = self._balancer.pick_another(tried | refused)
        if refused and not tried:
            raise CircuitOpen(
                f"the circuit breaker of each endpoint of {self._view.service} is open", breaker="endpoint"
            )
        addresses = ", ".join(sorted(one.endpoint.address for one in tried))
        raise Unreachable(f"no instance of {self._view.service} could be reached: {addresses}")

    def _first_choice(self, route: Route, metadata: Any) -> Candidate | None:
        if route.chosen is not None and self._balancer.holds(route.chosen):
            return route.chosen
        candidate = self._balancer.pick(self._hash_key(metadata))
        if candidate in route.avoid:
            return self._balancer.pick_another(route.avoid) or candidate
        return candidate

    async def _connected(self, route: Route, candidate: Candidate) -> bool:
        subchannel = self._subchannel(candidate)
        connected = False
        try:
            connected = subchannel.ready or await subchannel.connected(within_s=self._options.connect_timeout_s)
        except BaseException:
            self._policy.not_begun(route)
            raise
        if not connected:
            self._policy.not_connected(route, candidate)
        return connected

    def begun(
        self, candidate: Candidate, subchannel: Subchannel, call: Any,
        told: Callable[[grpc.StatusCode | None], grpc.StatusCode | None] | None = None,
    ) -> None:  # fmt: skip
        """See Endpoints. `told` is told of the code, and says what it stands for."""
        self._balancer.begun(candidate)
        subchannel.begun()
        call.add_done_callback(partial(self._ended, candidate, subchannel, self._clock.now_ns(), told))

    def _ended(self, candidate: Candidate, subchannel: Subchannel, sent_ns: int, told: Any, call: Any) -> None:
        self._balancer.ended(candidate)
        code = code_of(call)
        if told is not None:
            code = told(code)
        if code is grpc.StatusCode.UNAVAILABLE:
            subchannel.suspect()
        subchannel.ended()
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
        self._tell()

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
            await self._changed.wait()

    async def channel_ready(self) -> None:
        """Return when one endpoint is connected."""
        await self.find_endpoint(None, None, timeout_s=None, wait_for_ready=True)

    async def close(self, grace: float | None = None) -> None:
        """Send no more calls; those in flight end after `grace` seconds, at once if None. The view is closed, too."""
        if self._closed:
            return
        self._closed = True
        self._tell()
        self._stop_listening()
        self._view.close()
        with suppress(RuntimeError):
            await asyncio.gather(*(subchannel.close(grace) for subchannel in self._subchannels.values()))
        await self._policy.close(grace)
        await self._tasks.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
