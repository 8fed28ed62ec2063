"""Calls with a policy, over real sockets: the four kinds, and what is done when servers fail, are slow, or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from integration.echo_server import COUNT, JOIN, SAY, TALK, serve
from integration.scripted_server import Scripted, Step, scripted
from integration.waiting import until

from trunkline.client import BalancedChannel, SentCall, Trunkline
from trunkline.client._errors import error_of
from trunkline.client._request_buffer import REQUEST_BUFFER_BYTES
from trunkline.client.testing import FakeControlPlane
from trunkline.core.breaker import State
from trunkline.core.errors import CircuitOpen, LimitExceeded, NoInstance, RateLimited
from trunkline.core.policy import (
    MS,
    CircuitBreaker,
    KeySource,
    Limits,
    Policy,
    RateLimit,
    RatePer,
    Retry,
    RetryBudget,
    S,
    StatusCode,
)

Code = grpc.StatusCode
FAIL = Step()
RETRY = Retry(max_attempts=3, base_interval_ns=MS, max_interval_ns=2 * MS)
RETRYING = Policy(retry=RETRY)
BREAKER = CircuitBreaker(
    sliding_window_size=4, minimum_number_of_calls=4, permitted_number_of_calls_in_half_open_state=1
)


@pytest.fixture
async def plane() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
async def trunkline(plane: FakeControlPlane) -> AsyncIterator[Trunkline]:
    async with plane.connect() as connected:
        yield connected


@pytest.fixture
async def server(trunkline: Trunkline) -> AsyncIterator[Scripted]:
    async with scripted(trunkline, "a") as handler:
        yield handler


async def requests(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def ask(channel: BalancedChannel, kind: str, **options: Any) -> list[bytes]:
    """One call of each kind, and all that is answered."""
    options = {"timeout": 10, **options}
    if kind == "unary_unary":
        return [await channel.unary_unary(SAY)(b"hi", **options)]
    if kind == "unary_stream":
        return [part async for part in channel.unary_stream(COUNT)(b"2", **options)]
    if kind == "stream_unary":
        return [await channel.stream_unary(JOIN)(requests(b"x", b"yz"), **options)]
    return [part async for part in channel.stream_stream(TALK)(requests(b"x", b"yz"), **options)]


KINDS = {
    "unary_unary": [b"a hi"],
    "unary_stream": [b"a 0", b"a 1"],
    "stream_unary": [b"a 3"],
    "stream_stream": [b"a x", b"a yz"],
}


# Retries.


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_fails_is_tried_again_and_says_so(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [FAIL, FAIL]
    assert await ask(channel, kind, metadata=(("x-mine", "1"),)) == KINDS[kind]
    assert server.attempts == [0, 1, 2]
    assert {one.metadata["x-mine"] for one in server.seen} == {"1"}
    assert "trunkline-previous-rpc-attempts" not in server.seen[0].metadata
    counts = channel.policy_state().counts
    assert (counts.calls, counts.attempts, counts.retries) == (1, 3, 2)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_more_attempts_than_the_policy_allows(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.always = FAIL
    with pytest.raises(grpc.aio.AioRpcError, match="as written") as caught:
        await ask(channel, kind)
    assert caught.value.code() is Code.UNAVAILABLE
    assert server.attempts == [0, 1, 2]
    assert channel.policy_state().counts.stopped == {"attempts": 1}
    await until(lambda: channel.policy_state().in_flight == 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_other_codes_are_not_tried_again(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [Step(code=Code.INTERNAL)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(channel, kind)
    assert caught.value.code() is Code.INTERNAL
    assert len(server.seen) == 1


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
async def test_what_has_begun_to_answer_is_not_tried_again(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [Step(after_messages=1)]
    if kind == "unary_stream":
        call = channel.unary_stream(COUNT)(b"2", timeout=10)
    else:
        call = channel.stream_stream(TALK)(requests(b"x"), timeout=10)
    assert await call.read() == b"a 0"
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await call.read()
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await call.read()
    assert await call.code() is Code.UNAVAILABLE
    assert len(server.seen) == 1


async def test_whoever_saw_the_headers_keeps_the_attempt(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [FAIL, Step(headers=True, after_s=0.1)]
    call = channel.unary_stream(COUNT)(b"2", timeout=10)
    assert dict(await call.initial_metadata())["x-server"] == "a"
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await call.read()
    assert server.attempts == [0, 1]
    assert channel.policy_state().counts.stopped == {"committed": 1}
    server.steps = [Step(headers=True)]
    assert await ask(channel, "unary_stream") == [b"a 0", b"a 1"], "nobody looked"


async def test_a_stream_that_answers_only_after_its_headers_were_seen(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [Step(code=None, headers=True)]
    call = channel.stream_stream(TALK)(timeout=10)
    assert dict(await call.initial_metadata())["x-server"] == "a"
    await call.write(b"1")
    assert await call.read() == b"a 1"
    await call.write(b"2")
    await call.done_writing()
    assert [await call.read(), await call.read()] == [b"a 2", grpc.aio.EOF]
    assert await call.code() is Code.OK
    assert call.done()


@pytest.mark.parametrize("after_requests", [0, 1, None])
async def test_written_requests_are_sent_again(
    trunkline: Trunkline, server: Scripted, after_requests: int | None
) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [Step(after_requests=after_requests, after_s=0.05)] * 2
    call = channel.stream_unary(JOIN)(timeout=10)
    for part in (b"1", b"22", b"333"):
        await call.write(part)
    await call.done_writing()
    assert await call == b"a 6"
    assert server.seen[-1].requests == [b"1", b"22", b"333"]
    assert server.attempts == [0, 1, 2]
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"4")


@pytest.mark.parametrize("written", [True, False])
async def test_more_requests_than_can_be_kept_commit_the_call(
    trunkline: Trunkline, server: Scripted, written: bool
) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    parts = [bytes(REQUEST_BUFFER_BYTES // 4)] * 5
    server.steps = [Step()]
    given = None if written else requests(*parts)
    call = channel.stream_unary(JOIN)(given, timeout=10)
    if written:
        for part in parts:
            await call.write(part)
        await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await call
    assert [len(one.requests) for one in server.seen] == [5]
    assert channel.policy_state().counts.stopped == {"committed": 1}
    assert await ask(channel, "stream_unary") == [b"a 3"]


async def test_what_is_written_between_attempts_goes_with_the_next(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [Step(after_requests=1, trailing=(("grpc-retry-pushback-ms", "300"),))]
    call = channel.stream_unary(JOIN)(timeout=10)
    await call.write(b"1")
    await until(lambda: server.seen and server.seen[0].ended)
    await until(lambda: channel.endpoints()[0].calls_in_flight == 0)
    await call.write(bytes(REQUEST_BUFFER_BYTES))  # more than is kept, and nothing has been let go
    await call.done_writing()
    assert await call == b"a %d" % (REQUEST_BUFFER_BYTES + 1)
    assert server.attempts == [0, 1]


async def test_a_long_stream_of_requests_is_not_kept(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    part = bytes(REQUEST_BUFFER_BYTES // 2)
    call = channel.stream_unary(JOIN)(timeout=20)
    for _ in range(20):
        await call.write(part)
        assert call._ask.buffer.kept_bytes <= REQUEST_BUFFER_BYTES + len(part)
    await call.done_writing()
    assert await call == b"a %d" % (20 * len(part))


async def test_requests_that_fail_end_the_call(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)

    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("of the caller's")

    call = channel.stream_unary(JOIN)(failing(), timeout=10)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is Code.CANCELLED


async def test_a_retry_goes_to_another_endpoint(trunkline: Trunkline, server: Scripted) -> None:
    async with scripted(trunkline, "b") as other:
        codes = frozenset({StatusCode.RESOURCE_EXHAUSTED})  # which says nothing of the connection
        retry = Retry(max_attempts=2, base_interval_ns=MS, retryable_status_codes=codes)
        channel = await trunkline.channel("echo", policy=Policy(retry=retry), load_balancing="random")
        server.always = Step(code=Code.RESOURCE_EXHAUSTED)
        assert {(await ask(channel, "unary_unary"))[0] for _ in range(20)} == {b"b hi"}
        assert 0 < len(server.seen) < 20
        assert other.attempts.count(1) == len(server.seen)


async def test_pushback_is_waited_for_and_no_is_no(trunkline: Trunkline, server: Scripted) -> None:
    slow = Retry(max_attempts=3, base_interval_ns=3_600 * S, max_interval_ns=3_600 * S)
    channel = await trunkline.channel("echo", policy=Policy(retry=slow))
    server.steps = [Step(trailing=(("grpc-retry-pushback-ms", "20"),))]
    assert await ask(channel, "unary_unary") == [b"a hi"]
    for said in ("-1", "soon"):
        server.steps = [Step(trailing=(("grpc-retry-pushback-ms", said),))]
        with pytest.raises(grpc.aio.AioRpcError, match="as written"):
            await ask(channel, "unary_unary")
    assert server.attempts == [0, 1, 0, 0]
    assert channel.policy_state().counts.stopped == {"pushback": 2}


async def test_no_retry_begins_behind_the_deadline(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.steps = [Step(trailing=(("grpc-retry-pushback-ms", "60000"),))]
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await ask(channel, "unary_unary", timeout=5)
    assert channel.policy_state().counts.stopped == {"deadline": 1}


# Time.


async def test_the_shorter_timeout_holds(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(timeout_ns=2 * S))
    for timeout in (None, 1.0, 30.0):
        await channel.unary_unary(SAY)(b"", timeout=timeout)
    remaining = [one.remaining_s or 0 for one in server.seen]
    assert [round(one) for one in remaining] == [2, 1, 2]
    server.always = Step(code=None, after_s=30)
    channel = await trunkline.channel("echo", policy=Policy(timeout_ns=50 * MS))
    call = channel.unary_unary(SAY)(b"")
    assert await call.code() is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attempt_that_takes_too_long_is_given_up(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    retry = Retry(max_attempts=2, base_interval_ns=MS, per_try_timeout_ns=200 * MS)
    channel = await trunkline.channel("echo", policy=Policy(retry=retry))
    server.steps = [Step(after_s=30)]
    assert await ask(channel, kind) == KINDS[kind]
    assert server.attempts == [0, 1]
    await until(lambda: all(one.calls_in_flight == 0 for one in channel.endpoints()))
    assert not server.seen[0].ended, "it was cancelled at the server"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attempt_that_was_given_up_is_a_failure_to_its_breakers(
    trunkline: Trunkline, server: Scripted, kind: str
) -> None:
    retry = Retry(max_attempts=2, base_interval_ns=MS, per_try_timeout_ns=150 * MS)
    policy = Policy(retry=retry, circuit_breaker=BREAKER, endpoint_circuit_breaker=BREAKER)
    sent: list[SentCall] = []
    channel = await trunkline.channel("echo", policy=policy, on_call=sent.append)
    server.steps = [Step(after_s=30)]
    assert await ask(channel, kind) == KINDS[kind]
    state = channel.policy_state()
    for breaker in (state.breaker, *state.endpoint_breakers.values()):
        assert breaker is not None
        assert (breaker.counts.total, breaker.counts.failed) == (2, 1)
    assert [one.code for one in sent] == [Code.DEADLINE_EXCEEDED, Code.OK]


async def test_the_two_breakers_may_count_other_codes(trunkline: Trunkline, server: Scripted) -> None:
    of_service = replace(BREAKER, record_codes=frozenset({StatusCode.NOT_FOUND}))
    of_endpoint = replace(BREAKER, ignore_codes=frozenset({StatusCode.NOT_FOUND}))
    policy = Policy(circuit_breaker=of_service, endpoint_circuit_breaker=of_endpoint)
    channel = await trunkline.channel("echo", policy=policy)
    server.steps = [Step(code=Code.NOT_FOUND), Step(code=Code.INTERNAL)]
    assert len([one for one in await refusals([ask(channel, "unary_unary") for _ in range(2)]) if one]) == 2
    state = channel.policy_state()
    (endpoint,) = state.endpoint_breakers.values()
    assert state.breaker is not None
    assert (state.breaker.counts.total, state.breaker.counts.failed) == (2, 1)
    assert (endpoint.counts.total, endpoint.counts.failed) == (1, 1)


async def test_a_stream_that_answers_may_take_longer_than_an_attempt(trunkline: Trunkline, server: Scripted) -> None:
    retry = Retry(max_attempts=2, per_try_timeout_ns=150 * MS)
    channel = await trunkline.channel("echo", policy=Policy(retry=retry))
    server.steps = [Step(code=None, after_s=0.4)]
    call = channel.unary_stream(COUNT)(b"2", timeout=10)
    assert [part async for part in call] == [b"a 0", b"a 1"]
    assert await call.code() is Code.OK


# What is not let through.


async def test_calls_over_the_limit_are_refused_at_once(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(limits=Limits(max_requests=2)))
    server.always = Step(code=None, after_s=0.3)
    say = channel.unary_unary(SAY)
    under_way = [say(b"hi", timeout=10) for _ in range(2)]
    await until(lambda: len(server.seen) == 2)
    for wait_for_ready in (False, True):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(b"hi", timeout=10, wait_for_ready=wait_for_ready)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert isinstance(error_of(caught.value), LimitExceeded)
    assert await asyncio.gather(*under_way) == [b"a hi", b"a hi"]
    assert await say(b"hi", timeout=10) == b"a hi"
    assert len(server.seen) == 3
    assert channel.policy_state().counts.refused == {"LIMIT_EXCEEDED": 2}


async def refusals(calls: Iterable[Any]) -> list[str]:
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return [error_of(one).code if isinstance(one, grpc.aio.AioRpcError) else "" for one in outcomes]


async def test_rates_by_service_method_and_key(plane: FakeControlPlane, trunkline: Trunkline, server: Scripted) -> None:
    def policy(per: RatePer, key: KeySource | None = None) -> Policy:
        return Policy(rate_limits=(RateLimit(max_tokens=2, fill_interval_ns=S, per=per, key=key),))

    channel = await trunkline.channel("echo", policy=policy(RatePer.SERVICE))
    say, join = channel.unary_unary(SAY), channel.stream_unary(JOIN)
    said = [say(b"", timeout=10), join(requests(b""), timeout=10), say(b"", timeout=10)]
    assert await refusals(said) == ["", "", "RATE_LIMITED"]
    plane.advance(1)
    assert await refusals([say(b"", timeout=10) for _ in range(2)]) == ["", "RATE_LIMITED"]

    channel = await trunkline.channel("echo", policy=policy(RatePer.METHOD))
    say, join = channel.unary_unary(SAY), channel.stream_unary(JOIN)
    said = [*(say(b"", timeout=10) for _ in range(3)), *(join(requests(b""), timeout=10) for _ in range(3))]
    assert await refusals(said) == ["", "", "RATE_LIMITED"] * 2

    channel = await trunkline.channel("echo", policy=policy(RatePer.KEY, KeySource(header="x-user")))
    say = channel.unary_unary(SAY)
    said = [say(b"", timeout=10, metadata=(("x-user", user),)) for user in "aabab"]
    assert await refusals(said) == ["", "", "", "RATE_LIMITED", ""]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(b"", timeout=10, metadata=(("x-user", "a"),))
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    assert isinstance(error_of(caught.value), RateLimited)


async def test_the_breaker_of_a_service(plane: FakeControlPlane, trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(circuit_breaker=BREAKER))
    server.always = Step(code=Code.INTERNAL)
    for _ in range(4):
        with pytest.raises(grpc.aio.AioRpcError, match="as written"):
            await ask(channel, "unary_unary")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(channel, "unary_unary")
    assert caught.value.code() is Code.UNAVAILABLE
    assert isinstance(error_of(caught.value), CircuitOpen)
    assert len(server.seen) == 4
    breaker = channel.policy_state().breaker
    assert breaker is not None
    assert breaker.state is State.OPEN
    plane.advance(60)
    server.always = None
    assert await ask(channel, "unary_unary") == [b"a hi"]
    breaker = channel.policy_state().breaker
    assert breaker is not None
    assert breaker.state is State.CLOSED


async def test_cancelled_calls_say_nothing_to_a_breaker(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(circuit_breaker=BREAKER, endpoint_circuit_breaker=BREAKER))
    server.always = Step(code=None, after_s=30)
    for _ in range(6):
        server.seen.clear()
        call = channel.unary_unary(SAY)(b"", timeout=10)
        await until(lambda: server.seen)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    state = channel.policy_state()
    assert state.breaker is not None
    assert (state.breaker.state, state.breaker.counts.total) == (State.CLOSED, 0)
    assert [one.counts.total for one in state.endpoint_breakers.values()] == [0]


async def test_an_open_breaker_of_an_endpoint_sends_calls_to_the_others(trunkline: Trunkline, server: Scripted) -> None:
    async with scripted(trunkline, "b") as other:
        channel = await trunkline.channel("echo", policy=Policy(endpoint_circuit_breaker=BREAKER))
        server.always = Step(code=Code.INTERNAL)
        failed = await refusals(ask(channel, "unary_unary") for _ in range(8))
        assert len([one for one in failed if one]) == 4
        assert await refusals(ask(channel, "unary_unary") for _ in range(10)) == [""] * 10
        assert len(server.seen) == 4
        other.always = Step(code=Code.INTERNAL)
        assert len([one for one in await refusals(ask(channel, "unary_unary") for _ in range(20)) if one]) == 20
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, "unary_unary")
        assert isinstance(error_of(caught.value), CircuitOpen)
        assert {one.breaker.state for one in channel.endpoints() if one.breaker is not None} == {State.OPEN}


async def test_a_breaker_that_opens_between_attempts_leaves_the_error(trunkline: Trunkline, server: Scripted) -> None:
    once = CircuitBreaker(sliding_window_size=1, minimum_number_of_calls=1)
    channel = await trunkline.channel("echo", policy=Policy(circuit_breaker=once, retry=RETRY))
    server.always = FAIL
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await ask(channel, "unary_unary")
    assert len(server.seen) == 1
    assert channel.policy_state().counts.refused == {"CIRCUIT_OPEN": 1}


async def test_a_breaker_opens_when_nobody_can_be_reached(plane: FakeControlPlane, trunkline: Trunkline) -> None:
    async with scripted(trunkline, "gone") as handler:
        assert handler.seen == []
        channel = await trunkline.channel("echo", policy=Policy(circuit_breaker=BREAKER))
    await until(lambda: channel.endpoints() == [])
    for _ in range(6):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, "unary_unary")
        assert isinstance(error_of(caught.value), NoInstance), "who is not there was not called"
    await trunkline.register("echo", id="dead", port=await unused_port(), host="127.0.0.1")
    await until(lambda: len(channel.endpoints()) == 1)
    reasons = [await refusals([ask(channel, "unary_unary")]) for _ in range(5)]
    assert reasons == [["UNREACHABLE"]] * 4 + [["CIRCUIT_OPEN"]]


async def unused_port() -> int:
    server, port, _ = await serve("gone")
    await server.stop(None)
    return port


async def test_a_call_that_cannot_be_made_leaves_nothing_behind(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(circuit_breaker=BREAKER, limits=Limits(max_requests=1)))
    for _ in range(3):
        with pytest.raises((TypeError, ValueError)):
            await channel.unary_unary(SAY)(b"", timeout=10, metadata=(("x-number", 5),))
    assert await ask(channel, "unary_unary") == [b"a hi"]
    assert channel.policy_state().in_flight == 0


# Budgets.


async def test_under_total_failure_retries_stay_within_their_budget(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    budget = RetryBudget(budget_percent=20, min_retries_per_second=1, ttl_ns=10 * S)
    retry = Retry(max_attempts=5, base_interval_ns=MS, max_interval_ns=MS, budget=budget)
    channel = await trunkline.channel("echo", policy=Policy(retry=retry))
    server.always = FAIL
    for _ in range(5):
        assert len([one for one in await refusals(ask(channel, "unary_unary") for _ in range(20)) if one]) == 20
    assert 15 <= len(server.seen) - 100 <= 30, "a fifth of 100 calls, and one in each of ten seconds"
    counts = channel.policy_state().counts
    assert counts.attempts == len(server.seen)
    assert counts.stopped["budget"] > 0
    plane.advance(20)
    server.seen.clear()
    with pytest.raises(grpc.aio.AioRpcError):
        await ask(channel, "unary_unary")
    assert server.attempts == [0, 1, 2, 3, 4], "there is a new window, and no call more than five attempts"


# Ends.


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_call_is_cancelled_at_the_server(trunkline: Trunkline, server: Scripted, kind: str) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    server.always = Step(after_s=100)
    under_way = asyncio.ensure_future(ask(channel, kind, timeout=100))
    await until(lambda: server.seen)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    await until(lambda: channel.policy_state().in_flight == 0)
    await until(lambda: all(one.calls_in_flight == 0 for one in channel.endpoints()))
    assert len(server.seen) == 1
    assert not server.seen[0].ended


async def test_a_call_cancelled_between_attempts_makes_no_further_one(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(retry=Retry(max_attempts=3)))
    server.always = Step(trailing=(("grpc-retry-pushback-ms", "300"),))
    ended: list[Any] = []
    call = channel.unary_unary(SAY)(b"", timeout=10)
    call.add_done_callback(ended.append)
    await until(lambda: channel.endpoints()[0].calls_in_flight == 0 and server.seen)
    assert not call.done()
    assert call.cancel()
    assert not call.cancel()
    await until(lambda: ended)
    assert call.cancelled()
    assert call.done()
    assert ended == [call]
    assert await call.code() is Code.CANCELLED
    await asyncio.sleep(0.4)
    assert len(server.seen) == 1


async def test_who_is_told_of_the_end_is_told_once(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=RETRYING)
    ended: list[Any] = []
    server.steps = [FAIL]
    call = channel.unary_unary(SAY)(b"hi", timeout=10)
    call.add_done_callback(ended.append)
    remaining = call.time_remaining()
    assert remaining is not None
    assert 0 < remaining <= 10
    assert await call == b"a hi"
    await until(lambda: ended)
    call.add_done_callback(ended.append)
    assert ended == [call, call]
    assert (await call.code(), await call.details(), call.done(), call.cancelled()) == (Code.OK, "", True, False)
    assert await call.trailing_metadata() is not None
    await call.wait_for_connection()


async def test_closing_the_channel_ends_calls_and_retries(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(retry=Retry(max_attempts=3)))
    server.steps = [Step(trailing=(("grpc-retry-pushback-ms", "60000"),)), Step(code=None, after_s=30)]
    waiting = asyncio.ensure_future(channel.unary_unary(SAY)(b"")._answer())
    await until(lambda: server.seen and channel.endpoints()[0].calls_in_flight == 0)
    sent = asyncio.ensure_future(channel.unary_unary(SAY)(b"")._answer())
    await until(lambda: len(server.seen) == 2)
    await channel.close()
    for one in (waiting, sent):
        with pytest.raises(asyncio.CancelledError):
            await one


async def test_a_policy_that_changes_keeps_what_did_not_change(
    trunkline: Trunkline, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await trunkline.channel("echo")
    server.always = Step(code=Code.INTERNAL)
    assert channel.policy_state().policy == Policy()

    def said(policy: Policy) -> None:
        monkeypatch.setattr(type(channel.view), "policy", policy, raising=False)
        channel._view_changed(None)  # type: ignore[arg-type]

    said(Policy(circuit_breaker=BREAKER, revision=1))
    for _ in range(4):
        with pytest.raises(grpc.aio.AioRpcError, match="as written"):
            await ask(channel, "unary_unary")
    said(Policy(circuit_breaker=BREAKER, retry=RETRY, revision=2))
    assert (await refusals([ask(channel, "unary_unary")])) == ["CIRCUIT_OPEN"]
    said(Policy(retry=RETRY, revision=3))
    server.steps = [FAIL]
    server.always = None
    assert await ask(channel, "unary_unary") == [b"a hi"]
    said(Policy(revision=4))
    before = channel.policy_state().counts.calls
    assert await ask(channel, "unary_unary") == [b"a hi"]
    assert channel.policy_state().counts.calls == before, "a call without need of a policy goes straight"
