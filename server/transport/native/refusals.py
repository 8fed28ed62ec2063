"""Requests that are no calls, and how each is refused."""

from __future__ import annotations

import re
from typing import Final

from trunkline.core.http2_stream import Stream

Headers = list[tuple[bytes, bytes]]

_HTTP_1: Final = re.compile(rb"[A-Z]{3,10} \S+ HTTP/1\.[01]\r?\n")
_TEXT: Final = b"This port speaks gRPC, which needs HTTP/2.\n"
HTTP_1_ANSWER: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


def looks_like_http_1(data: bytes) -> bool:
    """Whether these first bytes are a request of HTTP/1."""
    return _HTTP_1.match(data) is not None


def refusal_headers(stream: Stream) -> Headers | None:
    """The answer to what is no call of gRPC; None for a call. HTTP's status speaks to those who speak HTTP, and
    grpc-status to those who speak gRPC.

    Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (415), RFC 9110 (405).
    """
    if stream.method is not None:
        return [(b":status", b"405"), (b"allow", b"POST"), *_said(b"gRPC calls are made with POST")]
    if not stream.is_grpc:
        return [(b":status", b"415"), *_said(b"content-type must be application/grpc")]
    if not stream.has_te:
        return [(b":status", b"400"), *_said(b"te: trailers is missing: a proxy that may drop trailers stands between")]
    return None


def _said(text: bytes) -> Headers:
    return [(b"content-type", b"application/grpc"), (b"grpc-status", b"13"), (b"grpc-message", text)]
