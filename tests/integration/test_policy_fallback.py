"""Answers from elsewhere: another version, another service, a static one, or the caller's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from integration.echo_server import COUNT, JOIN, SAY
from integration.scripted_server import Scripted, Step, scripted
from integration.waiting import until

from trunkline.client import Trunkline
from trunkline.client._errors import error_of
from trunkline.client._fallback import FALLBACK_DEPTH_MAX
from trunkline.client._request_buffer import REQUEST_BUFFER_BYTES
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import CircuitOpen, NoInstance
from trunkline.core.policy import (
    MS,
    CircuitBreaker,
    Destination,
    Fallback,
    Limits,
    Policy,
    Retry,
    RetryBudget,
    Split,
    StatusCode,
    Subset,
)

Code = grpc.StatusCode
FAIL = Step()


@pytest.fixture
async def plane() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
async def trunkline(plane: FakeControlPlane) -> AsyncIterator[Trunkline]:
    async with plane.connect() as connected:
        yield connected


@pytest.fixture
async def server(trunkline: Trunkline) -> AsyncIterator[Scripted]:
    async with scripted(trunkline, "a", version="2.0.0") as handler:
        yield handler


async def requests(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# A static answer.


async def test_a_static_answer_comes_when_all_attempts_have_failed(trunkline: Trunkline, server: Scripted) -> None:
    policy = Policy(
        retry=Retry(max_attempts=2, base_interval_ns=MS), fallback=Fallback(answers={SAY: b"sorry", JOIN: b"0"})
    )
    channel = await trunkline.channel("echo", policy=policy)
    server.always = FAIL
    say = channel.unary_unary(SAY, response_deserializer=bytes.decode)
    call = say(b"hi", timeout=10)
    assert await call == "sorry"
    assert await call.code() is Code.OK
    assert dict(await call.trailing_metadata()) == {"trunkline-fallback": "answer"}
    assert call.done()
    assert not call.cancelled()
    assert not call.cancel()
    assert len(server.seen) == 2
    assert await channel.stream_unary(JOIN)(requests(b"x"), timeout=10) == b"0"
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        [one async for one in channel.unary_stream(COUNT)(b"2", timeout=10)]
    assert channel.policy_state().counts.fallbacks == {"answer": 2}
    await until(lambda: channel.policy_state().in_flight == 0)


async def test_a_static_answer_that_cannot_be_read_is_none(
    trunkline: Trunkline, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await trunkline.channel("echo", policy=Policy(fallback=Fallback(answers={SAY: b"\xff"})))
    server.always = FAIL
    call = channel.unary_unary(SAY, response_deserializer=bytes.decode)(b"hi", timeout=10)
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await call
    assert await call.code() is Code.UNAVAILABLE
    assert "a policy's answer cannot be read" in caplog.messages
    assert channel.policy_state().counts.fallbacks == {}
    assert channel.policy_state().in_flight == 0


async def test_only_for_its_codes_and_for_what_was_not_let_through(trunkline: Trunkline, server: Scripted) -> None:
    fallback = Fallback(answers={SAY: b"sorry"}, on_codes=frozenset({StatusCode.INTERNAL}))
    channel = await trunkline.channel("echo", policy=Policy(fallback=fallback, limits=Limits(max_requests=1)))
    say = channel.unary_unary(SAY)
    server.steps = [Step(code=Code.INTERNAL), Step(code=Code.UNAVAILABLE), Step(code=None, after_s=0.2)]
    assert await say(b"hi", timeout=10) == b"sorry"
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await say(b"hi", timeout=10)
    first = say(b"hi", timeout=10)
    await until(lambda: len(server.seen) == 3)
    assert await say(b"hi", timeout=10) == b"sorry", "one too many"
    assert await first == b"a hi"


async def test_a_stream_that_has_begun_to_answer_is_not_answered_otherwise(
    trunkline: Trunkline, server: Scripted
) -> None:
    channel = await trunkline.channel("echo", fallback=lambda *_: [b"otherwise"])
    server.steps = [Step(after_messages=1)]
    call = channel.unary_stream(COUNT)(b"2", timeout=10)
    assert await call.read() == b"a 0"
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await call.read()
    server.steps = [FAIL]
    assert [one async for one in channel.unary_stream(COUNT)(b"2", timeout=10)] == [b"otherwise"]


# A function.


async def test_a_function_is_given_what_was_asked(trunkline: Trunkline, server: Scripted) -> None:
    asked: list[Any] = []

    async def answer(method: str, request: Any, error: grpc.RpcError) -> Any:
        asked.append((method, request, error.code(), type(error_of(error)).__name__))
        await asyncio.sleep(0)
        return None if request == "nothing" else "mine"

    policy = Policy(fallback=Fallback(answers={SAY: b"never asked for"}))
    channel = await trunkline.channel("echo", policy=policy, fallback=answer)
    say = channel.unary_unary(SAY, str.encode, bytes.decode)
    assert await say("hi", timeout=10) == "a hi"
    server.always = FAIL
    assert await say("hi", timeout=10) == "mine"
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await say("nothing", timeout=10)
    assert asked == [(SAY, said, Code.UNAVAILABLE, "Unreachable") for said in ("hi", "nothing")]


async def test_what_a_function_raises_is_raised_and_a_slow_one_has_no_answer(
    trunkline: Trunkline, server: Scripted
) -> None:
    async def slow(method: str, request: Any, error: grpc.RpcError) -> Any:
        await asyncio.sleep(30)

    def failing(method: str, request: Any, error: grpc.RpcError) -> Any:
        raise KeyError("mine")

    server.always = FAIL
    channel = await trunkline.channel("echo", fallback=slow)
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await channel.unary_unary(SAY)(b"hi", timeout=0.5)
    channel = await trunkline.channel("echo", fallback=failing)
    call = channel.unary_unary(SAY)(b"hi", timeout=10)
    with pytest.raises(KeyError, match="mine"):
        await call
    assert (await call.code(), await call.details()) == (Code.UNKNOWN, "KeyError: 'mine'")
    assert not await call.trailing_metadata()


# Another version.


async def test_another_version_answers_though_the_breaker_is_open(trunkline: Trunkline, server: Scripted) -> None:
    async with scripted(trunkline, "old", version="1.0.0") as old:
        breaker = CircuitBreaker(sliding_window_size=2, minimum_number_of_calls=2)
        policy = Policy(
            subsets=(Subset(name="old", version="^1"), Subset(name="new", version="^2")),
            split=Split(destinations=(Destination(subset="new", weight=1),)),
            circuit_breaker=breaker,
            fallback=Fallback(subset="old"),
        )
        channel = await trunkline.channel("echo", policy=policy)
        await until(lambda: len(channel.endpoints()) == 2)
        say = channel.unary_unary(SAY)
        assert {await say(b"hi", timeout=10) for _ in range(4)} == {b"a hi"}
        server.always = FAIL
        assert {await say(b"hi", timeout=10) for _ in range(4)} == {b"old hi"}
        assert channel.policy_state().counts.refused["CIRCUIT_OPEN"] == 3, "it opens at half of two calls"
        assert len(server.seen) == 5
        old.always = Step(code=Code.ABORTED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(b"hi", timeout=10)
        assert isinstance(error_of(caught.value), CircuitOpen), "the first error is the one that is told"


async def test_requests_go_again_to_the_other_version_as_long_as_they_are_kept(
    trunkline: Trunkline, server: Scripted
) -> None:
    async with scripted(trunkline, "old", version="1.0.0") as old:
        policy = Policy(
            subsets=(Subset(name="old", version="^1"), Subset(name="new", version="^2")),
            split=Split(destinations=(Destination(subset="new", weight=1),)),
            fallback=Fallback(subset="old", on_codes=frozenset({StatusCode.INTERNAL})),
        )
        channel = await trunkline.channel("echo", policy=policy)
        await until(lambda: len(channel.endpoints()) == 2)
        server.always = Step(code=Code.INTERNAL)  # UNAVAILABLE may be a lost connection, which a split avoids
        join = channel.stream_unary(JOIN)
        assert await join(requests(b"x", b"yz"), timeout=10) == b"old 3"
        with pytest.raises(grpc.aio.AioRpcError, match="as written"):
            await join(requests(*[bytes(REQUEST_BUFFER_BYTES // 2)] * 4), timeout=10)
        assert len(old.seen) == 1


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_retries_stay_with_the_version_that_the_call_went_to_at_first(
    trunkline: Trunkline, server: Scripted, kind: str
) -> None:
    async with (
        scripted(trunkline, "b", version="2.0.0") as b,
        scripted(trunkline, "c", version="1.0.0") as c,
        scripted(trunkline, "d", version="1.0.0") as d,
    ):
        policy = Policy(
            split=Split(destinations=(Destination(version="^1", weight=1), Destination(version="^2", weight=1))),
            retry=Retry(
                max_attempts=2,
                retryable_status_codes=frozenset({StatusCode.ABORTED}),
                base_interval_ns=MS,
                budget=RetryBudget(budget_percent=100),
            ),
        )
        channel = await trunkline.channel("echo", policy=policy)
        await until(lambda: len(channel.endpoints()) == 4)
        new, old = [server, b], [c, d]
        for handler in new + old:
            handler.always = Step(code=Code.ABORTED)
        for number in range(20):
            say, join = channel.unary_unary(SAY), channel.stream_unary(JOIN)
            call = say(b"hi", timeout=10) if kind == "unary" else join(requests(b"x"), timeout=10)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            sent = [len(handler.seen) for handler in (*new, *old)]
            assert sum(sent) == 2 * (number + 1)
            assert sent[0] == sent[1], "each call went to both of a version"
            assert sent[2] == sent[3]
        assert 0 < len(server.seen) < 20


# Another service.


async def test_another_service_answers_by_its_own_policy(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    async with scripted(trunkline, "spare", service="spare") as spare:
        plane.set_policy("service: echo\nfallback: {service: spare}")
        plane.set_policy("service: spare\nretry: {max_attempts: 3, base_interval: 0.001s}")
        channel = await trunkline.channel("echo")
        await until(lambda: channel.policy_state().policy.fallback is not None)
        server.always = FAIL
        spare.steps = [FAIL, FAIL]
        say = channel.unary_unary(SAY, str.encode, bytes.decode)
        assert await say("hi", timeout=10) == "spare hi"
        assert spare.attempts == [0, 1, 2]
        assert [one async for one in channel.unary_stream(COUNT)(b"2", timeout=10)] == [b"spare 0", b"spare 1"]
        assert await channel.stream_unary(JOIN)(requests(b"x", b"yz"), timeout=10) == b"spare 3"
        assert channel.policy_state().counts.fallbacks == {"service": 3}
        (other,) = [opening.result() for opening in channel._policy._others.values()]
        await channel.close()
        assert other.closed  # type: ignore[attr-defined]


async def test_a_circle_of_services_ends(plane: FakeControlPlane, trunkline: Trunkline, server: Scripted) -> None:
    async with scripted(trunkline, "b", service="other") as other:
        # What a control plane would refuse.
        a, b = (Policy(fallback=Fallback(service=name)) for name in ("other", "echo"))
        channel = await trunkline.channel("echo", policy=a)
        open_service = channel._policy._surroundings.open_service
        assert open_service is not None
        opened: list[Any] = []

        async def opening(service: str) -> Any:
            made = await trunkline.channel(service, policy=a if service == "echo" else b)
            object.__setattr__(made._policy._surroundings, "open_service", opening)
            opened.append(made)
            return made

        object.__setattr__(channel._policy._surroundings, "open_service", opening)
        server.always = other.always = FAIL
        with pytest.raises(grpc.aio.AioRpcError, match="as written"):
            await channel.unary_unary(SAY)(b"hi", timeout=10)
        assert len(server.seen) + len(other.seen) == 1 + FALLBACK_DEPTH_MAX
        assert len(opened) == FALLBACK_DEPTH_MAX


async def test_without_the_other_service_the_error_stays(trunkline: Trunkline, server: Scripted) -> None:
    channel = await trunkline.channel("echo", policy=Policy(fallback=Fallback(service="nowhere")))
    server.always = FAIL
    with pytest.raises(grpc.aio.AioRpcError, match="as written"):
        await channel.unary_unary(SAY)(b"hi", timeout=0.5)


async def test_who_has_nobody_to_call_is_answered(trunkline: Trunkline) -> None:
    channel = await trunkline.channel("echo", policy=Policy(fallback=Fallback(answers={SAY: b"sorry"})))
    async with scripted(trunkline, "a"):
        await until(lambda: channel.endpoints())
    await until(lambda: not channel.endpoints())
    assert await channel.unary_unary(SAY)(b"hi", timeout=10) == b"sorry"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.stream_unary(JOIN)(requests(b""), timeout=10)
    assert isinstance(error_of(caught.value), NoInstance)
