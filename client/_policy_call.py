"""A call with a policy: one object around its attempts, with grpc.aio's interface."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from trunkline.core.errors import TrunklineError

from ._committed import Committed
from ._layers import attempts_before
from ._request_buffer import CallOver, RequestBuffer
from ._rpc import NotSent, refused
from ._tries import Ask, Caller, Tries

log = logging.getLogger("trunkline.client")

Answer = TypeVar("Answer")

CANCELLED_HERE = "Locally cancelled by application!"
"""gRPC's words."""


class PolicyCall:
    """Common to the four kinds.

    The call is open until one of its attempts is committed: an answer has come, or the first message of many, or the
    caller was given the initial metadata. From then on this is that attempt. Cancelling ends whatever is under way.
    """

    def __init__(self, caller: Caller, ask: Ask, given: Any) -> None:
        """`given`: a request's serialized bytes, an iterable of requests, or None where they will be written."""
        self._caller = caller
        self._ask = ask
        self._callbacks: list[Callable[[Any], None]] = []
        self._over = False
        self._entered = False
        self._pump: asyncio.Task[None] | None = None
        if ask.method.streams_in:
            ask.buffer = RequestBuffer()
        else:
            ask.request = given
        self._written = given is None and ask.method.streams_in
        refusal = self._enter()
        self._tries = Tries(caller, ask, suppressed=attempts_before() > 0)
        self._task: asyncio.Task[Committed | Exception] = caller.spawn(self._final(refusal), name="call")
        self._task.add_done_callback(self._decided)
        if ask.method.streams_in and not self._written:
            self._pump = caller.spawn(self._pump_from(given), name="requests")

    def _enter(self) -> NotSent | None:
        try:
            self._caller.guards.enter(self._ask.method.name, self._ask.metadata, self._caller.clock.now_ns())
        except TrunklineError as error:
            return refused(error)
        self._entered = True
        return None

    async def _final(self, refusal: NotSent | None) -> Committed | Exception:
        """What the call came to. An error is a value here: nobody may ever ask for it."""
        try:
            return await self._tries.run(refusal)
        except NotSent as error:
            return error.error
        except Exception as error:
            return error

    def _decided(self, task: asyncio.Task[Any]) -> None:
        outcome = None if task.cancelled() else task.result()
        if isinstance(outcome, Committed):
            outcome.call.add_done_callback(lambda _: self._finish())
        else:
            self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        if self._entered:
            self._caller.guards.leave()
        if self._pump is not None:
            self._pump.cancel()
        if self._ask.buffer is not None:
            self._ask.buffer.close()
        for callback in self._callbacks:
            callback(self)

    async def _pump_from(self, requests: Any) -> None:
        """Take the caller's requests as fast as they are sent; one that fails ends the call, as in grpc.aio."""
        buffer, serialize = self._ask.buffer, self._ask.method.serialize
        assert buffer is not None
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await buffer.put(serialize(request))
            else:
                for request in requests:
                    await buffer.put(serialize(request))
        except CallOver:
            return
        except Exception:
            log.exception("the requests of a call failed", extra={"method": self._ask.method.name})
            self.cancel()
        else:
            buffer.end()

    async def _committed(self) -> Committed:
        """What the call came to; raises an error."""
        outcome: Committed | Exception = await asyncio.shield(self._task)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _answered(self) -> Committed:
        """The same for who waits for an answer: the call is cancelled with its waiter, as in grpc.aio."""
        try:
            return await self._committed()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _outcome(self) -> Committed | Exception | None:
        """None while there is none, and of a call that was cancelled before there was."""
        return self._task.result() if self._task.done() and not self._task.cancelled() else None

    # grpc.aio.Call.

    def cancelled(self) -> bool:
        outcome = self._outcome()
        return bool(outcome.call.cancelled()) if isinstance(outcome, Committed) else self._task.cancelled()

    def done(self) -> bool:
        outcome = self._outcome()
        return bool(outcome.call.done()) if isinstance(outcome, Committed) else self._task.done()

    def cancel(self) -> bool:
        if not self._task.done():
            return not self._task.cancelling() and self._task.cancel()
        outcome = self._outcome()
        return bool(outcome.call.cancel()) if isinstance(outcome, Committed) else False

    def time_remaining(self) -> float | None:
        return self._ask.left_s()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._over:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> Any:
        """Of the attempt that is under way, which is then the last."""
        found = await self._tries.initial_metadata(self._task)
        return found if found is not None else await (await self._committed()).call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        try:
            return await (await self._committed()).call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            return error.trailing_metadata()
        except asyncio.CancelledError:
            if not self._cancelled_here():
                raise
            return grpc.aio.Metadata()
        except Exception:
            return grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        try:
            code: grpc.StatusCode = await (await self._committed()).call.code()
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            if not self._cancelled_here():
                raise
            return grpc.StatusCode.CANCELLED
        except Exception:  # a fallback function's: whoever awaits the answer gets it as it is
            return grpc.StatusCode.UNKNOWN
        return code

    async def details(self) -> str:
        try:
            return await (await self._committed()).call.details() or ""
        except grpc.aio.AioRpcError as error:
            return error.details() or ""
        except asyncio.CancelledError:
            if not self._cancelled_here():
                raise
            return CANCELLED_HERE
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _cancelled_here(self) -> bool:
        """Tell, in an `except CancelledError`, whether it is the call that was cancelled, and not who asks about it."""
        asking = asyncio.current_task()
        return self._task.cancelled() and not (asking is not None and asking.cancelling())

    async def wait_for_connection(self) -> None:
        if await self._tries.initial_metadata(self._task) is None:
            await (await self._committed()).call.wait_for_connection()


class _Answered(PolicyCall):
    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        return (await self._answered()).response


class _Read(PolicyCall):
    async def read(self) -> Any:
        return await (await self._answered()).read()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (response := await self.read()) is not grpc.aio.EOF:
            yield response


class _Written(PolicyCall):
    async def write(self, request: Any) -> None:
        buffer = self._writable()
        if buffer.ended:
            raise asyncio.InvalidStateError("RPC is half closed after calling done_writing().")
        with suppress(CallOver):
            await buffer.put(self._ask.method.serialize(request))
            return
        await self._committed()  # raises what the call ended with
        raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        self._writable().end()

    def _writable(self) -> RequestBuffer:
        if not self._written:
            raise grpc.aio.UsageError("requests are either given as an iterable or written")
        assert self._ask.buffer is not None
        return self._ask.buffer


class PolicyUnaryUnaryCall(_Answered, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response."""


class PolicyUnaryStreamCall(_Read, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, many responses."""


class PolicyStreamUnaryCall(_Answered, _Written, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Many requests, one response."""


class PolicyStreamStreamCall(_Read, _Written, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Many requests, many responses."""
