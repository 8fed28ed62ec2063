"""The client's side of the simulated network: an object with grpc.aio.Channel's interface."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

import grpc
from simulation.network import Broken, Cancelled, Link, Network
from simulation.server import END, Server, ServerCall
from simulation.virtual import Host

CONNECT_BACKOFF_S = (0.2, 1.6)
RESPONSES_MAX = 16
"""Read and not yet asked for by the application; beyond it the connection's window fills."""
IDENTITY: Callable[[Any], Any] = bytes
Metadata = tuple[tuple[str, str | bytes], ...]


def _metadata(given: Any) -> Metadata:
    return tuple(given or ())


class Channel:
    """One connection to one address, reconnected when it is needed again."""

    def __init__(self, network: Network, client: Host, address: str) -> None:
        self.network = network
        self.client = client
        self.address = address
        self.state = grpc.ChannelConnectivity.IDLE
        self._link: Link | None = None
        self._server: Server | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closed = False
        self._calls: dict[Call, None] = {}
        self._tasks: dict[asyncio.Task[Any], None] = {}

    # grpc.aio.Channel.

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return Multicallable(self, method, request_serializer, response_deserializer, False, False)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return Multicallable(self, method, request_serializer, response_deserializer, False, True)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return Multicallable(self, method, request_serializer, response_deserializer, True, False)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return Multicallable(self, method, request_serializer, response_deserializer, True, True)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if try_to_connect and self.state is grpc.ChannelConnectivity.IDLE and not self._closed:
            task = asyncio.get_running_loop().create_task(self._try_connect())
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(task, None))
        return self.state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        while self.state is last_observed_state:
            self._changed.clear()
            await self._changed.wait()

    async def channel_ready(self) -> None:
        while self.state is not grpc.ChannelConnectivity.READY:
            try:
                await self.link()
            except Broken:
                await asyncio.sleep(self._backoff_s())

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace or 0):
                for call in list(self._calls):
                    await call.code()
        for call in list(self._calls):
            call.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._link is not None:
            self.network.disconnect(self._link)
        self._become(grpc.ChannelConnectivity.SHUTDOWN)

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # The connection.

    def _become(self, state: grpc.ChannelConnectivity) -> None:
        if self.state is not state and self.state is not grpc.ChannelConnectivity.SHUTDOWN:
            self.state = state
            self._changed.set()

    def _backoff_s(self) -> float:
        low, high = CONNECT_BACKOFF_S
        return low + (high - low) * self.network.rng.random()

    async def _try_connect(self) -> None:
        with contextlib.suppress(Broken):
            await self.link()

    async def link(self) -> tuple[Link, Server]:
        """The connection, made if there is none. Broken when it cannot be made."""
        async with self._connecting:
            if self._closed:
                raise Broken
            if self._link is not None and self._link.alive and self._server is not None:
                return self._link, self._server
            self._become(grpc.ChannelConnectivity.CONNECTING)
            try:
                link, server = await self.network.connect(self.client, self.address)
            except Broken:
                self._become(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
                asyncio.get_running_loop().call_later(self._backoff_s(), self._idle_again)
                raise
            self._link, self._server = link, server
            link.on_break[self._lost] = None
            self._become(grpc.ChannelConnectivity.READY)
            return link, server

    def _idle_again(self) -> None:
        if self.state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._become(grpc.ChannelConnectivity.IDLE)

    def _lost(self) -> None:
        self._link = None
        self._become(grpc.ChannelConnectivity.IDLE)


class Multicallable:
    """A method; calling it makes a call."""

    def __init__(
        self, channel: Channel, method: str, serialize: Any, deserialize: Any, streams_in: bool, streams_out: bool
    ) -> None:
        self._channel = channel
        self._method = method
        self._serialize = serialize or IDENTITY
        self._deserialize = deserialize or IDENTITY
        self._streams_in = streams_in
        self._streams_out = streams_out

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        wait_for_ready: bool | None = None,
        **_: Any,
    ) -> Call:
        call = Call(self._channel, self._method, self._serialize, self._deserialize, streams_out=self._streams_out)
        call.start(request, self._streams_in, timeout, _metadata(metadata), bool(wait_for_ready))
        return call


class Call:
    """A call: awaited for its one response, or iterated and read for many."""

    def __init__(self, channel: Channel, method: str, serialize: Any, deserialize: Any, *, streams_out: bool) -> None:
        self._channel = channel
        self._method = method
        self._serialize = serialize
        self._deserialize = deserialize
        self._streams_out = streams_out
        loop = asyncio.get_running_loop()
        self._call: asyncio.Future[ServerCall] = loop.create_future()
        self._status: tuple[grpc.StatusCode, str, Metadata] | None = None
        self._ended = asyncio.Event()
        self._responses: asyncio.Queue[Any] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._callbacks: list[Callable[[Any], None]] = []
        self._half_closed = False

    def start(
        self, request: Any, streams_in: bool, timeout: float | None, metadata: Metadata, wait_for_ready: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        self._channel._calls[self] = None
        deadline = None if timeout is None else loop.time() + timeout
        if deadline is not None:
            timer = loop.call_at(deadline, self._end, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ())
            self._callbacks.append(lambda _: timer.cancel())
        self._tasks.append(loop.create_task(self._connect_and_read(metadata, deadline, wait_for_ready)))
        if not streams_in:
            self._tasks.append(loop.create_task(self._send_all([request])))
        elif request is not None:
            self._tasks.append(loop.create_task(self._send_all(request)))

    async def _connect_and_read(self, metadata: Metadata, deadline: float | None, wait_for_ready: bool) -> None:
        while True:
            try:
                link, server = await self._channel.link()
                break
            except Broken:
                if not wait_for_ready:
                    self._end(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses: connection refused", ())
                    return
                await asyncio.sleep(self._channel._backoff_s())
        call = server.accept(link, self._method, metadata, deadline)
        self._call.set_result(call)
        try:
            while True:
                while self._responses.qsize() >= RESPONSES_MAX:
                    self._taken.clear()
                    await self._taken.wait()
                kind, *rest = await call.to_client.receive()
                if kind == "status":
                    self._end(*rest)
                    return
                self._responses.put_nowait(self._deserialize(rest[0]))
        except Broken:
            self._end(grpc.StatusCode.UNAVAILABLE, "Socket closed: connection reset by peer", ())

    async def _send_all(self, requests: Iterable[Any] | AsyncIterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the status tells it to whoever waits

    def _end(self, code: grpc.StatusCode, details: str, trailing: Metadata) -> None:
        if self._status is not None:
            return
        self._status = (code, details, trailing)
        self._channel._calls.pop(self, None)
        if self._call.done() and not self._call.cancelled():
            call = self._call.result()
            if code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
                with contextlib.suppress(Broken):
                    call.to_server.send(
                        Cancelled
                    )  # if the connection breaks before that arrives, the server knows by it
            else:
                call.settled()
        current = asyncio.current_task() if asyncio._get_running_loop() else None
        for task in self._tasks:
            if task is not current:
                task.cancel()
        if not self._call.done():
            self._call.cancel()
        self._ended.set()
        self._responses.put_nowait(grpc.aio.EOF)
        for callback in self._callbacks:
            callback(self)

    def _error(self) -> grpc.aio.AioRpcError:
        assert self._status is not None
        code, details, trailing = self._status
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)

    # grpc.aio.Call.

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        self._end(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", ())
        return True

    def cancelled(self) -> bool:
        return self._status is not None and self._status[0] is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def code(self) -> grpc.StatusCode:
        await self._ended.wait()
        assert self._status is not None
        return self._status[0]

    async def details(self) -> str:
        await self._ended.wait()
        assert self._status is not None
        return self._status[1]

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await self._reached()
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await self._ended.wait()
        assert self._status is not None
        return grpc.aio.Metadata(*self._status[2])

    async def wait_for_connection(self) -> None:
        await self._reached()
        if self._status is not None and self._status[0] is not grpc.StatusCode.OK:
            raise self._error()

    async def _reached(self) -> None:
        await asyncio.wait([asyncio.ensure_future(asyncio.shield(self._call))])

    async def write(self, request: Any) -> None:
        if self._half_closed:
            raise asyncio.InvalidStateError("RPC is half closed")
        try:
            call = await asyncio.shield(self._call)
            call.to_server.send(self._serialize(request))
        except (Broken, asyncio.CancelledError):
            if self._status is None:
                raise
            raise self._error() from None

    async def done_writing(self) -> None:
        if self._half_closed:
            return
        self._half_closed = True
        try:
            (await asyncio.shield(self._call)).to_server.send(END)
        except (Broken, asyncio.CancelledError):
            if self._status is None:
                raise

    async def read(self) -> Any:
        response = await self._responses.get()
        self._taken.set()
        if response is grpc.aio.EOF:
            self._responses.put_nowait(grpc.aio.EOF)
            assert self._status is not None
            if self._status[0] is grpc.StatusCode.CANCELLED:
                raise asyncio.CancelledError
            if self._status[0] is not grpc.StatusCode.OK:
                raise self._error()
        return response

    async def __aiter__(self) -> Any:
        while (response := await self.read()) is not grpc.aio.EOF:
            yield response

    def __await__(self) -> Any:
        return self._one().__await__()

    async def _one(self) -> Any:
        try:
            response = await self.read()
            await self._ended.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        assert self._status is not None
        if self._status[0] is not grpc.StatusCode.OK:
            raise self._error()
        return response
