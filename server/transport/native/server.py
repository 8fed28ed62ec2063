"""The native server, with the interface of grpc.aio.Server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc.aio import ServerInterceptor, UsageError

from trunkline.core.http2 import Limits
from trunkline.core.http2_stream import Budget

from ..config import TransportConfig
from .compression import NAMES
from .connection import Connection
from .deadlines import Deadlines
from .keeper import Keeper
from .routes import Routes
from .sockets import listen

log = logging.getLogger(__name__)

FAREWELL_S = 0.5
"""How long a peer may take to read why its calls ended when the server stops."""
_NO_LIMIT = 2**31 - 1


@dataclass(slots=True)
class Counts:
    """What the server has seen; read by metrics."""

    connections: int = 0
    refused: int = 0
    over_budget: int = 0
    silent: int = 0
    cut: Counter[str] = field(default_factory=Counter)


class NativeServer:
    """Serves what is registered on the loop that calls `start`.

    Handlers, interceptors and contexts are those of grpc.aio; a plain function runs in `threads`. Not there, and refused
    where they are given: grpc's opaque ServerCredentials (give an ssl.SSLContext) and `options` (see TransportConfig).
    """

    def __init__(
        self,
        config: TransportConfig | None = None,
        *,
        interceptors: Sequence[ServerInterceptor] = (),
        threads: ThreadPoolExecutor | None = None,
        compression: grpc.Compression = grpc.Compression.NoCompression,
        maximum_concurrent_rpcs: int | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.config = config or TransportConfig()
        self.threads = threads
        self.encoding = NAMES[compression]
        self.calls_max = _NO_LIMIT if maximum_concurrent_rpcs is None else maximum_concurrent_rpcs
        self.routes = Routes(interceptors)
        self.limits = limits_of(self.config)
        self.budget = Budget(self.config.unread_bytes_max)
        self.counts = Counts()
        self.connections: dict[Connection, None] = {}
        self.tasks: set[asyncio.Task[None] | None] = set()
        self.chance = chance
        self.is_open = True
        self.loop: asyncio.AbstractEventLoop
        self.deadlines: Deadlines
        self._sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._servers: list[asyncio.Server] = []
        self._keeper: Keeper | None = None
        self._due: list[Connection] = []
        self._stopping: asyncio.Future[None] | None = None
        self._cutting: asyncio.Event
        self._empty: asyncio.Event
        self._ended: asyncio.Event

    # The interface of grpc.aio.Server.

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See grpc.aio.Server."""
        self.routes.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """See grpc.aio.Server."""
        self.routes.add_registered(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen on HOST:PORT, [IPv6]:PORT or unix:PATH without TLS; the port (0 for a unix socket). sockets.Taken."""
        return self._listen(address, None)

    def add_secure_port(self, address: str, server_credentials: ssl.SSLContext) -> int:
        """The same with TLS. TypeError for grpc.ServerCredentials, whose contents cannot be read."""
        if not isinstance(server_credentials, ssl.SSLContext):
            raise TypeError("the native transport takes an ssl.SSLContext: grpc.ServerCredentials cannot be read")
        server_credentials.set_alpn_protocols(["h2"])
        return self._listen(address, server_credentials)

    def add_socket(self, made: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a socket that listens already: one that was inherited."""
        made.setblocking(False)
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._sockets.append((made, tls))

    @property
    def sockets(self) -> list[socket.socket]:
        """What it listens on."""
        return [made for made, _ in self._sockets]

    async def start(self) -> None:
        """Take connections. UsageError when it was started before."""
        if self._keeper is not None:
            raise UsageError("the server was started already")
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self._cutting, self._empty, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._keeper = Keeper(self)
        self._keeper.start()
        handshake_s = self.config.preface_timeout_ms / 1_000
        for made, tls in self._sockets:
            more: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": handshake_s}
            where = made
            if made.family == socket.AF_UNIX:
                server: Any = await self.loop.create_unix_server(self._connect, sock=where, **more)
            else:
                server = await self.loop.create_server(self._connect, sock=where, **more)
            self._servers.append(server)

    async def stop(self, grace: float | None) -> None:
        """Take no more connections and calls; wait `grace` seconds for those that are open, then end them.

        May be called again, with less grace.
        """
        if self._keeper is None:
            self._close_sockets()
            return
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        waiting: asyncio.Future[Any] = asyncio.shield(self._stopping)
        if grace:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting, grace)
                return
        self._cutting.set()
        await self._stopping

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - grpc.aio's signature
        """Return when the server has stopped: False; True when that took longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            return True
        return False

    # The connections' side.

    def flush_soon(self, connection: Connection) -> None:
        """Let it write when this turn of the loop is over. One handle for all of a turn: a change is told to thousands."""
        if not self._due:
            self.loop.call_soon(self._flush)
        self._due.append(connection)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for connection in due:
            if connection.is_flushing:  # else what it had was written meanwhile
                self.flush_now(connection)

    def flush_now(self, connection: Connection) -> None:
        """Let it write."""
        try:
            connection.flush()
        except Exception as error:
            log.error("a connection failed", exc_info=error)
            connection.abort()

    def connected(self, connection: Connection) -> None:
        """A connection was made; told to go when there are too many."""
        self.connections[connection] = None
        self._empty.clear()
        self.counts.connections += 1
        age_s = self.config.connection_age_ms_max / 1_000
        if age_s:
            connection.leave_at_s = connection.begun_s + age_s * (0.9 + 0.2 * self.chance())
        if len(self.connections) > self.config.connections_max:
            connection.tell("connections_max")
        elif not self.is_open:
            connection.abort()
        elif self._stopping is not None:
            connection.leave()

    def disconnected(self, connection: Connection) -> None:
        """It is gone."""
        self.connections.pop(connection, None)
        if not self.connections:
            self._empty.set()

    def cut(self, limit: str) -> None:
        """A peer went over a limit."""
        self.counts.cut[limit] += 1

    # Inside.

    def _connect(self) -> Connection:
        return Connection(self, self.counts.connections)

    def _listen(self, address: str, tls: ssl.SSLContext | None) -> int:
        found = listen(address, reuse_port=self.config.reuse_port)
        self._sockets.extend((made, tls) for made in found)
        return 0 if found[0].family == socket.AF_UNIX else int(found[0].getsockname()[1])

    def _close_sockets(self) -> None:
        for server in self._servers:
            server.close()
        for made, _ in self._sockets:
            made.close()

    async def _stop(self) -> None:
        """Drain, then cut what is left when told to."""
        self._close_sockets()
        for connection in tuple(self.connections):
            connection.drain()
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._empty, self._cutting)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        self.is_open = False
        await self._end_calls([task for task in self.tasks if task is not None])
        for connection in tuple(self.connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._empty.wait()
        for connection in tuple(self.connections):
            connection.abort()
        await self._empty.wait()
        assert self._keeper is not None
        await self._keeper.stop()
        self.deadlines.close()
        self._ended.set()

    async def _end_calls(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Cancel handlers and let them clean up; what they say of it still goes out."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for connection in tuple(self.connections):
            connection.leave()
        await asyncio.sleep(0)  # the flush of this turn


def limits_of(config: TransportConfig) -> Limits:
    """The sessions' share of the configuration."""
    return Limits(
        streams_max=config.streams_per_connection_max,
        header_bytes_max=config.metadata_bytes_max,
        message_bytes_max=config.receive_message_bytes_max,
        stream_window_bytes=config.stream_window_bytes,
        connection_window_bytes=config.connection_window_bytes,
        unread_bytes_max=config.unread_bytes_per_connection_max,
        resets_per_s_max=config.resets_per_s_max,
        settings_per_s_max=config.settings_per_s_max,
        empty_frames_per_s_max=config.empty_frames_per_s_max,
        ping_interval_ns_min=config.client_ping_interval_ms_min * 1_000_000,
    )
