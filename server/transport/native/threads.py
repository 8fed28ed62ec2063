"""Handlers that are plain functions run in threads, with a context whose methods block."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

if TYPE_CHECKING:
    from .call import Call

_NO_MORE = object()


async def run_in_thread(call: Call, request: Any) -> None:
    """Run a call's handler in the server's threads and send what it returns or yields."""
    context = ThreadContext(call)
    asked = _Requests(call) if call.route.takes_stream else request
    try:
        await _run(call, asked, context)
    except concurrent.futures.CancelledError:  # what the handler waited for was cancelled, and so it was, too
        raise asyncio.CancelledError from None


async def _run(call: Call, asked: Any, context: ThreadContext) -> None:
    loop, server, route = call.connection.loop, call.connection.server, call.route
    answer = await loop.run_in_executor(server.threads, route.behaviour, asked, context)
    if not route.yields_stream:
        if not call.done():
            await call.write(answer)
        return
    responses = iter(answer)
    while True:
        response = await loop.run_in_executor(server.threads, next, responses, _NO_MORE)
        if response is _NO_MORE:
            return
        await call.write(response)


class _Requests(Iterator[Any]):
    """The requests of a stream, for a thread."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __next__(self) -> Any:
        request = _wait(self._call, self._call.read())
        if request is grpc.aio.EOF:
            raise StopIteration
        return request


class ThreadContext:
    """The interface of grpc.ServicerContext, as far as grpc.aio gives it to plain functions."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """See grpc.ServicerContext.abort."""
        _wait(self._call, self._call.abort(code, details, trailing_metadata))
        raise AssertionError("abort returned")

    def abort_with_status(self, status: Any) -> NoReturn:
        """See grpc.ServicerContext.abort_with_status."""
        self.abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, metadata: Any) -> None:
        """See grpc.ServicerContext.send_initial_metadata."""
        _wait(self._call, self._call.send_initial_metadata(metadata))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call back, without arguments, when the call is over. False when it is over already."""
        if self._call.done():
            return False
        self._call.add_done_callback(lambda _context: callback())
        return True

    def is_active(self) -> bool:
        """Whether the call goes on."""
        return not self._call.done()

    def cancel(self) -> None:
        """End the call with CANCELLED."""
        self._call.connection.loop.call_soon_threadsafe(self._call.fail, grpc.StatusCode.CANCELLED, "")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _wait(call: Call, awaited: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine of the loop gives, in a thread."""
    return asyncio.run_coroutine_threadsafe(awaited, call.connection.loop).result()
