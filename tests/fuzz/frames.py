"""HTTP/2 frames as bytes, by hand, so that they can be wrong in any way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
INITIAL_WINDOW_SIZE: Final = 4
PROTOCOL_ERROR: Final = 0x1
REFUSED_STREAM: Final = 0x7
ENHANCE_YOUR_CALM: Final = 0xB

Headers = Sequence[tuple[bytes, bytes]]


class Frame(NamedTuple):
    """One frame that came."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def number(self) -> int:
        """The code of RST_STREAM, or the second word of GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """Its bytes."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(SETTINGS, payload=b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs))


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; 0 is one that is wrong."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4))


def reset(stream_id: int, code: int = 8) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4))


def message(body: bytes, flag: int = 0) -> bytes:
    """A message of gRPC."""
    return bytes((flag,)) + len(body).to_bytes(4) + body


def data(stream_id: int, payload: bytes, *, ends: bool = False) -> bytes:
    """DATA."""
    return frame(DATA, END_STREAM if ends else 0, stream_id, payload)


def call_headers(path: bytes, more: Headers = ()) -> Headers:
    """What a call of gRPC begins with."""
    return (
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
    )  # fmt: skip


def block(headers: Headers) -> bytes:
    """A header block without compression (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def headers(stream_id: int, fields: Headers, *, ends: bool = False, is_whole: bool = True) -> bytes:
    """HEADERS, with what follows in CONTINUATION unless it `is_whole`."""
    flags = (END_STREAM if ends else 0) | (END_HEADERS if is_whole else 0)
    return frame(HEADERS, flags, stream_id, block(fields))


def call(stream_id: int, path: bytes, body: bytes | None = None, more: Headers = ()) -> bytes:
    """A call and, unless it is None, its one request."""
    opened = headers(stream_id, call_headers(path, more))
    return opened if body is None else opened + data(stream_id, message(body), ends=True)


def parsed(buffer: bytearray) -> Iterator[Frame]:
    """Take the whole frames out of a buffer."""
    while len(buffer) >= HEAD_BYTES:
        end = HEAD_BYTES + int.from_bytes(buffer[:3])
        if len(buffer) < end:
            return
        found = Frame(buffer[3], buffer[4], int.from_bytes(buffer[5:9]) & 0x7FFFFFFF, bytes(buffer[HEAD_BYTES:end]))
        del buffer[:end]
        yield found


def _text(text: bytes) -> bytes:
    return _number(len(text)) + text


def _number(value: int) -> bytes:
    """An integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if value < 0x7F:
        return bytes((value,))
    made, value = bytearray((0x7F,)), value - 0x7F
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))
