"""Retries happen at one layer: who serves a repeated call does not repeat its own, on both of gRPC's servers."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from integration.echo_server import COUNT, JOIN, SAY, TALK
from integration.scripted_server import Scripted, Step, scripted

from trunkline.client import AioRetryLayer, RetryLayer, Trunkline, attempts_before, serving
from trunkline.client.testing import FakeControlPlane
from trunkline.core.policy import MS, Policy, Retry

POLICY = Policy(retry=Retry(max_attempts=3, base_interval_ns=MS))
KINDS = {"unary_unary": SAY, "unary_stream": COUNT, "stream_unary": JOIN, "stream_stream": TALK}


@pytest.fixture
async def trunkline() -> AsyncIterator[Trunkline]:
    async with FakeControlPlane().connect() as connected:
        yield connected


@pytest.fixture
async def server(trunkline: Trunkline) -> AsyncIterator[Scripted]:
    async with scripted(trunkline, "a") as handler:
        handler.always = Step()
        yield handler


class Middle(grpc.GenericRpcHandler):
    """Calls the service behind it in every handler."""

    def __init__(self, call: Callable[[], Awaitable[bytes]]) -> None:
        self._call = call

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def one(request: Any, context: Any) -> bytes:
            return await self._call()

        async def many(request: Any, context: Any) -> AsyncIterator[bytes]:
            yield b"first"
            yield await self._call()

        return {
            SAY: grpc.unary_unary_rpc_method_handler(one),
            COUNT: grpc.unary_stream_rpc_method_handler(many),
            JOIN: grpc.stream_unary_rpc_method_handler(one),
            TALK: grpc.stream_stream_rpc_method_handler(many),
        }.get(details.method)


class BlockingMiddle(grpc.GenericRpcHandler):
    """The same for a server with threads."""

    def __init__(self, call: Callable[[], bytes]) -> None:
        self._call = call

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def one(request: Any, context: Any) -> bytes:
            return self._call()

        def many(request: Any, context: Any) -> Iterator[bytes]:
            yield b"first"
            yield self._call()

        return {
            SAY: grpc.unary_unary_rpc_method_handler(one),
            COUNT: grpc.unary_stream_rpc_method_handler(many),
            JOIN: grpc.stream_unary_rpc_method_handler(one),
            TALK: grpc.stream_stream_rpc_method_handler(many),
        }.get(details.method)


async def ask(port: int, kind: str, method: str, metadata: Any) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as front:
        request = b"" if kind.startswith("unary") else iter([b""])
        call = getattr(front, kind)(method)(request, metadata=metadata, timeout=10)
        return [one async for one in call] if kind.endswith("stream") else await call


REPEATED = (("trunkline-previous-rpc-attempts", "1"),)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_with_a_loop(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    channel = await trunkline.channel("echo", policy=POLICY)

    async def call() -> bytes:
        try:
            await channel.unary_unary(SAY)(b"", timeout=10)
        except grpc.aio.AioRpcError:
            return b"%d" % attempts_before()
        raise AssertionError("it fails")

    middle = grpc.aio.server(interceptors=[AioRetryLayer()])
    middle.add_generic_rpc_handlers((Middle(call),))
    port = middle.add_insecure_port("127.0.0.1:0")
    await middle.start()
    try:
        for metadata, attempts, said in (((), 3, b"0"), (REPEATED, 1, b"1"), ((), 3, b"0")):
            server.seen.clear()
            answer = await ask(port, kind, KINDS[kind], metadata)
            assert answer == ([b"first", said] if kind.endswith("stream") else said)
            assert len(server.seen) == attempts
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(port, "unary_unary", "/no/such", REPEATED)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        await middle.stop(None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_with_threads_and_the_blocking_face(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    with FakeControlPlane().connect_sync() as blocking:
        port = (await trunkline.resolve("echo"))[0].instance.endpoints[0].port
        blocking.register("echo", id="a", port=port, host="127.0.0.1", drain_on_exit=False)
        channel = await asyncio.to_thread(blocking.channel, "echo", policy=POLICY)

        def call() -> bytes:
            try:
                channel.unary_unary(SAY)(b"", timeout=10)
            except grpc.RpcError:
                return b"%d" % attempts_before()
            raise AssertionError("it fails")

        threads = concurrent.futures.ThreadPoolExecutor(1)  # so that what is left of a call would meet the next
        middle = grpc.server(threads, interceptors=[RetryLayer()])
        middle.add_generic_rpc_handlers((BlockingMiddle(call),))
        front = middle.add_insecure_port("127.0.0.1:0")
        middle.start()
        try:
            for metadata, attempts, said in (((), 3, b"0"), (REPEATED, 1, b"1"), ((), 3, b"0")):
                server.seen.clear()
                answer = await ask(front, kind, KINDS[kind], metadata)
                assert answer == ([b"first", said] if kind.endswith("stream") else said)
                assert len(server.seen) == attempts
        finally:
            await asyncio.to_thread(middle.stop(None).wait)
            threads.shutdown()


async def test_what_says_so_itself(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=POLICY)
    with serving((("grpc-previous-rpc-attempts", "2"),)):
        assert attempts_before() == 2
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(SAY)(b"", timeout=10)
    assert attempts_before() == 0
    assert server.attempts == [0]
    assert channel.policy_state().counts.stopped == {"layer": 1}


class OfEveryForm(grpc.GenericRpcHandler):
    """What a server with a loop takes besides coroutines and async generators."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def blocking(request: Any, context: Any) -> bytes:
            return b"%d" % attempts_before()

        def blocking_many(request: Any, context: Any) -> Iterator[bytes]:
            yield b"%d" % attempts_before()

        async def written(request: Any, context: Any) -> None:
            await context.write(b"%d" % attempts_before())

        return {
            SAY: grpc.unary_unary_rpc_method_handler(blocking),
            COUNT: grpc.unary_stream_rpc_method_handler(blocking_many),
            TALK: grpc.stream_stream_rpc_method_handler(written),
        }.get(details.method)


@pytest.mark.parametrize(
    ("kind", "answer"), [("unary_unary", b"1"), ("unary_stream", [b"1"]), ("stream_stream", [b"1"])]
)
async def test_handlers_of_every_form_serve_repeats(kind: str, answer: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        server = grpc.aio.server(threads, interceptors=[AioRetryLayer()])
        server.add_generic_rpc_handlers((OfEveryForm(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            assert await ask(port, kind, KINDS[kind], REPEATED) == answer
        finally:
            await server.stop(None)
