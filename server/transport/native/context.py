"""What a handler is given: the interface of grpc.aio.ServicerContext over a stream of the native transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
from grpc.aio import AbortError, UsageError

from trunkline.core.framing import Compressed
from trunkline.core.http2_stream import Stream

from .compression import NAMES, TooLong, compressed, decompressed
from .metadata import Metadata, Metadatum, encoded, percent_encoded
from .status import OK, code_number, status_of

if TYPE_CHECKING:
    from .connection import Connection
    from .routes import Route

DoneCallback = Callable[[Any], None]
IDENTITY = NAMES[grpc.Compression.NoCompression]


class Context:
    """One call, as its handler sees it. Methods are those of grpc.aio.ServicerContext, and behave as they do there."""

    __slots__ = (
        "_aborted",
        "_callbacks",
        "_code",
        "_compress_next",
        "_deadline_s",
        "_details",
        "_encoding",
        "_is_cancelled",
        "_is_done",
        "_reading",
        "_room",
        "_trailing",
        "connection",
        "route",
        "stream",
    )

    def __init__(self, connection: Connection, stream: Stream, route: Route, deadline_s: float | None) -> None:
        self.connection = connection
        self.stream = stream
        self.route = route
        self._deadline_s = deadline_s
        self._code: Any = OK
        self._details = ""
        self._trailing: tuple[Any, ...] = ()
        self._callbacks: list[DoneCallback] | None = None
        self._encoding: bytes = connection.server.encoding
        self._compress_next = True
        self._aborted: AbortError | None = None
        self._is_cancelled = False
        self._is_done = False
        self._reading: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # Of the call.

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """What the client sent with the call. MalformedMetadata."""
        return self.connection.metadata_of(self.stream)

    def peer(self) -> str:
        """ipv4:HOST:PORT, ipv6:%5BHOST%5D:PORT or unix:, as grpcio writes them."""
        return self.connection.peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Properties of the client's certificate, under grpcio's names; empty without TLS."""
        return self.connection.auth_context

    def peer_identity_key(self) -> str | None:
        """The property that names the peer."""
        properties = self.auth_context()
        names = ("x509_subject_alternative_name", "x509_common_name")
        return next((name for name in names if name in properties), None)

    def peer_identities(self) -> Iterable[bytes] | None:
        """The peer's names; None without a client certificate."""
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - self.connection.loop.time())

    def cancelled(self) -> bool:
        """Whether the client has gone, or the deadline has passed."""
        return self._is_cancelled

    def done(self) -> bool:
        """Whether the status was sent."""
        return self._is_done

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call back with this context when the call is over."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    # Of the status.

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """The status to end with."""
        self._code = status_of(code)

    def set_details(self, details: str) -> None:
        """Its message."""
        self._details = details

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """What goes with the status. ValueError for what cannot be sent."""
        trailing = tuple(metadata)
        encoded(trailing)
        self._trailing = trailing

    def code(self) -> Any:
        """The status set so far, or sent."""
        return self._code

    def details(self) -> str:
        """Its message."""
        return self._details

    def trailing_metadata(self) -> tuple[Any, ...]:
        """What goes with it."""
        return self._trailing

    async def abort(self, code: Any, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call with this status. Raises AbortError always; UsageError when it was called before."""
        if self._aborted is not None:
            raise UsageError("abort was called already")
        self._raise_if_over()
        trailing = tuple(trailing_metadata) or self._trailing
        encoded(trailing)  # a fault of the handler's is raised here, not swallowed by the end of the call
        self._trailing = trailing
        self._details = details or self._details
        self._code = status_of(code)
        if self._code is OK:
            raise UsageError("a call cannot be aborted with OK")
        self._aborted = AbortError("Locally aborted.")
        self.end()
        raise self._aborted

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """The same with a grpc.Status."""
        await self.abort(status.code, status.details or "", status.trailing_metadata or ())

    # Of messages.

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress responses, if the client takes it. RuntimeError once the headers are sent."""
        if self.stream.has_responded:
            raise RuntimeError("compression must be set before the initial metadata is sent")
        self._encoding = NAMES[compression]

    def disable_next_message_compression(self) -> None:
        """Send the next response as it is."""
        self._compress_next = False

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Send metadata ahead of any response. UsageError when it was sent already."""
        self._raise_if_over()
        if self.stream.has_responded:
            raise UsageError("Send initial metadata failed: already sent")
        self._respond(initial_metadata)
        self.connection.want_flush()

    async def read(self) -> Any:
        """The next request; grpc.aio.EOF after the last. CancelledError when the client has gone."""
        self._raise_if_over()
        while (request := self.take()) is None:
            if self.stream.is_ended:
                return grpc.aio.EOF
            if self._reading is not None:
                raise UsageError("only one read at a time")
            self._reading = self.connection.loop.create_future()
            try:
                await self._reading
            finally:
                self._reading = None
            self._raise_if_over()
        if self.connection.session.wants_write:  # the peer has got room
            self.connection.want_flush()
        return request

    def take(self) -> Any:
        """The next request that is here; None when there is none. CancelledError for one that ends the call."""
        message = self.stream.take()
        if message is None:
            return None
        return self.route.deserialize(message if isinstance(message, bytes) else self._opened(message))

    async def write(self, message: Any) -> None:
        """Send a response; waits while too much waits. CancelledError when the client has gone."""
        self._raise_if_over()
        waiting = self.send(message)
        self.connection.want_flush()
        if waiting > self.connection.server.config.write_high_water_bytes:
            await self._wait_for_room()

    def send(self, message: Any) -> int:
        """Queue a response; how many bytes wait now. A flush must follow. CancelledError for one that ends the call."""
        return self._send(self.route.serialize(message))

    async def _wait_for_room(self) -> None:
        if self._room is not None:
            raise UsageError("only one write at a time")
        self.stream.want_room(self.connection.server.config.write_high_water_bytes // 4)
        self._room = self.connection.loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _send(self, data: bytes) -> int:
        """Queue a message; how many bytes wait now. CancelledError for one that is too long."""
        limit = self.connection.server.config.send_message_bytes_max
        if self._encoding is not IDENTITY:
            return self._send_compressed(data, limit)
        if len(data) > limit:
            self._refuse_to_send(len(data), limit)
        return self.stream.write(data)

    def _send_compressed(self, data: bytes, limit: int) -> int:
        if not self.stream.has_responded:
            self._respond(())
        packed = compressed(self._encoding, data) if self._compress_next and self._encoding is not IDENTITY else data
        is_smaller = packed is not data
        self._compress_next = True
        if len(packed) > limit:
            self._refuse_to_send(len(packed), limit)
        return self.stream.write(packed, is_smaller)

    def _respond(self, metadata: Metadata) -> None:
        """Send the headers, and with them how messages will be compressed."""
        headers = encoded(metadata)
        if self._encoding is not IDENTITY:
            accepted = (self.stream.accept_encoding or b"").replace(b" ", b"").split(b",")
            if self._encoding in accepted:
                headers.append((b"grpc-encoding", self._encoding))
            else:
                self._encoding = IDENTITY
        self.stream.respond(headers)

    def _opened(self, message: Compressed) -> bytes:
        """A compressed message as it was. CancelledError when it cannot be, or is too long."""
        limit = self.connection.server.config.receive_message_bytes_max
        try:
            return decompressed(self.stream.encoding or IDENTITY, message.data, limit)
        except TooLong:
            text = f"Received message larger than max ({limit}) once it is decompressed"
            self._give_up(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        except ValueError as error:
            self._give_up(grpc.StatusCode.INTERNAL, str(error))

    def _refuse_to_send(self, size: int, limit: int) -> NoReturn:
        self._give_up(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Sent message larger than max ({size} vs. {limit})")

    def _give_up(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call on account of a message. To the handler that is a cancellation, as if the client had gone."""
        if not self._is_done:
            self._code, self._details = code, details
            self.end()
            self._is_cancelled = True
        raise asyncio.CancelledError

    def _raise_if_over(self) -> None:
        if self._is_cancelled:
            raise asyncio.CancelledError
        if self._is_done:
            raise UsageError("the call is over")

    def end(self) -> None:
        """Send the status."""
        if self._is_done:
            return
        self._is_done = True
        if self._code is OK and not self._trailing and not self._details:
            self.stream.finish()
        else:
            trailers = [(b"grpc-status", b"%d" % code_number(self._code))]
            if self._details:
                trailers.append((b"grpc-message", percent_encoded(self._details)))
            self.stream.finish(trailers + encoded(self._trailing))
        self.connection.want_flush()


grpc.aio.ServicerContext.register(cast("type", Context))
