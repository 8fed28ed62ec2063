"""Request bodies: each within a time and a length, all of them together within a number of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from trunkline.core.cloudevent import EVENT_BYTES_MAX
from trunkline.core.errors import DeadlineExceeded, LimitExceeded, NotReady

from .binding import Mode
from .config import HttpConfig
from .refused import Refused


class Bodies:
    """Counts what is held while it is held."""

    def __init__(self, config: HttpConfig) -> None:
        self.held_bytes = 0
        self._config = config
        self._coming: set[asyncio.Timeout] = set()
        self._why_ended = ""

    def end(self, why: str) -> None:
        """Give up the bodies that are still coming, and those of later requests that are not there at once, with NotReady:
        the server stops."""
        self._why_ended = why
        for timeout in self._coming:
            if not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())

    def check_length(self, mode: Mode, size: int) -> None:
        """Refused (413) for a body that is too long. One of the binary mode is an event's data, and no longer than an event."""
        if mode is Mode.BINARY and size > EVENT_BYTES_MAX:
            raise Refused(413, LimitExceeded("event_bytes_max", EVENT_BYTES_MAX))
        if size > self._config.body_bytes_max:
            raise Refused(413, LimitExceeded("http.body_bytes_max", self._config.body_bytes_max))

    @asynccontextmanager
    async def whole(self, pieces: AsyncIterable[bytes], mode: Mode) -> AsyncIterator[bytes]:
        """The body that these pieces make, counted until the block ends.

        Refused (413, 408), LimitExceeded, NotReady.
        """
        held: list[bytes] = []
        size = 0
        try:
            async with self._in_time():
                async for piece in pieces:
                    held.append(piece)
                    size += len(piece)
                    self.held_bytes += len(piece)
                    self.check_length(mode, size)
                    self._check_all()
            yield b"".join(held)
        finally:
            self.held_bytes -= size

    def _check_all(self) -> None:
        if self.held_bytes > self._config.body_bytes_in_flight_max:
            raise LimitExceeded("http.body_bytes_in_flight_max", self._config.body_bytes_in_flight_max)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        limit_ms = self._config.body_timeout_ms
        timeout = asyncio.timeout(0 if self._why_ended else limit_ms / 1_000)
        self._coming.add(timeout)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if self._why_ended:
                raise NotReady(self._why_ended) from None
            raise Refused(408, DeadlineExceeded(f"the body did not come within {limit_ms} ms")) from None
        finally:
            self._coming.discard(timeout)
