"""Looks after a server's connections every few seconds: silent ones, slow ones, old ones."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .connection import Connection
    from .server import NativeServer

EVERY_S_MAX: Final = 2.5
"""From look to look; less where a limit is so short that a quarter of it is less."""
NOTICE_S: Final = 1.0
"""How long a peer may take to answer the notice before it is told to go."""
_SLICE: Final = 1_000
"""Connections that are looked at without letting others run."""


class Keeper:
    """One task for all connections, because a timer each costs more than all there is to do."""

    def __init__(self, server: NativeServer) -> None:
        self._server = server
        self._config = server.config
        self._task: asyncio.Task[None] | None = None
        config = server.config
        limits_ms = (
            config.keepalive_time_ms,
            config.keepalive_timeout_ms,
            config.preface_timeout_ms,
            config.headers_timeout_ms,
            config.connection_age_ms_max,
            config.connection_idle_ms_max,
        )
        shortest_ms = min(limit_ms for limit_ms in limits_ms if limit_ms)
        self._every_s = min(EVERY_S_MAX, shortest_ms / 4_000)

    def start(self) -> None:
        """Begin."""
        self._task = self._server.loop.create_task(self._run(), name="keeper of connections")

    async def stop(self) -> None:
        """End, and wait for it."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            now_s = self._server.loop.time()
            for number, connection in enumerate(tuple(self._server.connections)):
                self._look_at(connection, now_s)
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)

    def _look_at(self, connection: Connection, now_s: float) -> None:
        config, session = self._config, connection.session
        if connection.closing_s:
            if now_s - connection.closing_s > config.linger_timeout_ms / 1_000:
                connection.abort()
        elif not session.is_greeted:
            if now_s - connection.begun_s > config.preface_timeout_ms / 1_000:
                connection.tell("preface_timeout_ms")
        elif session.headers_since_ns and now_s - session.headers_since_ns / 1e9 > config.headers_timeout_ms / 1_000:
            connection.tell("headers_timeout_ms")
        elif connection.pinged_s:
            if now_s - max(connection.pinged_s, connection.heard_s) > config.keepalive_timeout_ms / 1_000:
                self._server.counts.silent += 1
                connection.abort()
        elif now_s - connection.heard_s > config.keepalive_time_ms / 1_000:
            connection.ping()
        if now_s > connection.leave_at_s or config.connection_idle_ms_max:
            self._look_at_age(connection, now_s)
        if connection.ended_s and now_s - connection.ended_s > config.linger_timeout_ms / 1_000:
            self._look_at_streams(connection, now_s)

    def _look_at_age(self, connection: Connection, now_s: float) -> None:
        config, idle_s = self._config, self._config.connection_idle_ms_max / 1_000
        if now_s > connection.leave_at_s:
            if connection.session.is_leaving or now_s > connection.leave_at_s + NOTICE_S:
                if now_s > connection.leave_at_s + config.connection_age_grace_ms / 1_000:
                    connection.abort()
                elif not connection.session.is_leaving:
                    connection.leave()  # no answer to the notice
            else:
                connection.drain()
        elif idle_s and not connection.session.streams and now_s - connection.called_s > idle_s:
            connection.drain()

    def _look_at_streams(self, connection: Connection, now_s: float) -> None:
        """Reset what has ended and is not taken."""
        late_s = now_s - self._config.linger_timeout_ms / 1_000
        connection.ended_s = 0.0
        for stream in tuple(connection.session.streams.values()):
            call = stream.call
            if call is None or not call.ended_s:
                continue
            if call.ended_s < late_s:
                stream.reset(0x8)
                connection.want_flush()
            else:
                connection.ended_s = min(connection.ended_s or now_s, call.ended_s)
