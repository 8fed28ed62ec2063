"""The load that benchmarks make: what goes over the wire is gRPC, and refusals are no answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from bench.load.batches import EVENT_BYTES, MARK, Batches
from bench.load.unary import Load, rates
from trunkline.core.wire import scan_publish

ECHO = "/bench.Test/Echo"


class Echo(grpc.GenericRpcHandler):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._echo) if details.method == ECHO else None

    async def _echo(self, request: bytes, context: Any) -> bytes:
        self.asked.append(request)
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


async def test_every_call_is_a_request_of_its_own(served: tuple[Echo, str]) -> None:
    echo, address = served
    load = Load(ECHO, lambda number: b"%08d" % number * 100, 2, 10)
    found = await rates(address, load, seconds=0.2, repetitions=2, warm_s=0.1)
    assert len(found) == 2
    assert min(found) > 0
    assert len(echo.asked) >= 0.2 * sum(found)
    assert len(set(echo.asked)) == len(echo.asked)
    assert all(len(one) == 800 for one in echo.asked)


async def test_a_load_with_a_limit_ends_there(served: tuple[Echo, str]) -> None:
    echo, address = served
    await rates(address, Load(ECHO, lambda _: b"x" * 30_000, 1, 4, limit=37), seconds=1, repetitions=1, warm_s=0)
    assert len(echo.asked) == 37, "bodies that fill the window wait for it, and none is lost"


async def test_a_refusal_is_no_answer(served: tuple[Echo, str]) -> None:
    with pytest.raises(RuntimeError, match="were refused"):
        await rates(served[1], Load("/bench.Test/Absent", lambda _: b"", 1, 2), seconds=0.1, repetitions=1, warm_s=0.05)


def test_batches_are_valid_and_share_no_id() -> None:
    batches = Batches(50, namespace="bench")
    scans = [scan_publish(batches.at(number), stream_request=False) for number in (0, 1, 1 << 40)]
    pairs = {(s.id_hashes[2 * i], s.id_hashes[2 * i + 1]) for s in scans for i in range(s.count)}
    assert len(pairs) == 150
    assert bytes(scans[0].payload).count(MARK) == 50
    assert len(scans[0].payload) == 50 * (EVENT_BYTES + 3)
