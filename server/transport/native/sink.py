"""The native sink: pieces go to the stream as they are, and become messages when its turn to be written comes.

No task is woken for a piece and no message object is made; the bytes are those that every other stream was offered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from trunkline.core.errors import LimitExceeded

from ..sink import SinkConfig

if TYPE_CHECKING:
    from .call import Call


class NativeSink:
    """See sink.Sink. `run` only waits: for the end of the call, or for a peer that takes nothing for too long."""

    def __init__(self, call: Call, config: SinkConfig) -> None:
        self.ready = True
        self._call = call
        self._connection = call.connection
        self._stream = call.stream
        self._stream.piece_message_bytes_max = config.message_bytes_max
        self._config = config
        self._callbacks: list[Callable[[], None]] = []
        self._is_closed = False
        self._over: asyncio.Future[None] = call.connection.loop.create_future()
        self._watching: asyncio.TimerHandle | None = None
        self._sent_when_watched = 0

    @property
    def pending_bytes(self) -> int:
        """See Sink."""
        return self._stream.pending_bytes

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        """See Sink. Offers after the end of the stream are dropped."""
        if self._is_closed:
            return False
        config = self._config
        waiting = self._stream.offer(data)
        connection = self._connection
        if not connection.is_flushing:
            connection.want_flush()
        if waiting > config.high_water_bytes:
            if waiting > config.pending_bytes_max:
                self._fail("sink_pending_bytes_max", config.pending_bytes_max)
            elif self.ready:
                self.ready = False
                self._call.when_relieved(self._become_ready, config.low_water_bytes)
        if self._watching is None:
            self._watch()
        return self.ready

    def flush(self) -> None:
        """See Sink."""
        connection = self._connection
        if connection.is_flushing:
            connection.server.flush_now(connection)

    def on_ready(self, callback: Callable[[], None]) -> None:
        """See Sink."""
        self._callbacks.append(callback)

    def close(self) -> None:
        """Take nothing more. What waits goes out before the call's status."""
        self._is_closed = True
        if not self._over.done():
            self._over.set_result(None)

    async def run(self) -> None:
        """Wait for the end. LimitExceeded when the peer is too slow."""
        try:
            await self._over
        finally:
            self._is_closed = True
            if self._watching is not None:
                self._watching.cancel()

    def _become_ready(self) -> None:
        if not self.ready and not self._is_closed:
            self.ready = True
            for callback in self._callbacks:
                callback()

    def _watch(self) -> None:
        """Look again when the time for a write is over: has anything been taken?"""
        self._sent_when_watched = self._stream.sent_bytes
        self._watching = self._call.connection.loop.call_later(self._config.write_timeout_ms / 1_000, self._look)

    def _look(self) -> None:
        self._watching = None
        if self._is_closed or self._stream.is_closed or not self._stream.pending_bytes:
            return
        if self._stream.sent_bytes == self._sent_when_watched:
            self._fail("sink_write_timeout_ms", self._config.write_timeout_ms)
        else:
            self._watch()

    def _fail(self, limit: str, value: int) -> None:
        self.ready = False
        self._is_closed = True
        self._stream.drop_pending()  # what was too much is let go at once, not when the peer reads
        if not self._over.done():
            self._over.set_exception(LimitExceeded(limit, value))
