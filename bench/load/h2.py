"""gRPC by hand: HTTP/2 frames over a plain socket, so that what is measured is the server and not a client's library.

Only what a benchmark needs: requests whose headers are always the same (encoded once, without compression state), answers
whose frames are told apart, flow control, pings. Any gRPC server is driven by it in the same way.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
WINDOW_MAX = (1 << 31) - 1
WINDOW_DEFAULT = 65_535
FRAME_BYTES_MAX = 16_384
"""Of a frame that is sent: every peer takes as much."""
FRAME_HEAD_BYTES = 9
TOP_UP_BYTES = 1 << 30
_HEAD = struct.Struct(">BHBBI")
_WORD = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def message(body: bytes) -> bytes:
    """A gRPC message: not compressed, its length, itself."""
    return b"\x00" + _WORD.pack(len(body)) + body


def headers(path: str, authority: str) -> bytes:
    """The header block of a gRPC call; literals that go into no table, so it is the same each time."""

    def text(value: str) -> bytes:
        assert len(value) < 127
        return bytes((len(value),)) + value.encode()

    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + text(path),
            b"\x01" + text(authority),
            b"\x0f\x10" + text("application/grpc"),  # content-type
            b"\x00" + text("te") + text("trailers"),
        )
    )


class Connection(asyncio.Protocol):
    """One connection. A subclass says what becomes of data and of ends; it is told of each whole frame."""

    def __init__(self) -> None:
        self.lost: Exception | None = None
        self.bytes_received = 0
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._window = WINDOW_DEFAULT
        self._waiting: deque[tuple[int, bytes, bool]] = deque()
        self._topped_up = 0
        self._next_stream = 1

    # To be overridden.

    def data(self, stream: int, payload: memoryview) -> None:
        """A piece of an answer."""

    def ended(self, stream: int) -> None:
        """The server has ended a stream."""

    # Sending.

    def open(self, block: bytes) -> int:
        """Begin a call; its stream."""
        stream = self._next_stream
        self._next_stream += 2
        self._out.append(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def send(self, stream: int, payload: bytes, *, end: bool) -> None:
        """Send a message, or what was framed as one. It waits while the peer's window is full."""
        if self._waiting or len(payload) > self._window:
            self._waiting.append((stream, payload, end))
            return
        self._window -= len(payload)
        flags = END_STREAM if end else 0
        last = len(payload) - FRAME_BYTES_MAX
        at = 0
        while at < last:
            self._out.append(frame(DATA, 0, stream, payload[at : at + FRAME_BYTES_MAX]))
            at += FRAME_BYTES_MAX
        self._out.append(frame(DATA, flags, stream, payload[at:] if at else payload))

    def flush(self) -> None:
        """Write what was sent since the last time, at once."""
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    # Receiving.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        ours = _SETTING.pack(INITIAL_WINDOW_SIZE, WINDOW_MAX) + _SETTING.pack(MAX_FRAME_SIZE, (1 << 24) - 1)
        room = frame(WINDOW_UPDATE, 0, 0, _WORD.pack(WINDOW_MAX - WINDOW_DEFAULT))
        transport.write(PREFACE + frame(SETTINGS, 0, 0, ours) + room)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc or ConnectionError("the server has hung up")

    def data_received(self, received: bytes) -> None:
        self.bytes_received += len(received)
        whole = self._rest + received if self._rest else received
        view = memoryview(whole)
        at, end = 0, len(whole)
        while at + FRAME_HEAD_BYTES <= end:
            high, low, kind, flags, stream = _HEAD.unpack_from(whole, at)
            begin = at + FRAME_HEAD_BYTES
            behind = begin + (high << 16 | low)
            if behind > end:
                break
            self._take(kind, flags, stream, view[begin:behind])
            at = behind
        self._rest = whole[at:]
        if self.bytes_received - self._topped_up > TOP_UP_BYTES:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self.bytes_received - self._topped_up)))
            self._topped_up = self.bytes_received
        self.flush()

    def _take(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        if kind == DATA:
            self.data(stream, payload)
        if kind in (DATA, HEADERS):
            if flags & END_STREAM:
                self.ended(stream)
        elif kind == RST_STREAM:
            self.ended(stream)
        elif kind == WINDOW_UPDATE:
            if stream == 0:
                self._window += _WORD.unpack(payload)[0]
                self._send_waiting()
        elif kind == SETTINGS and not flags & ACK:
            self._out.append(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, bytes(payload)))
        elif kind == GOAWAY:
            raise ConnectionError(f"the server says go away: {bytes(payload[8:])!r}")

    def _send_waiting(self) -> None:
        while self._waiting and len(self._waiting[0][1]) <= self._window:
            waiting, self._waiting = self._waiting, deque()
            stream, payload, end = waiting.popleft()
            self.send(stream, payload, end=end)
            self._waiting = waiting
