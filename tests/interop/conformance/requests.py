"""Requests, sizes and texts of the cases, shared by the clients in Python."""

from __future__ import annotations

from typing import Any

import grpc
from interop.conformance.messages import (
    EchoStatus,
    Payload,
    SimpleRequest,
    StreamingInputCallRequest,
    StreamingOutputCallRequest,
)
from interop.conformance.service import ECHO_INITIAL, ECHO_TRAILING

REQUEST_SIZES = (27_182, 8, 1_828, 45_904)
RESPONSE_SIZES = (31_415, 9, 2_653, 58_979)
LARGE_UP, LARGE_DOWN = 271_828, 314_159
SIX_MIB = 6 << 20
OVER_LIMIT = 9 << 20
TIMEOUT_S = 20.0
SPECIAL = "\t\n100 % whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
ERRORS = tuple(code for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
METADATA = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\x0a\x0b\x0a\x0b\x0a\x0b"))
BINARY = tuple((ECHO_TRAILING, value) for value in (bytes(range(256)), b"", b"\x00", b"a,b", bytes(range(255, -1, -1))))
TOO_MUCH_METADATA = (("x-large", "x" * 40_000),)
BIG_MESSAGES = {"grpc.max_receive_message_length": 64 << 20, "grpc.max_send_message_length": 64 << 20}
KEEPALIVE = {
    "grpc.keepalive_time_ms": 200,
    "grpc.keepalive_timeout_ms": 500,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.keepalive_permit_without_calls": 1,
}
COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
AT_ONCE = 40
SIZES_AT_ONCE = [1_000 * index for index in range(AT_ONCE)]
TOO_MANY, TURNS, WAIT_US = 200, 3, 100_000
"""So many calls at once, each of so long, need more turns than these where a connection may have 50."""


def zeros(size: int) -> Any:
    return Payload(body=bytes(size))


def simple(up: int = 0, down: int = 0, **fields: Any) -> Any:
    return SimpleRequest(payload=zeros(up), response_size=down, **fields)


def status(code: grpc.StatusCode, message: str) -> Any:
    return EchoStatus(code=code.value[0], message=message)


def inputs(*sizes: int) -> list[Any]:
    return [StreamingInputCallRequest(payload=zeros(size)) for size in sizes]


def output(*sizes: int, up: int = 0, interval_us: int = 0, **fields: Any) -> Any:
    asked = [{"size": size, "interval_us": interval_us} for size in sizes]
    return StreamingOutputCallRequest(response_parameters=asked, payload=zeros(up), **fields)


def ping_pong() -> list[Any]:
    return [output(down, up=up) for up, down in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True)]


def partly_compressed() -> Any:
    asked = [{"size": 31_415, "compressed": {"value": True}}, {"size": 92_653, "compressed": {"value": False}}]
    return StreamingOutputCallRequest(response_parameters=asked)


def size_of(response: Any) -> int:
    assert response.payload.body.count(0) == len(response.payload.body), "not all zeros"
    return len(response.payload.body)


def values(metadata: Any, name: str) -> list[Any]:
    return [value for key, value in metadata if key == name]
