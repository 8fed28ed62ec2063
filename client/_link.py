"""The way to the control plane: one channel at a time, one backoff for all that use it, errors as Trunkline's
classes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import grpc
import grpc.aio

from trunkline.api.v1 import (
    admin_pb2_grpc,
    discovery_pb2_grpc,
    events_pb2_grpc,
    registry_pb2_grpc,
    schedules_pb2_grpc,
    traffic_pb2_grpc,
)
from trunkline.core.errors import DeadlineExceeded, TrunklineError, Unreachable

from ._backoff import Backoff
from ._edge import ControlChannel, Edge
from ._errors import cancelled_by_channel, error_of, is_transient
from ._fork import ForkGuard
from ._options import ClientOptions
from ._tasks import Tasks

log = logging.getLogger("trunkline.client")

Request = TypeVar("Request")
Response = TypeVar("Response")

RETIRED_CHANNEL_GRACE_S = 5.0
"""Calls in flight on a channel that was given up may still end within this time."""


class Stubs(NamedTuple):
    """The contract's services on one channel."""

    registry: registry_pb2_grpc.RegistryServiceAsyncStub
    discovery: discovery_pb2_grpc.DiscoveryServiceAsyncStub
    events: events_pb2_grpc.EventServiceAsyncStub
    schedules: schedules_pb2_grpc.ScheduleServiceAsyncStub
    admin: admin_pb2_grpc.AdminServiceAsyncStub
    traffic: traffic_pb2_grpc.TrafficServiceAsyncStub


class Attempt(NamedTuple):
    """A channel and its number; what is reported of an older one is too late to count."""

    generation: int
    stubs: Stubs


class Calling(Protocol):
    """Anything awaitable that grpc.aio's multicallables return."""

    def __call__(self, request: Any, *, timeout: float, metadata: Any) -> Any: ...


def stubs_on(channel: ControlChannel) -> Stubs:
    """Generated stubs; they need no more of a channel than ControlChannel says."""
    real = cast(grpc.aio.Channel, channel)
    return Stubs(
        registry=registry_pb2_grpc.RegistryServiceStub(real),
        discovery=discovery_pb2_grpc.DiscoveryServiceStub(real),
        events=events_pb2_grpc.EventServiceStub(real),
        schedules=schedules_pb2_grpc.ScheduleServiceStub(real),
        traffic=traffic_pb2_grpc.TrafficServiceStub(real),
        admin=admin_pb2_grpc.AdminServiceStub(real),
    )


class Link:
    """Dials, and after a lost connection dials again no sooner than the backoff allows."""

    def __init__(self, edge: Edge, options: ClientOptions, tasks: Tasks, *, token: str | None) -> None:
        self.metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {token}"),) if token else ()
        self.backoff_limit_s: float | None = None
        """Set by whoever cannot wait long (leases)."""
        self._edge = edge
        self._options = options
        self._tasks = tasks
        self.guard = ForkGuard()
        """Which process this belongs to."""
        self._backoff = Backoff(options.backoff, edge.rng)
        self._generation = 0
        self._channel: ControlChannel | None = None
        self._stubs: Stubs | None = None
        self._closed = False
        self._open_again: asyncio.TimerHandle | None = None
        self._may_dial = asyncio.Event()
        self._may_dial.set()
        self._last_error: TrunklineError | None = None

    @property
    def last_error(self) -> TrunklineError | None:
        """Why the control plane could not be reached, while that is so."""
        return self._last_error

    async def attempt(self) -> Attempt:
        """Wait for the backoff to be over, dial if there is no channel, and return it."""
        self.guard.check()
        await self._may_dial.wait()
        if self._closed:
            raise Unreachable("the connection is closed")
        if self._stubs is None:
            self._channel = self._edge.dial_control()
            self._stubs = stubs_on(self._channel)
        return Attempt(self._generation, self._stubs)

    def is_current(self, attempt: Attempt) -> bool:
        """Its channel was not given up."""
        return attempt.generation == self._generation

    def reached(self, attempt: Attempt) -> None:
        """The control plane answered."""
        if attempt.generation == self._generation:
            self._backoff.reset()
            self._last_error = None

    def failed(self, attempt: Attempt, error: TrunklineError) -> None:
        """The connection was refused or lost: give the channel up and wait. Later reports of the same are ignored."""
        if attempt.generation != self._generation or self._closed or self._tasks.is_closed:
            return  # while the connection ends, `close` sees to the channel
        self._generation += 1
        self._last_error = error
        channel, self._channel, self._stubs = self._channel, None, None
        if channel is not None:
            self._tasks.spawn(channel.close(RETIRED_CHANNEL_GRACE_S), name="retire channel")
        wait_s = self._backoff.next_s(limit_s=self.backoff_limit_s)
        self._may_dial.clear()
        self._open_again = asyncio.get_running_loop().call_later(wait_s, self._may_dial.set)
        log.info("control plane not reached", extra={"error": str(error), "retry_in_s": round(wait_s, 3)})

    async def call(
        self,
        method: Callable[[Stubs], Calling],
        request: Any,
        answer: type[Response],
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """Call until it is answered, fails for good, or the deadline passes; then the last error is raised.

        `answer` is the type of the response.
        """
        self.guard.check()
        deadline_s = self._options.timeout_s if timeout_s is None else timeout_s
        backoff = Backoff(self._options.backoff, self._edge.rng)
        last: TrunklineError | None = None
        try:
            async with asyncio.timeout(deadline_s) as limit:
                while True:
                    attempt = await self.attempt()
                    try:
                        return cast(Response, await self._call_once(attempt, method, request, limit))
                    except TrunklineError as error:
                        if not is_transient(error):
                            raise
                        last = error
                    if self.is_current(attempt):  # answered, but not now: the channel is sound
                        await asyncio.sleep(backoff.next_s(limit_s=deadline_s / 4))
        except TimeoutError:
            if last is None:
                last = self._last_error or DeadlineExceeded(f"no answer within {deadline_s:g} s")
            raise last from None

    async def _call_once(
        self, attempt: Attempt, method: Callable[[Stubs], Calling], request: Any, limit: asyncio.Timeout
    ) -> Any:
        when = limit.when()
        assert when is not None
        remaining_s = max(when - asyncio.get_running_loop().time(), 0.001)
        try:
            answer = await method(attempt.stubs)(request, timeout=remaining_s, metadata=self.metadata)
        except grpc.RpcError as error:
            raise self.understood(attempt, error) from None
        except asyncio.CancelledError:
            if cancelled_by_channel():
                raise Unreachable("the connection was given up during the call") from None
            raise
        self.reached(attempt)
        return answer

    def understood(self, attempt: Attempt, error: grpc.RpcError) -> TrunklineError:
        """Trunkline's error for gRPC's; one that says the connection is gone is noted."""
        understood = error_of(error)
        if isinstance(understood, Unreachable):
            self.failed(attempt, understood)
        else:
            self.reached(attempt)
        return understood

    async def close(self) -> None:
        """Close the channel; calls in flight end with Unreachable."""
        self._closed = True
        if self._open_again is not None:
            self._open_again.cancel()
        self._may_dial.set()
        channel, self._channel, self._stubs = self._channel, None, None
        if channel is not None and not self.guard.forked:
            await channel.close(None)
