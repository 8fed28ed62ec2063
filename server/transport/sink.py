"""Where long streams write: pieces of encoded responses in, as few gRPC messages as possible out.

A piece is one or more whole fields of the response message. Pieces that wait are concatenated, which protobuf reads as
one message, so two responses must say the same when they are concatenated (WatchResponse, SubscribeResponse).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from trunkline.core.errors import LimitExceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkConfig:
    """Bounds of what waits for one stream's peer."""

    high_water_bytes: int = 256 * 1024
    """`offer` answers False above this: the writer should wait until ready."""
    low_water_bytes: int = 64 * 1024
    """Ready again at or below this."""
    pending_bytes_max: int = 8 * 1024 * 1024
    """A stream that is offered more than this although it is not ready is ended with RESOURCE_EXHAUSTED."""
    message_bytes_max: int = 256 * 1024
    """Pieces are concatenated up to this; a longer piece goes alone."""
    write_timeout_ms: int = 30_000
    """A peer that does not take one message for so long is given up with RESOURCE_EXHAUSTED."""

    def __post_init__(self) -> None:
        assert 0 <= self.low_water_bytes <= self.high_water_bytes <= self.pending_bytes_max
        assert self.message_bytes_max > 0
        assert self.write_timeout_ms > 0


class Sink(Protocol):
    """The writing end of one stream. Takes encoded bytes, never blocks, tells when to pause."""

    ready: bool
    """False from an offer that passed the high-water mark until what waits is down to the low-water mark."""

    @property
    def pending_bytes(self) -> int:
        """Offered and not yet given to the transport."""

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        """Queue one piece, or several. Returns `ready`; what was offered is taken even when that is False."""

    def flush(self) -> None:
        """Write what was offered now, if that can be, and not when this turn of the loop is over."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call back on the loop each time the sink becomes ready again."""


class RunningSink(Sink, Protocol):
    """A sink as its call's owner sees it. A context that has `make_sink(config)` has one of its own kind."""

    def close(self) -> None:
        """Take nothing more; `run` returns when what waits is written, or will be whatever comes."""

    async def run(self) -> None:
        """LimitExceeded when the peer is too slow; the stream's error when it is gone."""


class Writer(Protocol):
    """All that a sink wants of a call's context."""

    async def write(self, message: Any, /) -> None: ...


class StreamSink:
    """A sink of a grpc.aio stream: `run` writes until closed and empty, or until the stream fails."""

    def __init__(self, config: SinkConfig, context: Writer) -> None:
        self.pending_bytes = 0
        self.ready = True
        self._config = config
        self._context = context
        self._pieces: deque[bytes] = deque()
        self._callbacks: list[Callable[[], None]] = []
        self._work = asyncio.Event()
        self._closed = False
        self._failure: LimitExceeded | None = None
        self._deadline: asyncio.Timeout | None = None

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        """See Sink. Offers after the end of the stream are dropped."""
        if self._failure is not None or self._closed:
            return False
        if isinstance(data, bytes):
            self._pieces.append(data)
            self.pending_bytes += len(data)
        else:
            for piece in data:
                self._pieces.append(piece)
                self.pending_bytes += len(piece)
        if self.pending_bytes > self._config.high_water_bytes:
            self.ready = False
            if self.pending_bytes > self._config.pending_bytes_max:
                self._fail("sink_pending_bytes_max", self._config.pending_bytes_max)
                if self._deadline is not None:
                    self._deadline.reschedule(asyncio.get_running_loop().time())
        self._work.set()
        return self.ready

    def flush(self) -> None:
        """See Sink. `run` writes as soon as it can."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """See Sink."""
        self._callbacks.append(callback)

    def close(self) -> None:
        """Take nothing more; `run` returns when what waits is written."""
        self._closed = True
        self._work.set()

    async def run(self) -> None:
        """Write what is offered. LimitExceeded when the peer is too slow; the stream's error when it is gone."""
        try:
            while await self._wait_for_work():
                await self._write(self._next_message())
                self._become_ready()
        finally:
            self._closed = True
            self._pieces.clear()

    async def _wait_for_work(self) -> bool:
        """True when there is something to write, False when there never will be."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._pieces:
                return True
            if self._closed:
                return False
            self._work.clear()
            await self._work.wait()

    def _next_message(self) -> bytes:
        pieces, limit = self._pieces, self._config.message_bytes_max
        first = pieces.popleft()
        if not pieces or len(first) + len(pieces[0]) > limit:
            self.pending_bytes -= len(first)
            return first
        taken, size = [first], len(first)
        while pieces and size + len(pieces[0]) <= limit:
            size += len(pieces[0])
            taken.append(pieces.popleft())
        self.pending_bytes -= size
        return b"".join(taken)

    async def _write(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(self._config.write_timeout_ms / 1_000) as self._deadline:
                await self._context.write(message)
        except TimeoutError:
            failure = self._failure or self._fail("sink_write_timeout_ms", self._config.write_timeout_ms)
            raise failure from None
        finally:
            self._deadline = None

    def _become_ready(self) -> None:
        if not self.ready and self._failure is None and self.pending_bytes <= self._config.low_water_bytes:
            self.ready = True
            for callback in self._callbacks:
                callback()

    def _fail(self, limit: str, value: int) -> LimitExceeded:
        self._failure = LimitExceeded(limit, value)
        self.ready = False
        self._pieces.clear()  # what was too much is let go at once, not when the peer reads
        return self._failure


@contextlib.asynccontextmanager
async def sink_of(context: Writer, config: SinkConfig) -> AsyncIterator[Sink]:
    """The sink of a call, for the time of the block.

    What was offered is written before the call ends, if the block is left in peace. When writing fails the block is
    cancelled and the failure raised, within an ExceptionGroup; when the block fails, writing ends.
    """
    make: Callable[[SinkConfig], RunningSink] | None = getattr(context, "make_sink", None)
    sink = StreamSink(config, context) if make is None else make(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run())
        yield sink
        sink.close()
