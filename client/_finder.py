"""The way of an attempt to a connected endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from trunkline.core.call_chain import CIRCUIT_BREAKER, ENDPOINT_CIRCUIT_BREAKER
from trunkline.core.errors import CircuitOpen, LimitExceeded, NoInstance, TrunklineError, Unreachable

from ._balancer import Balancer, Candidate
from ._channel_options import ChannelOptions
from ._channel_policy import ChannelPolicy
from ._rpc import NotSent, refused
from ._subchannel import Subchannel
from ._way import NoWay, Route, Way


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
        way = Way(self._balancer, route, metadata)
        while True:
            self._check_open()
            found = way.next()
            if isinstance(found, NoWay):
                raise self._why(found, way)
            if await self._connected(way, found):
                return found, self._subchannel_of(found)

    def _why(self, no_way: NoWay, way: Way) -> TrunklineError:
        if no_way is NoWay.NOBODY:
            return self._nobody()
        if no_way is NoWay.REFUSED:
            return self._refusal()
        addresses = ", ".join(sorted(one.endpoint.address for one in way.tried))
        return Unreachable(f"no instance of {self._service} could be reached: {addresses}")

    def _nobody(self) -> NoInstance:
        return NoInstance(f"no instance of {self._service} can be called")

    def _refusal(self) -> TrunklineError:
        """Why the balancer has just let nothing through."""
        service, limits = self._service, self._balancer.policy.limits
        refusal = self._balancer.refusal
        if refusal == CIRCUIT_BREAKER:
            error: TrunklineError = CircuitOpen(f"the circuit breaker of {service} is open", breaker="service")
        elif refusal == ENDPOINT_CIRCUIT_BREAKER:
            error = CircuitOpen(f"the circuit breaker of each endpoint of {service} is open", breaker="endpoint")
        else:
            error = LimitExceeded(refusal, getattr(limits, refusal))
        return self._policy.guards.refuse(error)

    async def _connected(self, way: Way, candidate: Candidate) -> bool:
        subchannel = self._subchannel_of(candidate)
        connected = False
        try:
            connected = subchannel.ready or await subchannel.connected(within_s=self._options.connect_timeout_s)
        finally:
            if not connected:
                way.drop(candidate)
        if not connected:
            self._policy.not_connected(candidate)
        return connected
