"""grpcio as a client of each transport, with threads and with asyncio."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from interop.conformance import python_asyncio, python_sync
from interop.conformance.cases import GRPCIO_ASYNC, GRPCIO_SYNC
from interop.conformance.harness import Interop, interop_server, judged
from interop.conformance.messages import stub
from interop.conformance.requests import TIMEOUT_S, output, size_of

GRACEFUL_STOP = "graceful_stop"


def test_every_case_is_known() -> None:
    assert python_sync.CASES.keys() == GRPCIO_SYNC.cases.keys()
    assert python_asyncio.CASES.keys() == GRPCIO_ASYNC.cases.keys() - {GRACEFUL_STOP}


@pytest.mark.parametrize("case", GRPCIO_SYNC.cases)
def test_grpcio_with_threads(interop: Interop, case: str) -> None:
    with judged(GRPCIO_SYNC, interop, case) as address:
        python_sync.CASES[case](address)


@pytest.mark.parametrize("case", [case for case in GRPCIO_ASYNC.cases if case != GRACEFUL_STOP])
async def test_grpcio_with_asyncio(interop: Interop, case: str) -> None:
    with judged(GRPCIO_ASYNC, interop, case) as address:
        await python_asyncio.CASES[case](address)


async def test_a_server_that_stops_ends_the_open_call_in_peace(interop: Interop) -> None:
    with (
        interop_server(interop.transport) as stopping,
        judged(GRPCIO_ASYNC, stopping, GRACEFUL_STOP) as address,
    ):
        await _stop_below_an_open_call(stopping, address)


async def _stop_below_an_open_call(server: Interop, address: str) -> None:
    async with python_asyncio.connected(address) as channel:
        call = stub(channel, "FullDuplexCall")(timeout=TIMEOUT_S)
        await call.write(output(1))
        assert size_of(await call.read()) == 1
        server.begin_stop()
        await asyncio.sleep(0.3)
        await call.write(output(2))
        assert size_of(await call.read()) == 2
        further = stub(channel, "FullDuplexCall")(iter([output(1)]), timeout=1)
        assert (await python_asyncio.refusal(further)).code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
