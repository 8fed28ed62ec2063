"""The load that benchmarks make: what goes over the wire is gRPC, and refusals are no answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from bench.load.batches import EVENT_BYTES, MARK, NUMBER, Batches
from bench.load.client.build import has_tls
from bench.load.client.program import Files, options, records, run
from bench.load.client.unary import Answers, Calls, call
from bench.load.server import Tls
from trunkline.core.wire import scan_publish

ECHO = "/bench.Test/Echo"
FULL = "/bench.Test/Full"


class Echo(grpc.GenericRpcHandler):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        methods = {ECHO: self._echo, FULL: self._full}
        method = methods.get(details.method or "")
        return method and grpc.unary_unary_rpc_method_handler(method)

    async def _echo(self, request: bytes, context: Any) -> bytes:
        self.asked.append(request)
        return request

    async def _full(self, request: bytes, context: Any) -> bytes:
        self.asked.append(request)
        if len(self.asked) % 2:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "every other one, and it says so: ünïcödé %")
        return request


@pytest.fixture
async def served() -> AsyncIterator[tuple[Echo, str]]:
    echo = Echo()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield echo, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def called(address: str, calls: Calls, *, seconds: float = 0.2, warm_s: float = 0.1) -> Answers:
    """The server of these tests is in this process, so the client must not hold up its loop."""
    return await asyncio.to_thread(call, address, calls, seconds=seconds, repetitions=2, warm_s=warm_s)


async def test_every_call_is_a_request_of_its_own(served: tuple[Echo, str]) -> None:
    echo, address = served
    bodies = [(b"one " + NUMBER) * 40, b"other " + NUMBER]
    found = await called(address, Calls(path=ECHO, bodies=bodies, connections=2, streams=10))
    assert len(found.rates) == 2
    assert min(found.rates) > 0
    assert len(echo.asked) >= found.answered >= 0.2 * sum(found.rates)
    assert 0 < found.p50_us <= found.p99_us <= found.max_us
    assert len(set(echo.asked)) == len(echo.asked)
    wanted = {(b"one %016x" % n) * 40 if n % 2 == 0 else b"other %016x" % n for n in range(len(echo.asked))}
    assert set(echo.asked) == wanted
    assert found.body in wanted


async def test_a_load_with_a_limit_ends_there(served: tuple[Echo, str]) -> None:
    echo, address = served
    calls = Calls(path=ECHO, bodies=[b"x" * 30_000], streams=4, limit=37)
    found = await called(address, calls, seconds=30, warm_s=0)
    assert len(echo.asked) == found.answered == 37, "bodies that fill the window wait for it, and none is lost"
    assert found.body == b"x" * 30_000


async def test_a_body_larger_than_every_window_arrives(served: tuple[Echo, str]) -> None:
    echo, address = served
    body = bytes(range(256)) * 3_000
    await called(address, Calls(path=ECHO, bodies=[body], streams=3, limit=9), seconds=30, warm_s=0)
    assert echo.asked == [body] * 9


async def test_a_rate_is_kept_and_no_more_is_asked(served: tuple[Echo, str]) -> None:
    echo, address = served
    calls = Calls(path=ECHO, bodies=[b""], connections=2, streams=20, rate=200)
    found = await called(address, calls, seconds=0.15)
    assert all(150 < rate < 250 for rate in found.rates), found.rates
    assert len(echo.asked) < 100


async def test_a_refusal_is_no_answer(served: tuple[Echo, str]) -> None:
    with pytest.raises(RuntimeError, match=r"were refused, by status: {'12': \d+}"):
        await called(served[1], Calls(path="/bench.Test/Absent", bodies=[b""], streams=2))


async def test_refusals_among_answers_are_counted_by_their_status(served: tuple[Echo, str]) -> None:
    with Files() as files:
        words = options(path=FULL, body=files.new(records([b"x"])), calls=100, streams=8, seconds=30)
        found = await asyncio.to_thread(run, "unary", served[1], words)
    assert (found["asked"], found["answered"], found["failed"]) == (100, 50, 50)
    assert found["statuses"] == {"8": 50}


async def test_a_server_that_is_not_there_is_no_result(unused_address: str) -> None:
    with pytest.raises(RuntimeError, match="Connection refused"):
        await called(unused_address, Calls(path=ECHO, bodies=[b""]))


async def test_calls_go_over_tls(tmp_path: Path) -> None:
    if not has_tls():
        pytest.skip("needs libssl-dev")
    keys = Tls.make(tmp_path / "keys")
    pair = ((keys.folder / "server.key").read_bytes(), (keys.folder / "server.pem").read_bytes())
    echo = Echo()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    try:
        calls = Calls(path=ECHO, bodies=[b"y" * 50_000], connections=2, streams=5, limit=50, tls=True)
        found = await called(f"127.0.0.1:{port}", calls, seconds=30, warm_s=0)
        assert found.answered == 50
        assert echo.asked == [b"y" * 50_000] * 50
    finally:
        await server.stop(None)


@pytest.fixture
async def unused_address() -> str:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    return f"{host}:{port}"


def test_batches_are_valid_and_share_no_id() -> None:
    batches = Batches(50, namespace="bench")
    scans = [scan_publish(batches.at(number), stream_request=False) for number in (0, 1, 1 << 40)]
    pairs = {(s.id_hashes[2 * i], s.id_hashes[2 * i + 1]) for s in scans for i in range(s.count)}
    assert len(pairs) == 150
    assert bytes(scans[1].payload).count(MARK + b"%016x" % 1) == 50
    assert len(scans[0].payload) == 50 * (EVENT_BYTES + 3)
