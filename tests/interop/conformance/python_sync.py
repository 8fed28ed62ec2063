"""The cases on grpcio's channels for threads. Each takes the server's address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any

import grpc
import pytest
from interop.conformance.messages import Empty, stub, untyped
from interop.conformance.requests import (
    AT_ONCE,
    BIG_MESSAGES,
    BINARY,
    COMPRESSIONS,
    ERRORS,
    KEEPALIVE,
    LARGE_DOWN,
    LARGE_UP,
    METADATA,
    OVER_LIMIT,
    REQUEST_SIZES,
    RESPONSE_SIZES,
    SIX_MIB,
    SIZES_AT_ONCE,
    SPECIAL,
    TIMEOUT_S,
    TOO_MANY,
    TOO_MUCH_METADATA,
    TURNS,
    WAIT_US,
    inputs,
    output,
    partly_compressed,
    ping_pong,
    simple,
    size_of,
    status,
    values,
)
from interop.conformance.service import ECHO_INITIAL, ECHO_TRAILING, RESPONSE_ENCODING


@contextmanager
def connected(
    address: str, options: Mapping[str, int] | None = None, compression: grpc.Compression | None = None
) -> Iterator[grpc.Channel]:
    own = (("grpc.use_local_subchannel_pool", 1), *(options or {}).items())
    with grpc.insecure_channel(address, options=own, compression=compression) as channel:
        yield channel


def refusal(call: Callable[[], Any]) -> Any:
    """The error that the call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def empty_unary(address: str) -> None:
    with connected(address) as channel:
        assert stub(channel, "EmptyCall")(Empty(), timeout=TIMEOUT_S) == Empty()


def large_unary(address: str) -> None:
    with connected(address) as channel:
        assert size_of(stub(channel, "UnaryCall")(simple(LARGE_UP, LARGE_DOWN), timeout=TIMEOUT_S)) == LARGE_DOWN


def client_streaming(address: str) -> None:
    with connected(address) as channel:
        answer = stub(channel, "StreamingInputCall")(iter(inputs(*REQUEST_SIZES)), timeout=TIMEOUT_S)
        assert answer.aggregated_payload_size == sum(REQUEST_SIZES)


def server_streaming(address: str) -> None:
    with connected(address) as channel:
        responses = stub(channel, "StreamingOutputCall")(output(*RESPONSE_SIZES), timeout=TIMEOUT_S)
        assert [size_of(response) for response in responses] == list(RESPONSE_SIZES)


def ping_pong_case(address: str) -> None:
    answered = Event()

    def requests() -> Iterator[Any]:
        for request in ping_pong():
            answered.clear()
            yield request
            assert answered.wait(TIMEOUT_S)

    sizes = []
    with connected(address) as channel:
        for response in stub(channel, "FullDuplexCall")(requests(), timeout=TIMEOUT_S):
            sizes.append(size_of(response))
            answered.set()
    assert sizes == list(RESPONSE_SIZES)


def empty_stream(address: str) -> None:
    with connected(address) as channel:
        assert list(stub(channel, "FullDuplexCall")(iter(()), timeout=TIMEOUT_S)) == []


def empty_messages(address: str) -> None:
    with connected(address) as channel:
        requests = [output(0), output(), output(0, 0)]
        assert len(list(stub(channel, "FullDuplexCall")(iter(requests), timeout=TIMEOUT_S))) == 3
        assert stub(channel, "StreamingInputCall")(iter(inputs(0, 0)), timeout=TIMEOUT_S).aggregated_payload_size == 0


def half_duplex(address: str) -> None:
    with connected(address) as channel:
        responses = stub(channel, "HalfDuplexCall")(iter(ping_pong()), timeout=TIMEOUT_S)
        assert [size_of(response) for response in responses] == list(RESPONSE_SIZES)


def timeout_on_sleeping_server(address: str) -> None:
    with connected(address) as channel:
        began = time.monotonic()
        call = stub(channel, "StreamingOutputCall")(output(1, interval_us=5_000_000), timeout=0.2)
        assert refusal(lambda: list(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 3


def cancel_after_begin(address: str) -> None:
    ended = Event()

    def requests() -> Iterator[Any]:
        ended.wait(TIMEOUT_S)
        yield from ()

    with connected(address) as channel:
        call = stub(channel, "StreamingInputCall").future(requests(), timeout=TIMEOUT_S)
        call.cancel()
        ended.set()
        assert call.code() is grpc.StatusCode.CANCELLED


def cancel_after_first_response(address: str) -> None:
    ended = Event()

    def requests() -> Iterator[Any]:
        yield output(31_415, up=27_182)
        ended.wait(TIMEOUT_S)

    with connected(address) as channel:
        call = stub(channel, "FullDuplexCall")(requests(), timeout=TIMEOUT_S)
        assert size_of(next(call)) == 31_415
        call.cancel()
        ended.set()
        assert refusal(lambda: next(call)).code() is grpc.StatusCode.CANCELLED


def status_code_and_message(address: str) -> None:
    with connected(address) as channel:
        for code in ERRORS:
            asked = status(code, f"test status {code.name}")
            unary = refusal(partial(stub(channel, "UnaryCall"), simple(response_status=asked), timeout=TIMEOUT_S))
            call = stub(channel, "FullDuplexCall")(iter([output(response_status=asked)]), timeout=TIMEOUT_S)
            stream = refusal(partial(list, call))
            assert [(error.code(), error.details()) for error in (unary, stream)] == 2 * [(code, asked.message)]


def special_status_message(address: str) -> None:
    with connected(address) as channel:
        asked = simple(response_status=status(grpc.StatusCode.UNKNOWN, SPECIAL))
        error = refusal(lambda: stub(channel, "UnaryCall")(asked, timeout=TIMEOUT_S))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, SPECIAL)


def early_status(address: str) -> None:
    def requests() -> Iterator[Any]:
        yield output(response_status=status(grpc.StatusCode.ABORTED, "enough"))
        while call.is_active():
            yield output(up=27_182)

    with connected(address) as channel:
        call = stub(channel, "FullDuplexCall")(requests(), timeout=TIMEOUT_S)
        error = refusal(lambda: list(call))
        assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "enough"), error


def custom_metadata(address: str) -> None:
    with connected(address) as channel:
        _, unary = stub(channel, "UnaryCall").with_call(simple(1, 1), metadata=METADATA, timeout=TIMEOUT_S)
        stream = stub(channel, "FullDuplexCall")(iter([output(1, up=1)]), metadata=METADATA, timeout=TIMEOUT_S)
        assert len(list(stream)) == 1
        for call in (unary, stream):
            assert values(call.initial_metadata(), ECHO_INITIAL) == [METADATA[0][1]]
            assert values(call.trailing_metadata(), ECHO_TRAILING) == [METADATA[1][1]]


def binary_metadata(address: str) -> None:
    with connected(address) as channel:
        _, call = stub(channel, "UnaryCall").with_call(simple(), metadata=BINARY, timeout=TIMEOUT_S)
        assert values(call.trailing_metadata(), ECHO_TRAILING) == [value for _, value in BINARY]


def unimplemented_method(address: str) -> None:
    with connected(address) as channel:
        call = untyped(channel, "/grpc.testing.TestService/UnimplementedCall")
        assert refusal(lambda: call(b"", timeout=TIMEOUT_S)).code() is grpc.StatusCode.UNIMPLEMENTED


def unimplemented_service(address: str) -> None:
    with connected(address) as channel:
        call = untyped(channel, "/grpc.testing.UnimplementedService/UnimplementedCall")
        assert refusal(lambda: call(b"", timeout=TIMEOUT_S)).code() is grpc.StatusCode.UNIMPLEMENTED


def client_compressed(address: str, encoding: str) -> None:
    with connected(address, compression=COMPRESSIONS[encoding]) as channel:
        assert size_of(stub(channel, "UnaryCall")(simple(LARGE_UP, 10), timeout=TIMEOUT_S)) == 10
        answer = stub(channel, "StreamingInputCall")(iter(inputs(*REQUEST_SIZES)), timeout=TIMEOUT_S)
        assert answer.aggregated_payload_size == sum(REQUEST_SIZES)


def server_compressed(address: str, encoding: str) -> None:
    with connected(address) as channel:
        asked = simple(10, LARGE_DOWN, response_compressed={"value": True})
        metadata = ((RESPONSE_ENCODING, encoding),)
        assert size_of(stub(channel, "UnaryCall")(asked, metadata=metadata, timeout=TIMEOUT_S)) == LARGE_DOWN


def server_compressed_streaming(address: str) -> None:
    with connected(address) as channel:
        responses = stub(channel, "StreamingOutputCall")(partly_compressed(), timeout=TIMEOUT_S)
        assert [size_of(response) for response in responses] == [31_415, 92_653]


def large_messages(address: str) -> None:
    with connected(address, BIG_MESSAGES) as channel:
        assert size_of(stub(channel, "UnaryCall")(simple(SIX_MIB, SIX_MIB), timeout=TIMEOUT_S)) == SIX_MIB


def slow_reader(address: str) -> None:
    sizes = 32 * [256 << 10]
    taken = []
    with connected(address) as channel:
        for response in stub(channel, "StreamingOutputCall")(output(*sizes), timeout=TIMEOUT_S):
            taken.append(size_of(response))
            time.sleep(0.02)
    assert taken == sizes


def _exhausted_and_still_there(
    address: str, request: Any, metadata: Any = None, compression: grpc.Compression | None = None
) -> None:
    with connected(address, BIG_MESSAGES) as channel:
        unary = stub(channel, "UnaryCall")
        error = refusal(lambda: unary(request, metadata=metadata, compression=compression, timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert size_of(unary(simple(1, 1), timeout=TIMEOUT_S)) == 1


def request_over_limit(address: str) -> None:
    _exhausted_and_still_there(address, simple(OVER_LIMIT))


def inflated_over_limit(address: str) -> None:
    _exhausted_and_still_there(address, simple(OVER_LIMIT), compression=grpc.Compression.Gzip)


def metadata_over_limit(address: str) -> None:
    _exhausted_and_still_there(address, simple(1, 1), TOO_MUCH_METADATA)


def response_over_limit(address: str) -> None:
    with connected(address) as channel:
        unary = stub(channel, "UnaryCall")
        error = refusal(lambda: unary(simple(1, SIX_MIB), timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert size_of(unary(simple(1, 1), timeout=TIMEOUT_S)) == 1


def keepalive(address: str) -> None:
    with connected(address, KEEPALIVE) as channel:
        responses = stub(channel, "StreamingOutputCall")(output(1, interval_us=1_500_000), timeout=TIMEOUT_S)
        assert [size_of(response) for response in responses] == [1]


def many_at_once(address: str) -> None:
    with connected(address) as channel:
        unary = stub(channel, "UnaryCall")
        calls = [unary.future(simple(10_000, 1_000 * index), timeout=TIMEOUT_S) for index in range(AT_ONCE)]
        assert [size_of(call.result()) for call in calls] == SIZES_AT_ONCE


def more_than_at_once(address: str) -> None:
    with connected(address) as channel:
        stub(channel, "EmptyCall")(Empty(), timeout=TIMEOUT_S)  # by then the client knows how many it may open
        began = time.monotonic()
        one = stub(channel, "StreamingOutputCall")
        calls = [one(output(index, interval_us=WAIT_US), timeout=TIMEOUT_S) for index in range(TOO_MANY)]
        assert [[size_of(response) for response in call] for call in calls] == [[index] for index in range(TOO_MANY)]
        assert time.monotonic() - began > TURNS * WAIT_US / 1_000_000


CASES: dict[str, Callable[[str], None]] = {
    case.__name__.removesuffix("_case"): case
    for case in (
        empty_unary, large_unary, client_streaming, server_streaming, ping_pong_case, empty_stream, empty_messages,
        half_duplex, timeout_on_sleeping_server, cancel_after_begin, cancel_after_first_response,
        status_code_and_message, special_status_message, early_status, custom_metadata, binary_metadata,
        unimplemented_method, unimplemented_service, server_compressed_streaming, large_messages, slow_reader,
        request_over_limit, inflated_over_limit, response_over_limit, metadata_over_limit, keepalive, many_at_once,
        more_than_at_once,
    )
}  # fmt: skip
for _encoding in COMPRESSIONS:
    CASES[f"client_compressed_{_encoding}"] = partial(client_compressed, encoding=_encoding)
    CASES[f"server_compressed_{_encoding}"] = partial(server_compressed, encoding=_encoding)
