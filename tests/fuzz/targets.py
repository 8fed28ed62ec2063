"""What is fuzzed: each function takes any bytes and raises when something does not hold."""

from __future__ import annotations

import re
from typing import Final

from fuzz.frames import END_HEADERS, PREFACE, block, call_headers, frame, settings
from fuzz.script import LIMITS_LARGE, converse

from reference.framing import Inbox as InboxOracle
from trunkline.core.framing import Compressed, Inbox
from trunkline.core.http2 import Session
from trunkline.core.http2_stream import TIMEOUT_MALFORMED_NS, TIMEOUT_NONE_NS, Budget, Stream
from trunkline.server.transport.native.metadata import MalformedMetadata, decoded, encoded
from trunkline.server.transport.native.refusals import looks_like_http_1, refusal_headers

_MESSAGE_MAX: Final = 300
_SENDABLE = re.compile(r"(?!grpc-)[0-9a-z_.-]+")
_TIMEOUT: Final = re.compile(rb"[0-9]{1,8}[numSMH]")
_UNITS_NS: Final = {b"n": 1, b"u": 10**3, b"m": 10**6, b"S": 10**9, b"M": 60 * 10**9, b"H": 3_600 * 10**9}
_FOREVER_NS: Final = 1 << 62
_KNOWN: Final = (b"grpc-timeout", b"content-type", b"te", b"grpc-encoding", b"grpc-accept-encoding")

session = converse
"""Scripts: see script.py."""


def inbox(data: bytes) -> None:
    """Messages out of pieces as the oracle has them; the first byte says how long a piece is, the next when to take."""
    piece, take_every, stream = (data[0] if data else 0) + 1, (data[1] if len(data) > 1 else 0), data[2:]
    box, oracle = Inbox(_MESSAGE_MAX), InboxOracle(_MESSAGE_MAX)
    taken: list[bytes] = []
    for number, at in enumerate(range(0, len(stream), piece)):
        box.feed(stream[at : at + piece])
        oracle.feed(stream[at : at + piece])
        if take_every and number % take_every == 0:
            taken += _all_of(box)
    taken += _all_of(box)
    whole, rest, fault = oracle.read()
    assert taken == [body for _, body in whole]
    assert box.fault == {"": 0, "flag": 1, "long": 2}[fault]
    assert box.unread_bytes == 0
    if not fault:
        assert box.is_between == (not rest)
        assert box.partial_bytes == max(0, len(rest) - 5)


def headers(data: bytes) -> None:
    """Lines of `name:value` as a call's headers: what the session and the server make of them."""
    assert isinstance(looks_like_http_1(data), bool)
    fields = [(name, value) for name, _, value in (line.partition(b":") for line in data.split(b"\n")[:20])]
    stream = _called(fields)
    if stream is None or stream.headers_too_large:
        return
    last = dict(fields)
    timeout = last.get(b"grpc-timeout")
    expected = TIMEOUT_NONE_NS if timeout is None else _timeout_ns(timeout.strip(b" \t"))
    assert stream.timeout_ns == expected, (timeout, stream.timeout_ns)
    assert stream.headers == [(name, value.strip(b" \t")) for name, value in fields if name not in _KNOWN]
    if b"te" in last:
        assert stream.has_te == (last[b"te"].strip(b" \t") == b"trailers")
    assert (refusal_headers(stream) is None) == (stream.is_grpc and stream.has_te)
    try:
        found = decoded(stream.headers)
    except MalformedMetadata:
        return
    # HTTP lets names have more characters than gRPC's, and grpc- is gRPC's own: such come in, but no handler sends them.
    plain = [(key, value) for key, value in found if isinstance(value, bytes) and _SENDABLE.fullmatch(key)]
    assert decoded(encoded(plain)) == tuple(plain)


def _called(fields: list[tuple[bytes, bytes]]) -> Stream | None:
    """The call that these headers open; None when they are not allowed."""
    made = Session(LIMITS_LARGE, Budget(1 << 20))
    opened = frame(1, END_HEADERS, 1, block([*call_headers(b"/a/b"), *fields])[:16_384])
    changed = made.receive(PREFACE + settings() + opened, 1)
    made.send(1 << 20)
    return changed[0] if changed and changed[0].is_requested else None


def _timeout_ns(text: bytes) -> int:
    if _TIMEOUT.fullmatch(text) is None:
        return TIMEOUT_MALFORMED_NS
    return min(int(text[:-1]) * _UNITS_NS[text[-1:]], _FOREVER_NS)


def _all_of(box: Inbox) -> list[bytes]:
    found = []
    while (message := box.take()) is not None:
        found.append(message.data if isinstance(message, Compressed) else message)
    return found
