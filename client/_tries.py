"""The attempts of one call, one after the other, until one is committed or there may be no more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import grpc
import grpc.aio

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import CircuitOpen, LimitExceeded
from trunkline.core.in_flight import Ticket
from trunkline.core.policy import Destination

from ._attempts import Attempts, Failure, Stop, pushback_of
from ._balancer import Candidate
from ._channel_options import ChannelOptions
from ._committed import Committed
from ._fallback import answered_otherwise
from ._guards import Guards
from ._multicallable import Method, Rpc
from ._request_buffer import RequestBuffer
from ._rpc import NotSent, number_of

CUT_OFF_SLACK_S = 0.01
"""gRPC's clock and the loop's may differ by so much in when a timeout was over."""


class Ask:
    """What the caller asked for."""

    __slots__ = (
        "_deadline_s", "_loop", "buffer", "depth", "destination", "metadata", "method", "options", "original", "request",
    )  # fmt: skip

    def __init__(
        self, method: Rpc, original: Any, metadata: tuple[tuple[str, str | bytes], ...] | None, options: dict[str, Any],
        *, timeout_s: float | None, depth: int,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._deadline_s = None if timeout_s is None else self._loop.time() + timeout_s
        self.method = method
        self.original = original
        """The request as it was given; None where requests are streamed."""
        self.request: bytes | None = None
        self.buffer: RequestBuffer | None = None
        self.destination: Destination | None = None
        """Where the policy's split sent the first attempt; the others stay there as long as they can."""
        self.metadata = metadata
        self.options = options
        self.depth = depth

    def left_s(self) -> float | None:
        """Until the deadline; None without one."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._loop.time())


class Sent:
    """An attempt that was sent."""

    __slots__ = ("_guards", "_ticket", "call", "candidate", "verdict")

    def __init__(self, candidate: Candidate, call: Any, ticket: Ticket | None, guards: Guards) -> None:
        self.candidate = candidate
        self.call = call
        self._ticket = ticket
        self._guards = guards
        self.verdict: grpc.StatusCode | None = None
        """In place of what gRPC says of it: it was cancelled here, because it took too long."""

    def cut_off(self) -> None:
        """Its time is over, unless it has just ended."""
        self.verdict = grpc.StatusCode.DEADLINE_EXCEEDED
        if not self.call.cancel():
            self.verdict = None

    def told(self, code: grpc.StatusCode | None) -> grpc.StatusCode | None:
        """It has ended: tell the breakers that let it through. What its code stands for."""
        code = self.verdict or code
        if self._ticket is not None:
            self._ticket.end(*self._guards.outcomes_of(number_of(code)))
        return code

    @property
    def counted(self) -> bool:
        """It is in flight by its ticket."""
        return self._ticket is not None


class Caller(Protocol):
    """The channel."""

    guards: Guards
    clock: Clock
    rng: Rng
    options: ChannelOptions

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]: ...

    async def send(
        self, ask: Ask, before: int, *, tried: set[Candidate], timeout_s: float | None, subset: str = ""
    ) -> Sent:
        """Find an endpoint, other than those that were tried if there is one, and send it the request there.

        `before` are the attempts before this one. `subset` is the part of the service that is meant, if it is not what
        the policy's split says. NotSent when it is not let through, or there is no endpoint.
        """

    async def method_of(self, service: str, method: Rpc) -> Method:
        """The same method of another service, for requests' bytes."""


class Tries:
    """See the module."""

    def __init__(self, caller: Caller, ask: Ask, *, suppressed: bool) -> None:
        self._caller = caller
        self._ask = ask
        policy = caller.guards.policy
        self._attempts = Attempts(policy.retry, caller.guards.budget, caller.rng, suppressed=suppressed)
        self._per_try_s = policy.retry.per_try_timeout_ns / 1e9 if policy.retry is not None else 0.0
        self._tried: set[Candidate] = set()
        self._present: Sent | None = None
        self._changed = asyncio.Event()
        self._handed_out = False

    async def run(self, refusal: NotSent | None) -> Committed:
        """The attempt that answers, or what answers in its place. NotSent or AioRpcError when nothing does."""
        if refusal is not None:
            return await answered_otherwise(self._caller, self._ask, refusal)
        try:
            return await self._until_committed()
        except (NotSent, grpc.aio.AioRpcError) as error:
            if self._handed_out:
                raise
            return await answered_otherwise(self._caller, self._ask, error)

    async def _until_committed(self) -> Committed:
        counts = self._caller.guards.counts
        last: NotSent | grpc.aio.AioRpcError | None = None
        while True:
            try:
                return await self._attempt()
            except NotSent as error:
                if isinstance(error.why, CircuitOpen | LimitExceeded):
                    raise last or error from None
                over = error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._ask.left_s() != 0
                last, failure = error, Failure(number_of(error.code), cut_off=over)
            except grpc.aio.AioRpcError as error:
                last, failure = error, self._failure_of(error)
            wait = self._after(failure)
            if isinstance(wait, Stop):
                counts.stopped[wait.value] += 1
                raise last
            await asyncio.sleep(wait / 1e9)
            if not self._attempts.may_retry(self._caller.clock.now_ns()):
                counts.stopped[Stop.BUDGET.value] += 1
                raise last
            counts.retries += 1

    def _failure_of(self, error: grpc.aio.AioRpcError) -> Failure:
        cut_off = isinstance(error, CutOff)
        return Failure(number_of(error.code()), pushback_of(error.trailing_metadata()), cut_off)

    def _after(self, failure: Failure) -> int | Stop:
        buffer = self._ask.buffer
        if buffer is not None:
            buffer.rewind()
        committed = self._handed_out or (buffer is not None and buffer.overflowed)
        left_s = self._ask.left_s()
        left_ns = None if left_s is None else int(left_s * 1e9)
        return self._attempts.after(failure, self._caller.clock.now_ns(), left_ns=left_ns, committed=committed)

    async def _attempt(self) -> Committed:
        guards, ask = self._caller.guards, self._ask
        guards.counts.attempts += 1
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        sent = await self._caller.send(ask, self._attempts.failed, tried=self._tried, timeout_s=self._per_try_s or None)
        self._tried.add(sent.candidate)
        self._show(sent)
        timer = loop.call_at(began_s + self._per_try_s, sent.cut_off) if self._per_try_s else None
        try:
            committed = await Committed.of(sent.call, streams_out=ask.method.streams_out)
            if sent.verdict is not None:  # its first message came when it had just been cut off
                raise CutOff(self._per_try_s)
            return committed
        except asyncio.CancelledError:
            self._show(None)
            if sent.verdict is None or _is_cancelled():
                raise
            raise CutOff(self._per_try_s) from None
        except grpc.aio.AioRpcError as error:
            self._show(None)
            if isinstance(error, CutOff):
                raise
            over = self._per_try_s and loop.time() - began_s >= self._per_try_s - CUT_OFF_SLACK_S
            if over and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise CutOff(self._per_try_s) from None
            raise
        except Exception:  # what the caller gave, or got, cannot be made bytes of, or be understood
            sent.call.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _show(self, sent: Sent | None) -> None:
        self._present = sent
        self._changed.set()
        self._changed = asyncio.Event()

    async def initial_metadata(self, decided: asyncio.Task[Any]) -> Any:
        """Of the attempt that is under way, which is then the last; None when the call is `decided` first."""
        while not decided.done():
            sent, changed = self._present, self._changed
            if sent is not None:
                got = asyncio.ensure_future(sent.call.initial_metadata())
                await _first(got, decided)
                if got.done() and self._present is sent and not decided.done() and not sent.call.done():
                    self._handed_out = True
                    return got.result()
                got.cancel()
            await _first(asyncio.ensure_future(changed.wait()), decided, cancel=True)
        return None


class CutOff(grpc.aio.AioRpcError):
    """`per_try_timeout` ended an attempt."""

    def __init__(self, per_try_s: float) -> None:
        super().__init__(
            grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(),
            f"no answer within the {per_try_s:g} s of an attempt",
        )  # fmt: skip


def _is_cancelled() -> bool:
    """Tell, in an `except CancelledError`, whether it is this task that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _first(one: asyncio.Future[Any], decided: asyncio.Future[Any], *, cancel: bool = False) -> None:
    try:
        await asyncio.wait({one, decided}, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        one.cancel()
        raise
    if cancel:
        one.cancel()
