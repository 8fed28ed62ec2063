"""What handlers and interceptors may do with a call, on our server as on grpc.aio's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import uvloop
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.native.server import NativeServer

EACH_TRANSPORT = True
SERVICE = "test.Contexts"
Handler = Any


@contextlib.asynccontextmanager
async def serving(
    interceptors: tuple[Any, ...] = (), *, threads: ThreadPoolExecutor | None = None, **handlers: Handler
) -> AsyncIterator[Any]:
    """A channel to a server of these methods."""
    server: Any
    if isinstance(asyncio.get_running_loop(), uvloop.Loop):
        server = NativeServer(TransportConfig(), interceptors=interceptors, threads=threads)
    else:
        server = grpc.aio.server(threads, interceptors=interceptors)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)
        assert await server.wait_for_termination(5) is False


def path(name: str) -> str:
    return f"/{SERVICE}/{name}"


def unary(behaviour: Callable[..., Any]) -> Handler:
    return grpc.unary_unary_rpc_method_handler(behaviour)


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def test_plain_functions_of_all_kinds_run_in_threads() -> None:
    def say(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-sync", "yes"),))
        text: str = dict(context.invocation_metadata())["x-a"]
        return request + text.encode()

    def count(request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def join(requests: Iterator[bytes], context: Any) -> bytes:
        return b"".join(requests)

    def talk(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield request + b"!"

    def refuse(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "not here", (("x-why", "gone"),))
        raise AssertionError

    with ThreadPoolExecutor(4) as threads:
        async with serving(
            threads=threads,
            Say=unary(say),
            Count=grpc.unary_stream_rpc_method_handler(count),
            Join=grpc.stream_unary_rpc_method_handler(join),
            Talk=grpc.stream_stream_rpc_method_handler(talk),
            Refuse=unary(refuse),
        ) as channel:
            call = channel.unary_unary(path("Say"))(b"a", metadata=(("x-a", "b"),), timeout=5)
            assert await call == b"ab"
            assert ("x-sync", "yes") in list(await call.trailing_metadata() or ())
            assert [part async for part in channel.unary_stream(path("Count"))(b"3", timeout=5)] == [b"0", b"1", b"2"]
            assert await channel.stream_unary(path("Join"))(iter([b"a", b"b"]), timeout=5) == b"ab"
            answers = channel.stream_stream(path("Talk"))(iter([b"a", b"b"]), timeout=5)
            assert [part async for part in answers] == [b"a!", b"b!"]
            refused = await failure_of(channel.unary_unary(path("Refuse"))(b"", timeout=5))
            assert (refused.code(), refused.details()) == (grpc.StatusCode.NOT_FOUND, "not here")
            assert ("x-why", "gone") in list(refused.trailing_metadata() or ())


class Marks(grpc.aio.ServerInterceptor):
    """Notes that it was passed; refuses what it does not like; may answer itself."""

    def __init__(self, name: str, passed: list[str]) -> None:
        self._name, self._passed = name, passed

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self._passed.append(f"{self._name} {details.method}")
        metadata = dict(details.invocation_metadata)
        if metadata.get("x-refuse") == self._name:

            async def refuse(request: Any, context: Any) -> None:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not past {self._name}")

            return grpc.unary_unary_rpc_method_handler(refuse)
        return await continuation(details)


async def test_interceptors_stand_before_the_handler_the_first_outermost() -> None:
    passed: list[str] = []

    async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield b"x"

    both = (Marks("a", passed), Marks("b", passed))
    async with serving(both, Say=unary(echo), Count=grpc.unary_stream_rpc_method_handler(count)) as channel:
        assert await channel.unary_unary(path("Say"))(b"hi", timeout=5) == b"hi"
        assert passed == [f"a {path('Say')}", f"b {path('Say')}"]
        passed.clear()
        refused = await failure_of(channel.unary_unary(path("Say"))(b"", metadata=(("x-refuse", "a"),), timeout=5))
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert passed == [f"a {path('Say')}"]
        assert [part async for part in channel.unary_stream(path("Count"))(b"2", timeout=5)] == [b"x", b"x"]
        missing = await failure_of(channel.unary_unary(path("Nothing"))(b"", timeout=5))
        assert missing.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_handlers_own_status_metadata_and_details_arrive() -> None:
    async def tell(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-first", "1"), ("x-bin", b"\x00\xff")))
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("a % and a ü\n")
        context.set_trailing_metadata((("x-last-bin", b"\x01\x02\x03"),))
        assert context.code() is grpc.StatusCode.DATA_LOSS
        assert context.details() == "a % and a ü\n"
        return b"unread"

    async def detailed(request: bytes, context: Any) -> bytes:
        status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="rich")
        await context.abort_with_status(rpc_status.to_status(status))
        return b""

    async with serving(Tell=unary(tell), Detailed=unary(detailed)) as channel:
        call = channel.unary_unary(path("Tell"))(b"", timeout=5)
        told = await failure_of(call)
        assert (told.code(), told.details()) == (grpc.StatusCode.DATA_LOSS, "a % and a ü\n")
        assert {("x-first", "1"), ("x-bin", b"\x00\xff")} <= set(await call.initial_metadata() or ())
        assert ("x-last-bin", b"\x01\x02\x03") in list(told.trailing_metadata() or ())
        rich = await failure_of(channel.unary_unary(path("Detailed"))(b"", timeout=5))
        assert (rich.code(), rich.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "rich")


async def test_what_a_handler_raises_is_unknown() -> None:
    async def fails(request: bytes, context: Any) -> bytes:
        raise KeyError("a fault")

    async with serving(Fails=unary(fails)) as channel:
        failed = await failure_of(channel.unary_unary(path("Fails"))(b"", timeout=5))
        assert failed.code() is grpc.StatusCode.UNKNOWN
        assert failed.details() == "Unexpected <class 'KeyError'>: 'a fault'"


async def test_deadline_peer_and_the_end_are_seen_by_the_handler() -> None:
    seen: list[Any] = []
    ended = asyncio.Event()

    async def look(request: bytes, context: Any) -> bytes:
        seen.extend((context.time_remaining(), context.peer(), context.cancelled(), context.done()))
        context.add_done_callback(lambda _: ended.set())
        return b""

    async with serving(Look=unary(look)) as channel:
        await channel.unary_unary(path("Look"))(b"", timeout=5)
        assert 0 < seen[0] <= 5
        assert seen[1].startswith("ipv4:127.0.0.1:")
        assert seen[2:] == [False, False]
        async with asyncio.timeout(5):
            await ended.wait()
        seen.clear()
        await channel.unary_unary(path("Look"))(b"")
        assert seen[0] is None


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_call_that_is_over_cancels_its_handler(how: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    seen: list[bool] = []

    async def wait(request: bytes, context: Any) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(context.cancelled() or True)
            ended.set()
        return b""

    async with serving(Wait=unary(wait)) as channel, asyncio.timeout(10):
        call = channel.unary_unary(path("Wait"))(b"", timeout=0.3 if how == "deadline" else 30)
        await begun.wait()
        if how == "cancel":
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            assert (await failure_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ended.wait()
        assert seen == [True]


async def test_timeouts_and_groups_work_from_a_handlers_first_step_on() -> None:
    async def slow(request: bytes, context: Any) -> bytes:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(30)
        except TimeoutError:
            pass
        async with asyncio.TaskGroup() as group:
            first = group.create_task(asyncio.sleep(0.01, b"a"))
            second = group.create_task(asyncio.sleep(0, b"b"))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return first.result() + second.result()

    async with serving(Slow=unary(slow)) as channel:
        calls = [channel.unary_unary(path("Slow"))(b"", timeout=5) for _ in range(20)]
        assert await asyncio.gather(*calls) == [b"ab"] * 20


async def test_context_variables_of_one_call_are_not_seen_by_others() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")

    async def mark(request: bytes, context: Any) -> bytes:
        found = variable.get()
        variable.set(request.decode())
        if request == b"slow":
            await asyncio.sleep(0.01)
            assert variable.get() == "slow"
        return found.encode()

    async with serving(Mark=unary(mark)) as channel:
        for request in (b"a", b"slow", b"b"):
            assert await channel.unary_unary(path("Mark"))(request, timeout=5) == b"nothing"


async def test_a_write_waits_while_the_client_does_not_read() -> None:
    written: list[int] = []

    async def flood(request: bytes, context: Any) -> None:
        for number in range(4_000):
            await context.write(bytes(10_000))
            written.append(number)

    async with serving(Flood=grpc.unary_stream_rpc_method_handler(flood)) as channel, asyncio.timeout(30):
        call = channel.unary_stream(path("Flood"))(b"", timeout=30)
        assert await call.read() == bytes(10_000)
        seen = -1
        while seen != len(written):  # until nothing more is written for a while
            seen = len(written)
            await asyncio.sleep(0.3)
        assert seen < 4_000
        read = 1
        while await call.read() is not grpc.aio.EOF:
            read += 1
        assert read == 4_000


async def test_a_stream_that_inflates_a_message_beyond_the_limit_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def gather(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([request async for request in requests])

    def gather_in_a_thread(requests: Iterator[bytes], context: Any) -> bytes:
        return b"".join(requests)

    with ThreadPoolExecutor(2) as threads:
        async with serving(
            threads=threads,
            Gather=grpc.stream_unary_rpc_method_handler(gather),
            GatherInAThread=grpc.stream_unary_rpc_method_handler(gather_in_a_thread),
        ) as channel:
            for name in ("Gather", "GatherInAThread"):
                call = channel.stream_unary(path(name))(timeout=10, compression=grpc.Compression.Gzip)
                await call.write(b"a")
                with contextlib.suppress(asyncio.InvalidStateError):  # it may be over before all is written
                    await call.write(bytes(TransportConfig().receive_message_bytes_max + 1))
                    await call.done_writing()
                assert (await failure_of(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED, name
                again = channel.stream_unary(path(name))(iter([b"a", b"b"]), timeout=10)
                assert await again == b"ab", "the connection goes on"
    ours = [
        record for record in caplog.records if record.name.startswith("trunkline")
    ]  # grpcio writes of races of its own
    assert not ours, "a peer must not be able to fill the log"
