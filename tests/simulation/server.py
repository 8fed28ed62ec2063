"""The server's side of the simulated network: takes what generated code registers, as grpc.aio.Server does, and runs the
handlers with a context that has grpc.aio.ServicerContext's interface."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from simulation.network import Broken, Link, Network, Pipe
from simulation.virtual import Host

END = object()
"""What a half-closed stream delivers last."""


class _Details:
    """grpc.HandlerCallDetails."""

    def __init__(self, method: str, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method = method
        self.invocation_metadata = metadata


class Finished(grpc.aio.AbortError):
    """Raised inside a handler by `abort`."""


class Server:
    """Registered handlers at an address of the simulated network."""

    def __init__(self, network: Network, host: Host) -> None:
        self.network = network
        self.host = host
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    # What generated code and the chain call.

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._generic.extend(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = handler

    # Life.

    def start(self, address: str) -> None:
        """Take connections until the host is killed."""
        self.network.listen(address, self)
        self.host.on_kill.append(lambda: self.network.unlisten(address))

    # Calls.

    def accept(
        self, link: Link, method: str, metadata: tuple[tuple[str, str | bytes], ...], deadline_s: float | None
    ) -> ServerCall:
        """A call has arrived on a connection."""
        call = ServerCall(self.network, link, self.host, method, metadata, deadline_s)
        call.task = self.host.run(self._run(call), name=method)
        link.on_break[call.lost] = None
        return call

    def _find(self, call: ServerCall) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._methods.get(call.method)
        if handler is not None:
            return handler
        details = _Details(call.method, call.metadata)
        return next((h for g in self._generic if (h := g.service(details)) is not None), None)

    async def _run(self, call: ServerCall) -> None:
        await self.host.awake()
        handler = self._find(call)
        if handler is None:
            call.finish(grpc.StatusCode.UNIMPLEMENTED, f"no method {call.method}")
            return
        try:
            await _invoke(handler, call)
            call.finish(call.code_set or grpc.StatusCode.OK, call.details_set)
        except Finished:
            call.finish(call.code_set or grpc.StatusCode.UNKNOWN, call.details_set)
        except Broken:
            pass
        except asyncio.CancelledError:
            call.finish(grpc.StatusCode.CANCELLED, "")
            raise
        except Exception as error:
            call.finish(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
        finally:
            call.done()


async def _invoke(handler: grpc.RpcMethodHandler[Any, Any], call: ServerCall) -> None:
    call.deserialize = handler.request_deserializer or bytes
    call.serialize = handler.response_serializer or bytes
    if handler.request_streaming:
        behaviour: Any = handler.stream_stream if handler.response_streaming else handler.stream_unary
        argument: Any = call.requests()
    else:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
        argument = await call.read()
    result = behaviour(argument, call)
    if inspect.isasyncgen(result):
        async for response in result:
            await call.write(response)
        return
    answer = await result
    if not handler.response_streaming:
        await call.write(answer)


class ServerCall:
    """One call at the server; handlers take it for a grpc.aio.ServicerContext."""

    def __init__(
        self,
        network: Network,
        link: Link,
        host: Host,
        method: str,
        metadata: tuple[tuple[str, str | bytes], ...],
        deadline_s: float | None,
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.to_server = Pipe(network, link, host, self, on_cancel=self.cancel)
        self.to_client = Pipe(network, link, link.client, self)
        self.client = link.client
        self.task: asyncio.Task[None] | None = None
        self.seen: Any = None
        """What an observer of the network remembers of this call."""
        self.code_set: grpc.StatusCode | None = None
        self.details_set = ""
        self.deserialize: Callable[[bytes], Any] = bytes
        self.serialize: Callable[[Any], bytes] = bytes
        self._link = link
        self._deadline_s = deadline_s
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._callbacks: list[Callable[[Any], None]] = []
        self._finished = False
        self._half_closed = False

    # grpc.aio.ServicerContext.

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, Sequence[bytes]]:
        return {}

    def time_remaining(self) -> float | None:
        return None if self._deadline_s is None else max(0.0, self._deadline_s - asyncio.get_running_loop().time())

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(metadata)

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._trailing

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Carried by no test."""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code_set = code

    def set_details(self, details: str) -> None:
        self.details_set = details

    def code(self) -> grpc.StatusCode | None:
        return self.code_set

    def details(self) -> str:
        return self.details_set

    def cancelled(self) -> bool:
        return not self._link.alive

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        self.code_set, self.details_set = code, details
        if trailing_metadata:
            self._trailing = tuple(trailing_metadata)
        raise Finished

    async def abort_with_status(self, status: Any) -> None:
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def read(self) -> Any:
        """The next request; grpc.aio.EOF when the client has half-closed."""
        if self._half_closed:
            return grpc.aio.EOF
        message = await self.to_server.receive()
        if message is END:
            self._half_closed = True
            return grpc.aio.EOF
        return self.deserialize(message)

    async def requests(self) -> Any:
        while (request := await self.read()) is not grpc.aio.EOF:
            yield request

    async def write(self, response: Any) -> None:
        await self.to_client.room()
        self.to_client.send(("message", self.serialize(response)))

    # The end.

    @property
    def finished(self) -> bool:
        return self._finished

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        if not self._finished:
            self._finished = True
            if not self.to_client.broken:
                self.to_client.send(("status", code, details, self._trailing))

    def done(self) -> None:
        for callback in self._callbacks:
            callback(self)

    def settled(self) -> None:
        """Both sides know that it is over."""
        self._link.on_break.pop(self.lost, None)

    def lost(self) -> None:
        """The connection broke."""
        self.to_server.snap()
        self.to_client.snap()
        self.cancel()

    def cancel(self) -> None:
        """The client has cancelled."""
        self.settled()
        if self.task is not None:
            self.task.cancel()


Behaviour = Callable[[Any, ServerCall], Awaitable[Any]]
