"""Calls with a policy on the blocking face, which has all of it from the other one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from integration.echo_server import COUNT, JOIN, SAY, TALK
from integration.scripted_server import Scripted, Step, scripted
from integration.waiting import until

from trunkline.client import SyncBalancedChannel, SyncTrunkline
from trunkline.client._errors import error_of
from trunkline.client.testing import FakeControlPlane
from trunkline.core.breaker import State
from trunkline.core.errors import CircuitOpen
from trunkline.core.policy import MS, CircuitBreaker, Fallback, Policy, Retry, RetryBudget

FAIL = Step()
RETRYING = Policy(retry=Retry(max_attempts=3, base_interval_ns=MS))


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with FakeControlPlane().connect() as there, scripted(there, "a") as handler:
        handler.port = (await there.resolve("echo"))[0].instance.endpoints[0].port  # type: ignore[attr-defined]
        yield handler


@pytest.fixture
async def plane() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
async def trunkline(plane: FakeControlPlane, server: Any) -> AsyncIterator[SyncTrunkline]:
    blocking = plane.connect_sync()
    await asyncio.to_thread(blocking.__enter__)
    try:
        await asyncio.to_thread(
            lambda: blocking.register("echo", id="a", port=server.port, host="127.0.0.1", drain_on_exit=False)
        )
        yield blocking
    finally:
        await asyncio.to_thread(blocking.close)


async def opened(trunkline: SyncTrunkline, **options: Any) -> SyncBalancedChannel:
    return await asyncio.to_thread(lambda: trunkline.channel("echo", **options))


def parts() -> Iterator[bytes]:
    yield b"x"
    yield b"yz"


def ask(channel: SyncBalancedChannel, kind: str) -> list[bytes]:
    if kind == "unary_unary":
        return [channel.unary_unary(SAY)(b"hi", timeout=10)]
    if kind == "unary_stream":
        return list(channel.unary_stream(COUNT)(b"2", timeout=10))
    if kind == "stream_unary":
        return [channel.stream_unary(JOIN)(parts(), timeout=10)]
    return list(channel.stream_stream(TALK)(parts(), timeout=10))


KINDS = {
    "unary_unary": [b"a hi"],
    "unary_stream": [b"a 0", b"a 1"],
    "stream_unary": [b"a 3"],
    "stream_stream": [b"a x", b"a yz"],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_are_tried_again(trunkline: SyncTrunkline, server: Scripted, kind: str) -> None:
    channel = await opened(trunkline, policy=RETRYING)
    server.steps = [FAIL, FAIL]
    assert await asyncio.to_thread(ask, channel, kind) == KINDS[kind]
    assert server.attempts == [0, 1, 2]
    server.always = FAIL
    with pytest.raises(grpc.RpcError, match="as written"):
        await asyncio.to_thread(ask, channel, kind)
    assert server.attempts == [0, 1, 2] * 2
    counts = channel.policy_state().counts
    assert (counts.calls, counts.attempts, counts.retries) == (2, 6, 4)


async def test_with_call_and_future(trunkline: SyncTrunkline, server: Scripted) -> None:
    channel = await opened(trunkline, policy=RETRYING)
    server.steps = [FAIL, FAIL]

    def work() -> None:
        say = channel.unary_unary(SAY)
        response, call = say.with_call(b"hi", timeout=10)
        assert (response, call.code(), call.details()) == (b"a hi", grpc.StatusCode.OK, "")
        assert call.trailing_metadata() is not None
        done = threading.Event()
        future = say.future(b"hi", timeout=10)
        future.add_done_callback(lambda _: done.set())
        assert future.result(10) == b"a hi"
        assert done.wait(10)
        assert future.done()
        assert not future.cancelled()
        assert future.exception() is None

    await asyncio.to_thread(work)
    assert server.attempts == [0, 1, 2, 0]


async def test_cancel(trunkline: SyncTrunkline, server: Scripted) -> None:
    channel = await opened(trunkline, policy=RETRYING)
    server.always = Step(after_s=30)
    future = await asyncio.to_thread(channel.unary_unary(SAY).future, b"hi", timeout=20)
    await until(lambda: server.seen)

    def cancel() -> None:
        assert future.running()
        assert future.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            future.result(10)
        assert future.cancelled()
        assert future.code() is grpc.StatusCode.CANCELLED

    await asyncio.to_thread(cancel)
    await until(lambda: channel.policy_state().in_flight == 0)
    assert len(server.seen) == 1
    assert not server.seen[0].ended


async def test_a_breaker_and_a_fallback(plane: FakeControlPlane, trunkline: SyncTrunkline, server: Scripted) -> None:
    breaker = CircuitBreaker(sliding_window_size=2, minimum_number_of_calls=2)
    channel = await opened(trunkline, policy=Policy(circuit_breaker=breaker))
    server.always = Step(code=grpc.StatusCode.INTERNAL)

    def work() -> None:
        say = channel.unary_unary(SAY)
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="as written"):
                say(b"hi", timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            say(b"hi", timeout=10)
        assert isinstance(error_of(caught.value), CircuitOpen)
        assert [one.breaker for one in channel.endpoints()] == [None]
        state = channel.policy_state().breaker
        assert state is not None
        assert state.state is State.OPEN

    await asyncio.to_thread(work)
    sorry = await opened(trunkline, policy=Policy(circuit_breaker=breaker, fallback=Fallback(answers={SAY: b"sorry"})))
    server.always = FAIL
    assert await asyncio.to_thread(ask, sorry, "unary_unary") == [b"sorry"]
    mine = await opened(trunkline, fallback=lambda method, request, error: b"mine " + request)
    assert await asyncio.to_thread(ask, mine, "unary_unary") == [b"mine hi"]


async def test_threads_share_one_budget(trunkline: SyncTrunkline, server: Scripted) -> None:
    budget = RetryBudget(budget_percent=20, min_retries_per_second=1)
    policy = Policy(retry=Retry(max_attempts=5, base_interval_ns=MS, max_interval_ns=MS, budget=budget))
    channel = await opened(trunkline, policy=policy)
    server.always = FAIL

    def work() -> int:
        failed = 0
        for _ in range(10):
            try:
                channel.unary_unary(SAY)(b"hi", timeout=20)
            except grpc.RpcError:
                failed += 1
        return failed

    assert await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4))) == [10] * 4
    assert 10 <= len(server.seen) - 40 <= 18, "a fifth of 40 calls, and ten besides"


async def test_the_deadline_holds_over_all_attempts(trunkline: SyncTrunkline, server: Scripted) -> None:
    retry = Retry(max_attempts=10, base_interval_ns=MS, per_try_timeout_ns=100 * MS)
    channel = await opened(trunkline, policy=Policy(retry=retry))
    server.always = Step(after_s=30)

    def work() -> None:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SAY)(b"hi", timeout=0.45)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    await asyncio.to_thread(work)
    assert 2 <= len(server.seen) <= 5


@pytest.mark.parametrize("policy", [None, RETRYING])
async def test_a_stream_that_nobody_reads_on_is_cancelled(
    trunkline: SyncTrunkline, server: Scripted, policy: Policy | None
) -> None:
    channel = await opened(trunkline, policy=policy)

    def look() -> None:
        for _ in channel.unary_stream(COUNT)(b"100000000"):
            break
        for _ in range(3):
            channel.unary_stream(COUNT)(b"100000000")

    await asyncio.to_thread(look)
    await until(lambda: channel.endpoints()[0].calls_in_flight == 0)
    assert channel.policy_state().in_flight == 0


async def test_who_waits_for_a_call_that_is_cancelled_is_told_as_by_grpc(
    trunkline: SyncTrunkline, server: Scripted
) -> None:
    channel = await opened(trunkline, policy=RETRYING)
    server.always = Step(after_s=30)
    waiting = asyncio.create_task(asyncio.to_thread(channel.unary_unary(SAY), b"hi", timeout=20))
    await until(lambda: server.seen)

    def cancel() -> None:
        stream = channel.unary_stream(COUNT)(b"2", timeout=20)
        assert stream.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        channel.close()

    await asyncio.to_thread(cancel)
    with pytest.raises(grpc.RpcError) as caught:
        await waiting
    assert caught.value.code() is grpc.StatusCode.CANCELLED
