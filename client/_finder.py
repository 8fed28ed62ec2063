"""The way of an attempt to a connected endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from trunkline.core.breaker import Outcome
from trunkline.core.call_chain import CIRCUIT_BREAKER, ENDPOINT_CIRCUIT_BREAKER
from trunkline.core.errors import CircuitOpen, LimitExceeded, NoInstance, TrunklineError, Unreachable
from trunkline.core.evaluator import NO_INSTANCE

from ._balancer import Balancer, Candidate
from ._channel_options import ChannelOptions
from ._channel_policy import ChannelPolicy, Route
from ._rpc import NotSent, refused
from ._subchannel import Subchannel


class EndpointFinder:
    """Picks, connects, and goes on to another endpoint; waits where waiting may help."""

    def __init__(
        self, balancer: Balancer, options: ChannelOptions, policy: ChannelPolicy, *, service: str,
        check_open: Callable[[], None], subchannel_of: Callable[[Candidate], Subchannel],
    ) -> None:  # fmt: skip
        self.changed = asyncio.Event()
        """Set, and replaced by another, when the view or an endpoint has changed."""
        self._balancer = balancer
        self._options = options
        self._policy = policy
        self._service = service
        self._check_open = check_open
        self._subchannel_of = subchannel_of
        self._had_instances = False

    def tell(self) -> None:
        """The view or an endpoint has changed."""
        self._had_instances = self._had_instances or bool(self._balancer.candidates)
        self.changed.set()
        self.changed = asyncio.Event()

    async def find(
        self, route: Route, metadata: Any, *, timeout_s: float | None, wait_for_ready: bool
    ) -> tuple[Candidate, Subchannel, float | None]:
        """A connected endpoint by way of `route`, and what is left of the time; NotSent when there is none."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        refusal: TrunklineError = self._nobody()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = self.changed
                    try:
                        candidate, subchannel = await self._connected_endpoint(route, metadata)
                    except TrunklineError as error:
                        refusal = error
                        if isinstance(error, CircuitOpen | LimitExceeded):
                            raise
                        if self._had_instances and not wait_for_ready:
                            raise
                        await self._wait(changed, timeout_s)
                    else:
                        left_s = None if timeout_s is None else max(timeout_s - (loop.time() - began_s), 0.001)
                        return candidate, subchannel, left_s
        except TimeoutError:
            raise NotSent(grpc.StatusCode.DEADLINE_EXCEEDED, refusal) from None
        except TrunklineError as error:
            raise refused(error) from None

    async def _wait(self, changed: asyncio.Event, timeout_s: float | None) -> None:
        """For the view or an endpoint to change; a call without deadline gives up on the first instance some time."""
        if timeout_s is not None or self._had_instances:
            await changed.wait()
            return
        try:
            async with asyncio.timeout(self._options.first_instance_within_s):
                await changed.wait()
        except TimeoutError:
            raise NoInstance(f"no instance of {self._service} was there in time") from None

    async def _connected_endpoint(self, route: Route, metadata: Any) -> tuple[Candidate, Subchannel]:
        tried: set[Candidate] = set()
        while True:
            self._check_open()
            candidate = self._next(route, metadata, tried)
            if candidate in tried:
                break
            if await self._connected(route, candidate):
                return candidate, self._subchannel_of(candidate)
            tried.add(candidate)
        self._end_ticket(route, Outcome.FAILURE)
        addresses = ", ".join(sorted(one.endpoint.address for one in tried))
        raise Unreachable(f"no instance of {self._service} could be reached: {addresses}")

    def _next(self, route: Route, metadata: Any, tried: set[Candidate]) -> Candidate:
        """One that was not tried, if there is one. NoInstance, LimitExceeded, CircuitOpen."""
        if route.guarded:
            avoid = route.avoid | tried
            route.ticket = self._balancer.begin(
                metadata=metadata, tried=avoid, destination=route.destination, earlier=route.earlier
            )
            if route.ticket is None:
                raise self._refusal()
            if route.earlier is None:
                route.earlier = self._balancer.destination
            return self._balancer.candidate(route.ticket)
        chosen, route.chosen = route.chosen, None
        if chosen is not None and self._balancer.holds(chosen):
            return chosen
        if route.destination is not None:
            candidate = self._balancer.pick_of(route.destination, metadata=metadata, tried=tried)
        elif tried:
            candidate = self._balancer.pick_another(tried) or next(iter(tried))
        else:
            candidate = self._balancer.pick(metadata=metadata)
        if candidate is None:
            raise self._nobody()
        return candidate

    def _nobody(self) -> NoInstance:
        return NoInstance(f"no instance of {self._service} can be called")

    def _refusal(self) -> TrunklineError:
        """Why the balancer has just let nothing through."""
        service, limits = self._service, self._balancer.policy.limits
        refusal = self._balancer.refusal
        if refusal == NO_INSTANCE:
            return self._nobody()
        if refusal == CIRCUIT_BREAKER:
            error: TrunklineError = CircuitOpen(f"the circuit breaker of {service} is open", breaker="service")
        elif refusal == ENDPOINT_CIRCUIT_BREAKER:
            error = CircuitOpen(f"the circuit breaker of each endpoint of {service} is open", breaker="endpoint")
        else:
            error = LimitExceeded(refusal, getattr(limits, refusal))
        return self._policy.guards.refuse(error)

    def _end_ticket(self, route: Route, outcome: Outcome) -> None:
        ticket, route.ticket = route.ticket, None
        if ticket is not None:
            ticket.end(outcome)

    async def _connected(self, route: Route, candidate: Candidate) -> bool:
        """What is not connected was not called, so that breakers are told nothing."""
        subchannel = self._subchannel_of(candidate)
        connected = False
        try:
            connected = subchannel.ready or await subchannel.connected(within_s=self._options.connect_timeout_s)
        finally:
            if not connected:
                self._end_ticket(route, Outcome.CANCELLED)
        if not connected:
            self._policy.not_connected(candidate)
        return connected
