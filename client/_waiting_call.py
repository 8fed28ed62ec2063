"""Calls that wait for an endpoint first: grpc.aio's call interface around a call that is still to be made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import grpc
import grpc.aio


class WaitingCall:
    """Common to the four kinds. `begin` finds an endpoint and returns the call that was sent there."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._deadline_s = None if timeout_s is None else loop.time() + timeout_s
        self._callbacks: list[Callable[[Any], None]] = []
        self._beginning: asyncio.Task[Any] = loop.create_task(self._begun(begin))

    async def _begun(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The call, or the error that came instead (as a value: nobody may ever ask for it)."""
        try:
            call = await begin()
        except grpc.aio.AioRpcError as error:
            for callback in self._callbacks:
                callback(self)
            return error
        for callback in self._callbacks:
            call.add_done_callback(lambda _, callback=callback: callback(self))
        return call

    async def _call(self) -> Any:
        """The call that was made; raises what came instead."""
        try:
            outcome = await asyncio.shield(self._beginning)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if isinstance(outcome, grpc.aio.AioRpcError):
            raise outcome
        return outcome

    def _outcome(self) -> Any:
        """The call or error, None while there is neither."""
        ended = self._beginning.done() and not self._beginning.cancelled()
        return self._beginning.result() if ended else None

    # grpc.aio.Call.

    def cancelled(self) -> bool:
        outcome = self._outcome()
        if outcome is None or isinstance(outcome, grpc.aio.AioRpcError):
            return self._beginning.cancelled()
        return bool(outcome.cancelled())

    def done(self) -> bool:
        outcome = self._outcome()
        if outcome is None or isinstance(outcome, grpc.aio.AioRpcError):
            return self._beginning.done()
        return bool(outcome.done())

    def cancel(self) -> bool:
        if not self._beginning.done():
            self._beginning.cancel()
            return True
        outcome = self._outcome()
        return False if outcome is None or isinstance(outcome, grpc.aio.AioRpcError) else bool(outcome.cancel())

    def time_remaining(self) -> float | None:
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        outcome = self._outcome()
        if outcome is None:
            self._callbacks.append(callback)
        elif isinstance(outcome, grpc.aio.AioRpcError):
            callback(self)
        else:
            outcome.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> Any:
        return await (await self._call()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        try:
            return await (await self._call()).trailing_metadata()
        except grpc.aio.AioRpcError as error:
            return error.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        try:
            code: grpc.StatusCode = await (await self._call()).code()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return code

    async def details(self) -> str:
        try:
            details: str = await (await self._call()).details()
        except grpc.aio.AioRpcError as error:
            return error.details() or ""
        return details

    async def wait_for_connection(self) -> None:
        await (await self._call()).wait_for_connection()


class _Answered(WaitingCall):
    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        return await (await self._call())


class _Read(WaitingCall):
    async def read(self) -> Any:
        return await (await self._call()).read()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for response in await self._call():
            yield response


class _Written(WaitingCall):
    async def write(self, request: Any) -> None:
        await (await self._call()).write(request)

    async def done_writing(self) -> None:
        await (await self._call()).done_writing()


class WaitingUnaryUnaryCall(_Answered, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response."""


class WaitingUnaryStreamCall(_Read, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, many responses."""


class WaitingStreamUnaryCall(_Answered, _Written, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Many requests, one response."""


class WaitingStreamStreamCall(_Read, _Written, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Many requests, many responses."""
