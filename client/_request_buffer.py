"""The requests of a stream, kept so that another attempt can send them again, as long as they are not too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

REQUEST_BUFFER_BYTES: Final = 256 * 1024
"""Of one call's serialized requests; gRPC's default for its per-call retry buffer. One more byte commits the call."""


class CallOver(Exception):
    """The call has ended: nothing is sent any more."""


class RequestBuffer:
    """One writer, and one reader after another; each reader begins with the first request.

    A request is taken from the writer when the present reader has handed the one before it on, so that the writer is
    held up as the network is. When more than `limit_bytes` would be kept, `overflowed` is set, what was sent is let go,
    and no further reader may begin.
    """

    def __init__(self, limit_bytes: int = REQUEST_BUFFER_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        """Requests that were let go."""
        self._sent = 0
        """Requests that the present reader has handed on."""
        self._reader = 0
        self._ended = False
        self._closed = False
        self._changed = asyncio.Event()
        self.overflowed = False
        """A further attempt cannot send everything."""

    async def put(self, request: bytes) -> None:
        """Returns when it was handed on. CallOver when the call ends first."""
        index = self._dropped + len(self._kept)
        self._kept.append(request)
        self._bytes += len(request)
        if self._bytes > self._limit_bytes:
            self.overflowed = True
            self._let_go()
        self._tell()
        while self._sent <= index:
            if self._closed:
                raise CallOver
            await self._changed.wait()

    def rewind(self) -> None:
        """An attempt has failed: its reader ends, and nothing counts as sent."""
        self._reader += 1
        self._sent = self._dropped
        self._tell()

    def end(self) -> None:
        """There are no more requests."""
        self._ended = True
        self._tell()

    @property
    def kept_bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    @property
    def ended(self) -> bool:
        """`end` was called."""
        return self._ended

    def close(self) -> None:
        """The call is over; whoever waits is told."""
        self._closed = True
        self._tell()

    async def requests(self) -> AsyncIterator[bytes]:
        """All of them, from the first on, for a new attempt; the reader before this one ends."""
        assert not self._dropped, "a committed call is not sent again"
        self.rewind()
        reader = self._reader
        while reader == self._reader and not self._closed:
            at = self._sent - self._dropped
            if at < len(self._kept):
                yield self._kept[at]
                if reader != self._reader:
                    return
                self._sent += 1
                self._let_go()
                self._tell()
            elif self._ended:
                return
            else:
                await self._changed.wait()

    def _let_go(self) -> None:
        """Of a call that cannot be repeated nothing is kept that was sent."""
        if self.overflowed:
            gone = self._sent - self._dropped
            self._bytes -= sum(map(len, self._kept[:gone]))
            del self._kept[:gone]
            self._dropped += gone

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
