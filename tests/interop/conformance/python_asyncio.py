"""The cases on grpcio's channels for asyncio. Each takes the server's address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
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


@asynccontextmanager
async def connected(
    address: str, options: Mapping[str, int] | None = None, compression: grpc.Compression | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    own = (("grpc.use_local_subchannel_pool", 1), *(options or {}).items())
    async with grpc.aio.insecure_channel(address, options=own, compression=compression) as channel:
        yield channel


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error that the call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if isinstance(call, Awaitable) else sizes_of(call))
    return caught.value


async def sizes_of(call: Any) -> list[int]:
    return [size_of(response) async for response in call]


async def empty_unary(address: str) -> None:
    async with connected(address) as channel:
        assert await stub(channel, "EmptyCall")(Empty(), timeout=TIMEOUT_S) == Empty()


async def large_unary(address: str) -> None:
    async with connected(address) as channel:
        assert size_of(await stub(channel, "UnaryCall")(simple(LARGE_UP, LARGE_DOWN), timeout=TIMEOUT_S)) == LARGE_DOWN


async def client_streaming(address: str) -> None:
    async with connected(address) as channel:
        answer = await stub(channel, "StreamingInputCall")(iter(inputs(*REQUEST_SIZES)), timeout=TIMEOUT_S)
        assert answer.aggregated_payload_size == sum(REQUEST_SIZES)


async def server_streaming(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "StreamingOutputCall")(output(*RESPONSE_SIZES), timeout=TIMEOUT_S)
        assert await sizes_of(call) == list(RESPONSE_SIZES)


async def ping_pong_case(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "FullDuplexCall")(timeout=TIMEOUT_S)
        for request, size in zip(ping_pong(), RESPONSE_SIZES, strict=True):
            await call.write(request)
            assert size_of(await call.read()) == size
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def empty_stream(address: str) -> None:
    async with connected(address) as channel:
        assert await sizes_of(stub(channel, "FullDuplexCall")(iter(()), timeout=TIMEOUT_S)) == []


async def empty_messages(address: str) -> None:
    async with connected(address) as channel:
        requests = [output(0), output(), output(0, 0)]
        assert await sizes_of(stub(channel, "FullDuplexCall")(iter(requests), timeout=TIMEOUT_S)) == [0, 0, 0]
        answer = await stub(channel, "StreamingInputCall")(iter(inputs(0, 0)), timeout=TIMEOUT_S)
        assert answer.aggregated_payload_size == 0


async def half_duplex(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "HalfDuplexCall")(iter(ping_pong()), timeout=TIMEOUT_S)
        assert await sizes_of(call) == list(RESPONSE_SIZES)


async def timeout_on_sleeping_server(address: str) -> None:
    async with connected(address) as channel:
        began = time.monotonic()
        call = stub(channel, "StreamingOutputCall")(output(1, interval_us=5_000_000), timeout=0.2)
        assert (await refusal(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 3


async def cancel_after_begin(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "StreamingInputCall")(timeout=TIMEOUT_S)
        await asyncio.sleep(0)
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED


async def cancel_after_first_response(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "FullDuplexCall")(timeout=TIMEOUT_S)
        await call.write(output(31_415, up=27_182))
        assert size_of(await call.read()) == 31_415
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED


async def status_code_and_message(address: str) -> None:
    async with connected(address) as channel:
        for code in ERRORS:
            asked = status(code, f"test status {code.name}")
            unary = await refusal(stub(channel, "UnaryCall")(simple(response_status=asked), timeout=TIMEOUT_S))
            requests = iter([output(response_status=asked)])
            stream = await refusal(stub(channel, "FullDuplexCall")(requests, timeout=TIMEOUT_S))
            assert [(error.code(), error.details()) for error in (unary, stream)] == 2 * [(code, asked.message)]


async def special_status_message(address: str) -> None:
    async with connected(address) as channel:
        asked = simple(response_status=status(grpc.StatusCode.UNKNOWN, SPECIAL))
        error = await refusal(stub(channel, "UnaryCall")(asked, timeout=TIMEOUT_S))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, SPECIAL)


async def early_status(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "FullDuplexCall")(timeout=TIMEOUT_S)
        await call.write(output(response_status=status(grpc.StatusCode.ABORTED, "enough")))
        error = await refusal(call.read())
        assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "enough"), error


async def custom_metadata(address: str) -> None:
    async with connected(address) as channel:
        unary = stub(channel, "UnaryCall")(simple(1, 1), metadata=METADATA, timeout=TIMEOUT_S)
        stream = stub(channel, "FullDuplexCall")(iter([output(1, up=1)]), metadata=METADATA, timeout=TIMEOUT_S)
        await unary
        assert await sizes_of(stream) == [1]
        for call in (unary, stream):
            assert values(await call.initial_metadata(), ECHO_INITIAL) == [METADATA[0][1]]
            assert values(await call.trailing_metadata(), ECHO_TRAILING) == [METADATA[1][1]]


async def binary_metadata(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "UnaryCall")(simple(), metadata=BINARY, timeout=TIMEOUT_S)
        await call
        assert values(await call.trailing_metadata(), ECHO_TRAILING) == [value for _, value in BINARY]


async def unimplemented_method(address: str) -> None:
    async with connected(address) as channel:
        call = untyped(channel, "/grpc.testing.TestService/UnimplementedCall")(b"", timeout=TIMEOUT_S)
        assert (await refusal(call)).code() is grpc.StatusCode.UNIMPLEMENTED


async def unimplemented_service(address: str) -> None:
    async with connected(address) as channel:
        call = untyped(channel, "/grpc.testing.UnimplementedService/UnimplementedCall")(b"", timeout=TIMEOUT_S)
        assert (await refusal(call)).code() is grpc.StatusCode.UNIMPLEMENTED


async def client_compressed(address: str, encoding: str) -> None:
    async with connected(address, compression=COMPRESSIONS[encoding]) as channel:
        assert size_of(await stub(channel, "UnaryCall")(simple(LARGE_UP, 10), timeout=TIMEOUT_S)) == 10
        answer = await stub(channel, "StreamingInputCall")(iter(inputs(*REQUEST_SIZES)), timeout=TIMEOUT_S)
        assert answer.aggregated_payload_size == sum(REQUEST_SIZES)


async def server_compressed(address: str, encoding: str) -> None:
    async with connected(address) as channel:
        asked = simple(10, LARGE_DOWN, response_compressed={"value": True})
        metadata = ((RESPONSE_ENCODING, encoding),)
        assert size_of(await stub(channel, "UnaryCall")(asked, metadata=metadata, timeout=TIMEOUT_S)) == LARGE_DOWN


async def server_compressed_streaming(address: str) -> None:
    async with connected(address) as channel:
        call = stub(channel, "StreamingOutputCall")(partly_compressed(), timeout=TIMEOUT_S)
        assert await sizes_of(call) == [31_415, 92_653]


async def large_messages(address: str) -> None:
    async with connected(address, BIG_MESSAGES) as channel:
        assert size_of(await stub(channel, "UnaryCall")(simple(SIX_MIB, SIX_MIB), timeout=TIMEOUT_S)) == SIX_MIB


async def slow_reader(address: str) -> None:
    sizes = 32 * [256 << 10]
    taken = []
    async with connected(address) as channel:
        async for response in stub(channel, "StreamingOutputCall")(output(*sizes), timeout=TIMEOUT_S):
            taken.append(size_of(response))
            await asyncio.sleep(0.02)
    assert taken == sizes


async def _exhausted_and_still_there(
    address: str, request: Any, metadata: Any = None, compression: grpc.Compression | None = None
) -> None:
    async with connected(address, BIG_MESSAGES) as channel:
        unary = stub(channel, "UnaryCall")
        error = await refusal(unary(request, metadata=metadata, compression=compression, timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert size_of(await unary(simple(1, 1), timeout=TIMEOUT_S)) == 1


async def request_over_limit(address: str) -> None:
    await _exhausted_and_still_there(address, simple(OVER_LIMIT))


async def inflated_over_limit(address: str) -> None:
    await _exhausted_and_still_there(address, simple(OVER_LIMIT), compression=grpc.Compression.Gzip)


async def metadata_over_limit(address: str) -> None:
    await _exhausted_and_still_there(address, simple(1, 1), TOO_MUCH_METADATA)


async def response_over_limit(address: str) -> None:
    async with connected(address) as channel:
        unary = stub(channel, "UnaryCall")
        error = await refusal(unary(simple(1, SIX_MIB), timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
        assert size_of(await unary(simple(1, 1), timeout=TIMEOUT_S)) == 1


async def keepalive(address: str) -> None:
    async with connected(address, KEEPALIVE) as channel:
        call = stub(channel, "StreamingOutputCall")(output(1, interval_us=1_500_000), timeout=TIMEOUT_S)
        assert await sizes_of(call) == [1]


async def many_at_once(address: str) -> None:
    async with connected(address) as channel:
        unary = stub(channel, "UnaryCall")
        calls = [unary(simple(10_000, 1_000 * index), timeout=TIMEOUT_S) for index in range(AT_ONCE)]
        assert [size_of(response) for response in await asyncio.gather(*calls)] == SIZES_AT_ONCE


async def more_than_at_once(address: str) -> None:
    async with connected(address) as channel:
        await stub(channel, "EmptyCall")(Empty(), timeout=TIMEOUT_S)  # by then the client knows how many it may open
        began = time.monotonic()
        one = stub(channel, "StreamingOutputCall")
        calls = [one(output(index, interval_us=WAIT_US), timeout=TIMEOUT_S) for index in range(TOO_MANY)]
        assert await asyncio.gather(*map(sizes_of, calls)) == [[index] for index in range(TOO_MANY)]
        assert time.monotonic() - began > TURNS * WAIT_US / 1_000_000


CASES: dict[str, Callable[[str], Awaitable[None]]] = {
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
