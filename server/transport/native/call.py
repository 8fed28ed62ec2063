"""The life of one call: from its headers, through its handler, to its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc

from trunkline.core.http2_stream import Stream
from trunkline.server.eager import start

from ..sink import SinkConfig
from .answering import Answer, Answering
from .context import IDENTITY, Context
from .metadata import MalformedMetadata
from .routes import UNSERVED, Route
from .sink import NativeSink
from .status import OK, Ended
from .threads import run_in_thread

if TYPE_CHECKING:
    from .connection import Connection

log = logging.getLogger(__name__)

Code = grpc.StatusCode


class Call(Context):
    """A context that knows its stream's news and its handler's task."""

    __slots__ = ("_answering", "_is_started", "_relief", "_task", "ended_s", "tick")

    def __init__(self, connection: Connection, stream: Stream, route: Route, deadline_s: float | None) -> None:
        super().__init__(connection, stream, route, deadline_s)
        self._task: asyncio.Task[None] | None = None
        self._is_started = False
        self._relief: Callable[[], None] | None = None
        self._answering: Answering | None = None
        self.tick = 0
        self.ended_s = 0.0

    def begin(self) -> None:
        """The headers are there: begin, or wait for the one request."""
        server = self.connection.server
        if self.route.is_unary and self.stream.is_whole:  # what most calls are
            if self._deadline_s is not None:
                server.deadlines.begin(self, self._deadline_s)
            self._is_started = True
            start(server.loop, self._run_unary(), self._wait)
            return
        self.changed()
        if not self._is_started and not self._is_done:
            limit_s = server.loop.time() + server.config.request_timeout_ms / 1_000
            server.deadlines.begin(self, limit_s if self._deadline_s is None else min(limit_s, self._deadline_s))

    def changed(self) -> None:
        """Something came on the stream."""
        stream = self.stream
        if stream.is_closed:
            self.gone()
        elif stream.inbox.fault or stream.is_over_budget or (stream.is_ended and not stream.inbox.is_between):
            self._refuse_what_came()
        elif self._answering is not None:
            self._answering.changed()
        elif self._reading is not None:
            if not self._reading.done():
                self._reading.set_result(None)
        elif not self._is_started and not self._is_done and (stream.is_ended or self.route.needs_no_request):
            self._start()

    def relieved(self) -> None:
        """There is room for more."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._relief is not None:
            relief, self._relief = self._relief, None
            relief()

    def when_relieved(self, callback: Callable[[], None], low_water_bytes: int) -> None:
        """Call back, once, when no more than this waits."""
        self._relief = callback
        self.stream.want_room(low_water_bytes)

    def make_sink(self, config: SinkConfig) -> NativeSink:
        """The writing end of this call for long streams; see sink.sink_of."""
        return NativeSink(self, config)

    async def answer_each(self, answer: Answer) -> None:
        """Answer each request at once, where it comes in, until the client sends no more. Raises what `answer` raises."""
        self._answering = Answering(self, answer)
        await self._answering.run()

    def gone(self) -> None:
        """The client has broken the call off, or the connection is lost."""
        self.connection.server.deadlines.end(self)
        if self._is_done:
            return
        self._is_cancelled = self._is_done = True
        self._code = Code.CANCELLED
        if self._task is not None:
            self._task.cancel()

    def expire(self) -> None:
        """The deadline has passed, or the request took too long to come."""
        self.fail(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def fail(self, code: Code, details: str) -> None:
        """End the call with this status, whatever its handler is doing."""
        if self._is_done:
            return
        self._code, self._details, self._trailing = code, details, ()
        self.end()
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Send the status."""
        if not self._is_done:
            self._has_ended()
            if self.tick:
                self.connection.server.deadlines.end(self)
            super().end()

    def _start(self) -> None:
        if not self.route.needs_no_request:
            count = len(self.stream.inbox)
            if count != 1:  # https://github.com/grpc/grpc/blob/master/doc/statuscodes.md: cardinality violation
                self.fail(Code.UNIMPLEMENTED, f"the method takes one request, not {count}")
                return
        server = self.connection.server
        if self._deadline_s is not None:
            server.deadlines.begin(self, self._deadline_s)
        elif self.tick:
            server.deadlines.end(self)
        self._is_started = True
        start(server.loop, self._run(), self._wait)

    def _wait(self, task: asyncio.Task[None]) -> None:
        """The handler waits for something."""
        self._task = task
        self.connection.server.tasks.add(task)

    def _refuse_what_came(self) -> None:
        inbox, config = self.stream.inbox, self.connection.server.config
        if self.stream.is_over_budget:
            self.connection.server.counts.over_budget += 1
            self.fail(Code.RESOURCE_EXHAUSTED, "too much that was received here is not yet read")
        elif inbox.too_long_bytes:
            limit = config.receive_message_bytes_max
            self.fail(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({inbox.too_long_bytes} vs. {limit})")
        elif inbox.fault:
            self.fail(Code.INTERNAL, "a message begins with a byte that is neither 0 nor 1")
        else:
            self.fail(Code.INTERNAL, "the stream ended within a message")

    async def _run_unary(self) -> None:
        try:
            message, route = self.stream.take(), self.route
            assert message is not None, "a whole request has its message"
            request = route.deserialize(message if isinstance(message, bytes) else self._opened(message))
            response = await route.behaviour(request, self)
            if not self._is_done:
                self._answer(route.serialize(response))
        except BaseException as error:
            self._end_after(error)
        finally:
            self._leave()

    async def _run(self) -> None:
        try:
            if not self.connection.server.routes.are_fixed:
                await self._intercept()
            await self._behave()
            self.end()
        except BaseException as error:
            self._end_after(error)
        finally:
            self._leave()

    def _answer(self, data: bytes) -> None:
        """Send the one response and the status."""
        connection = self.connection
        is_short = len(data) <= connection.server.config.send_message_bytes_max
        if self._code is not OK or self._trailing or self._details or self._encoding is not IDENTITY or not is_short:
            self._send(data)
            self.end()
            return
        self._has_ended()
        self._is_done = True
        if self.tick:
            connection.server.deadlines.end(self)
        self.stream.reply(data)
        connection.want_flush()

    def _has_ended(self) -> None:
        """The keeper looks whether the peer takes the end."""
        connection = self.connection
        self.ended_s = connection.loop.time()
        if not connection.ended_s:
            connection.ended_s = self.ended_s

    def _end_after(self, error: BaseException) -> None:
        """End a call whose handler raised. What is no Exception and no cancellation goes on."""
        if isinstance(error, asyncio.CancelledError):
            self._end_with(Code.CANCELLED, "")
        elif isinstance(error, Ended):
            self._end_with(error.code, error.details)
        elif isinstance(error, MalformedMetadata):
            self._end_with(Code.INTERNAL, str(error))
        elif error is not self._aborted:
            if not isinstance(error, Exception):
                raise error
            self._failed(error)

    def _end_with(self, code: Code, details: str) -> None:
        if not self._is_done:
            self._code, self._details = code, details
            self.end()

    def _leave(self) -> None:
        """The handler is done."""
        if self._task is not None:
            self.connection.server.tasks.discard(self._task)
        if self._callbacks is not None:
            self._call_back()

    async def _intercept(self) -> None:
        """Let the interceptors say what serves this call."""
        route = await self.connection.server.routes.intercepted(self.stream.path, self.invocation_metadata())
        if route is None:
            raise Ended(Code.UNIMPLEMENTED, UNSERVED)
        self.route = route

    async def _behave(self) -> None:
        """Run the handler in the way of its kind."""
        route = self.route
        request = self._requests() if route.takes_stream else await self._request()
        if not route.is_async:
            await run_in_thread(self, request)
        elif not route.yields_stream:
            response = await route.behaviour(request, self)
            if not self._is_done:
                self._send(route.serialize(response))
        elif route.yields:
            async for response in route.behaviour(request, self):
                await self.write(response)
        else:
            await route.behaviour(request, self)

    async def _request(self) -> Any:
        """The one request, which interceptors did not wait for."""
        server = self.connection.server
        if self._deadline_s is None:
            server.deadlines.begin(self, server.loop.time() + server.config.request_timeout_ms / 1_000)
        request = await self.read()
        if self._deadline_s is None:
            server.deadlines.end(self)
        if request is grpc.aio.EOF:
            raise Ended(Code.UNIMPLEMENTED, "the method takes one request, not 0")
        return request

    async def _requests(self) -> AsyncIterator[Any]:
        while (request := await self.read()) is not grpc.aio.EOF:
            yield request

    def _failed(self, error: Exception) -> None:
        """The handler raised what it should not have."""
        log.error("a handler failed", exc_info=error, extra={"method": self.route.path})
        if not self._is_done:
            self._code = Code.UNKNOWN if self._code is OK else self._code
            self._details = f"Unexpected {type(error)}: {error}"
            self.end()

    def _call_back(self) -> None:
        for callback in self._callbacks or ():
            try:
                callback(self)
            except Exception as error:
                log.error("a done callback failed", exc_info=error, extra={"method": self.route.path})
