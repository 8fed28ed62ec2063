"""What a session sends, read by a peer that believes nothing."""

from __future__ import annotations

from typing import Final

from fuzz.frames import DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, parsed

_PREFIX_BYTES: Final = 5
_FRAME_BYTES_MAX: Final = 16_384


class Answers:
    """Takes bytes as they come. AssertionError for what is no HTTP/2, or no gRPC within it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._bodies: dict[int, int] = {}  # bytes of the current message that are still to come
        self._prefixes: dict[int, bytearray] = {}
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._reset: set[int] = set()

    def take(self, data: bytes) -> None:
        """More bytes of the connection: whole frames, always."""
        self._buffer += data
        for kind, flags, stream_id, payload in parsed(self._buffer):
            assert kind <= 9, f"a frame of kind {kind}"
            assert len(payload) <= _FRAME_BYTES_MAX, f"a frame of {len(payload)} bytes"
            if kind in (DATA, HEADERS):
                assert stream_id % 2, "a stream that no client opened"
                assert stream_id not in self._reset, "something behind a reset"
                assert stream_id not in self._ended, "something behind the end"
            if kind == HEADERS:
                assert stream_id not in self._begun or flags & END_STREAM, "headers twice"
                self._begun.add(stream_id)
            elif kind == DATA:
                assert stream_id in self._begun, "a body without headers"
                self._take_body(stream_id, payload)
            elif kind == RST_STREAM:
                assert len(payload) == 4
                self._reset.add(stream_id)
            elif kind == GOAWAY:
                assert len(payload) >= 8
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self._ended.add(stream_id)
                assert not self._bodies.get(stream_id), "an end within a message"
                assert not self._prefixes.get(stream_id), "an end within a prefix"
        assert not self._buffer, "half a frame"

    def _take_body(self, stream_id: int, payload: bytes) -> None:
        """Messages must be whole, one behind the other."""
        at = 0
        prefix = self._prefixes.setdefault(stream_id, bytearray())
        while at < len(payload):
            left = self._bodies.get(stream_id, 0)
            if left:
                taken = min(left, len(payload) - at)
                self._bodies[stream_id] = left - taken
            else:
                taken = min(_PREFIX_BYTES - len(prefix), len(payload) - at)
                prefix += payload[at : at + taken]
                if len(prefix) == _PREFIX_BYTES:
                    assert prefix[0] <= 1, "a message that begins with neither 0 nor 1"
                    self._bodies[stream_id] = int.from_bytes(prefix[1:])
                    prefix.clear()
            at += taken
