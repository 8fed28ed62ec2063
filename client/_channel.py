"""A channel that generated stubs take, and that balances every call over a live view."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from trunkline.api.status import DETAILS_KEY, status_to
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import NoInstance, TrunklineError, Unreachable
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Locality, RegisteredInstance, Status

from ._balancer import Balancer, Candidate, LoadBalancing, plain_policy
from ._changes import Change
from ._fork import ForkGuard
from ._multicallable import Method
from ._subchannel import Subchannel
from ._tasks import Tasks
from ._view import View
from ._waiting_call import (
    WaitingStreamStreamCall,
    WaitingStreamUnaryCall,
    WaitingUnaryStreamCall,
    WaitingUnaryUnaryCall,
)

log = logging.getLogger("trunkline.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How a channel picks and connects. Times in seconds."""

    load_balancing: LoadBalancing = "round_robin"
    """Among the endpoints of the best tier: SERVING before DEGRADED before STALE."""
    hash_header: str = ""
    """With ring_hash and maglev: the metadata key whose value is hashed; a call without it goes anywhere."""
    protocol: str = "grpc"
    """Of an instance's endpoints, the first that speaks this."""
    connect_timeout_s: float = 5.0
    """An endpoint that is not connected within this time is left out until it is."""
    first_instance_within_s: float = 10.0
    """A call without deadline waits so long for the first instance."""
    locality: Locality = NOWHERE
    """Where this process runs, for policies that prefer near instances."""
    caller: str = ""
    """This process's name, for policies that hash or split by who calls."""


@dataclass(frozen=True, slots=True)
class SentCall:
    """A call that was sent to an instance and has ended. A call that goes to a second endpoint is two of these."""

    instance: RegisteredInstance
    address: str
    code: grpc.StatusCode | None
    """None for a call that was cancelled here."""
    sent_ns: int
    """Monotonic."""
    ended_ns: int


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the channel makes of one endpoint, and why."""

    instance_id: str
    address: str
    status: Status
    picked: bool
    """Calls go there now."""
    why: str
    """When not: "connection refused", "connection lost", "behind better ones"; else empty."""
    calls_in_flight: int


class BalancedChannel(grpc.aio.Channel):
    """One subchannel per endpoint, connected when first picked, kept connected, and closed after its last call.

    A refused or lost connection takes its endpoint out of the picker at once, until it stands again. A call whose
    endpoint could not be connected has not left and goes to another one, at most once to each, within its deadline; a
    call that was sent is never sent again.
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
    ) -> None:
        """`on_call` is told of every call when it has ended; what it raises is logged, and no affair of the call's."""
        self._view = view
        self._clock = clock
        self._on_call = on_call
        self._dial = dial
        self._guard = guard
        self._options = options
        self._tasks = Tasks()
        policy = plain_policy(options.load_balancing, options.hash_header)
        self._balancer = Balancer(
            policy, options.protocol, rng, clock=clock, where=options.locality, caller=options.caller
        )
        self._subchannels: dict[Candidate, Subchannel] = {}
        self._changed = asyncio.Event()
        self._had_instances = False
        self._closed = False
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
            )
            for one in self._balancer.candidates
        ]

    # The view.

    def _view_changed(self, change: Change) -> None:
        for gone in self._balancer.update(self._view.instances):
            subchannel = self._subchannels.pop(gone, None)
            if subchannel is not None:
                subchannel.retire()
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
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        refusal: TrunklineError = NoInstance(f"no instance of {self._view.service} can be called")
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed = self._changed
                    try:
                        candidate, subchannel = await self._connected_endpoint(chosen, metadata)
                    except TrunklineError as error:
                        refusal, chosen = error, None
                        if self._had_instances and not wait_for_ready:
                            raise
                        await self._wait(changed, timeout_s)
                    else:
                        left_s = None if timeout_s is None else max(timeout_s - (loop.time() - began_s), 0.001)
                        return candidate, subchannel, left_s
        except TimeoutError:
            raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, refusal) from None
        except TrunklineError as error:
            raise rpc_error(grpc.StatusCode.UNAVAILABLE, error) from None

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

    async def _connected_endpoint(self, chosen: Candidate | None, metadata: Any) -> tuple[Candidate, Subchannel]:
        still_there = chosen is not None and self._balancer.holds(chosen)
        candidate = chosen if still_there else self._balancer.pick(metadata=metadata)
        if candidate is None:
            raise NoInstance(f"no instance of {self._view.service} can be called")
        tried: set[Candidate] = set()
        while candidate is not None:
            self._check_open()
            subchannel = self._subchannel(candidate)
            if await subchannel.connected(within_s=self._options.connect_timeout_s):
                return candidate, subchannel
            tried.add(candidate)
            candidate = self._balancer.pick_another(tried)
        addresses = ", ".join(sorted(one.endpoint.address for one in tried))
        raise Unreachable(f"no instance of {self._view.service} could be reached: {addresses}")

    def begun(self, candidate: Candidate, subchannel: Subchannel, call: Any) -> None:
        """See Endpoints."""
        self._balancer.begun(candidate)
        subchannel.begun()
        call.add_done_callback(partial(self._ended, candidate, subchannel, self._clock.now_ns()))

    def _ended(self, candidate: Candidate, subchannel: Subchannel, sent_ns: int, call: Any) -> None:
        self._balancer.ended(candidate)
        code = code_of(call)
        if code is grpc.StatusCode.UNAVAILABLE:
            subchannel.suspect()
        subchannel.ended()
        if self._on_call is not None:
            address = candidate.endpoint.address
            sent = SentCall(candidate.instance, address, code, sent_ns, self._clock.now_ns())
            try:
                self._on_call(sent)
            except Exception:
                log.exception("on_call failed", extra={"service": self._view.service, "address": address})

    def _check_open(self) -> None:
        self._guard.check()
        if self._closed:
            raise RuntimeError("the channel is closed")

    # grpc.aio.Channel.

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return Method(self, lambda channel: channel.unary_unary(method, *args, **kwargs), WaitingUnaryUnaryCall)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return Method(self, lambda channel: channel.unary_stream(method, *args, **kwargs), WaitingUnaryStreamCall)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return Method(self, lambda channel: channel.stream_unary(method, *args, **kwargs), WaitingStreamUnaryCall)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """See grpc.aio.Channel."""
        return Method(self, lambda channel: channel.stream_stream(method, *args, **kwargs), WaitingStreamStreamCall)

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
        await self._tasks.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def rpc_error(code: grpc.StatusCode, error: TrunklineError) -> grpc.aio.AioRpcError:
    """What stubs raise, with Trunkline's error in its details."""
    status = status_to(error)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, error.message)


def code_of(call: Any) -> grpc.StatusCode | None:
    """The code of a call that is done: grpc.aio has it ready, so the coroutine that gives it ends at its first step."""
    coroutine = call.code()
    try:
        coroutine.send(None)
    except StopIteration as answer:
        code: grpc.StatusCode = answer.value
        return code
    coroutine.close()
    return None
