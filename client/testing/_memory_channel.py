"""grpc.aio's channel interface onto servicers in the same process: messages are serialized, nothing else travels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

QUEUE_MESSAGES_MAX = 1_024
_END = object()


class _Aborted(Exception):
    """A servicer ended its call with a status."""


class MemoryContext:
    """What servicers use of grpc.aio.ServicerContext."""

    def __init__(self, metadata: Any, timeout_s: float | None) -> None:
        self._metadata = tuple(metadata or ())
        self._timeout_s = timeout_s
        self.code = grpc.StatusCode.OK
        self.details = ""
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._timeout_s

    def peer(self) -> str:
        return "memory:"

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self.code, self.details, self.trailing = code, details, tuple(trailing_metadata)
        raise _Aborted

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)


class MemoryCall:
    """A call in flight, awaited for its one response, or written to and read."""

    def __init__(self, channel: MemoryChannel, handler: Any, context: MemoryContext, *, unary: bool) -> None:
        self._channel = channel
        self._handler = handler
        self._context = context
        self._requests: asyncio.Queue[Any] = asyncio.Queue(QUEUE_MESSAGES_MAX)
        self._responses: asyncio.Queue[Any] = asyncio.Queue(QUEUE_MESSAGES_MAX)
        self._done = asyncio.Event()
        self._cancelled = False
        self._task = asyncio.get_running_loop().create_task(self._serve(unary))
        self._task.add_done_callback(self._ended)
        channel.calls.add(self)

    async def _serve(self, unary: bool) -> None:
        try:
            if unary:
                response = await self._handler.unary_unary(await self._requests.get(), self._context)
                self._responses.put_nowait(self._handler.response_serializer(response))
            else:
                async for response in self._handler.stream_stream(self._read_requests(), self._context):
                    await self._responses.put(self._handler.response_serializer(response))
        except _Aborted:
            pass
        except Exception as error:
            if self._context.code is grpc.StatusCode.OK:
                self._context.code, self._context.details = grpc.StatusCode.UNKNOWN, repr(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The servicer is through; a task that was cancelled may not even have begun."""
        if task.cancelled() and self._context.code is grpc.StatusCode.OK:
            self._context.code = grpc.StatusCode.CANCELLED
        self._channel.calls.discard(self)
        self._done.set()

    async def _read_requests(self) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not _END:
            yield request

    # grpc.aio.Call.

    def send(self, request: Any, serialize: Callable[[Any], bytes]) -> None:
        """The one request of a unary call."""
        self._requests.put_nowait(self._handler.request_deserializer(serialize(request)))

    async def write(self, request: Any) -> None:
        if self._done.is_set():
            raise asyncio.InvalidStateError("RPC already finished.")
        await self._requests.put(self._handler.request_deserializer(request.SerializeToString()))

    async def done_writing(self) -> None:
        await self._requests.put(_END)

    async def read(self) -> Any:
        getting = asyncio.ensure_future(self._responses.get())
        ending = asyncio.ensure_future(self._done.wait())
        try:
            await asyncio.wait({getting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done() or not self._responses.empty():
                return self._channel.deserializers[self._handler](await getting)
        finally:
            getting.cancel()
            ending.cancel()
        if self._cancelled:
            raise asyncio.CancelledError
        if self._context.code is not grpc.StatusCode.OK:
            raise self._error()
        return grpc.aio.EOF

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        return await self.read()

    def _error(self) -> grpc.aio.AioRpcError:
        context = self._context
        return grpc.aio.AioRpcError(
            context.code, grpc.aio.Metadata(), grpc.aio.Metadata(*context.trailing), context.details
        )

    def cancel(self) -> bool:
        if self._done.is_set():
            return False
        self._cancelled = True
        self._task.cancel()
        return True

    def break_off(self, details: str) -> None:
        """End as gRPC does when the connection is lost."""
        self._context.code, self._context.details = grpc.StatusCode.UNAVAILABLE, details
        self._task.cancel()


class MemoryChannel:
    """Calls go to `handlers` while `reachable()`; otherwise they fail as if the connection were refused."""

    def __init__(self, handlers: Mapping[str, Any], reachable: Callable[[], bool]) -> None:
        self._handlers = handlers
        self._reachable = reachable
        self.calls: set[MemoryCall] = set()
        self.deserializers: dict[Any, Callable[[bytes], Any]] = {}

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Callable[..., MemoryCall]:
        handler = self._handlers[method]
        self.deserializers[handler] = response_deserializer

        def call(request: Any, *, timeout: float | None = None, metadata: Any = None, **_: Any) -> MemoryCall:
            made = self._begin(handler, MemoryContext(metadata, timeout), unary=True)
            made.send(request, request_serializer)
            return made

        return call

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Callable[..., MemoryCall]:
        handler = self._handlers[method]
        self.deserializers[handler] = response_deserializer

        def call(*, timeout: float | None = None, metadata: Any = None, **_: Any) -> MemoryCall:
            return self._begin(handler, MemoryContext(metadata, timeout), unary=False)

        return call

    def _begin(self, handler: Any, context: MemoryContext, *, unary: bool) -> MemoryCall:
        call = MemoryCall(self, handler, context, unary=unary)
        if not self._reachable():
            call.break_off("connection refused")
        return call

    def break_off(self) -> None:
        """Lose the connection with everything in flight."""
        for call in list(self.calls):
            call.break_off("connection reset")

    async def close(self, grace: float | None = None) -> None:
        for call in list(self.calls):
            call.cancel()


class HandlerTable:
    """Takes what generated `add_XServicer_to_server` functions give to a server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """The same methods come by name, too."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        for method, handler in method_handlers.items():
            self.handlers[f"/{service_name}/{method}"] = handler
