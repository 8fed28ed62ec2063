"""A channel and the control plane: policies that change under it, outliers that are ejected, outcomes that are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from integration.echo_server import COUNT, SAY
from integration.scripted_server import Scripted, Step, scripted
from integration.waiting import until

from trunkline.client import BalancedChannel, ClientOptions, SentCall, Trunkline
from trunkline.client._errors import error_of
from trunkline.client.testing import FakeControlPlane
from trunkline.core.breaker import State
from trunkline.core.policy import MS, Limits, OutlierDetection, Policy, Retry, S

Code = grpc.StatusCode
FAIL = Step()


@pytest.fixture
async def plane() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
async def trunkline(plane: FakeControlPlane) -> AsyncIterator[Trunkline]:
    async with plane.connect(options=ClientOptions(report_interval_s=0.05)) as connected:
        yield connected


@pytest.fixture
async def server(trunkline: Trunkline) -> AsyncIterator[Scripted]:
    async with scripted(trunkline, "a", version="1.2.0") as handler:
        yield handler


async def said(channel: BalancedChannel) -> str:
    """The answer, or the reason."""
    try:
        answer: bytes = await channel.unary_unary(SAY)(b"hi", timeout=10)
    except grpc.aio.AioRpcError as error:
        return error_of(error).code if "grpc-status-details-bin" in error.trailing_metadata() else error.code().name
    return answer.decode()


# Policies.

BREAKER = "circuit_breaker: {sliding_window_size: 2, minimum_number_of_calls: 2}"


async def test_a_policy_that_changes_holds_for_the_next_call_and_keeps_what_it_can(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    channel = await trunkline.channel("echo")
    assert await said(channel) == "a hi"
    assert channel.policy_state().counts.calls == 0, "without a policy a call goes straight"

    async def apply(sections: str) -> None:
        revision = plane.set_policy(f"service: echo\n{sections}")
        await until(lambda: channel.policy_state().policy.revision == revision)

    await apply(BREAKER)
    server.always = Step(code=Code.INTERNAL)
    assert [await said(channel) for _ in range(3)] == ["INTERNAL", "INTERNAL", "CIRCUIT_OPEN"]
    await apply(f"{BREAKER}\nretry: {{max_attempts: 2, base_interval: 0.001s}}")
    assert await said(channel) == "CIRCUIT_OPEN", "the breaker is the same, and so is its state"
    await apply("retry: {max_attempts: 2, base_interval: 0.001s}")
    server.steps, server.always = [FAIL], None
    server.seen.clear()
    assert await said(channel) == "a hi"
    assert server.attempts == [0, 1]
    await apply("timeout: 3s")
    assert await said(channel) == "a hi"
    remaining = server.seen[-1].remaining_s
    assert remaining is not None
    assert remaining < 3.1


async def test_the_channel_s_own_policy_stands_above_it(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    plane.set_policy("service: echo\nlimits: {max_requests: 1}")
    own = await trunkline.channel("echo", policy=Policy(limits=Limits(max_requests=2)))
    theirs = await trunkline.channel("echo")
    await until(lambda: theirs.policy_state().policy.limits.max_requests == 1)
    server.always = Step(code=None, after_s=0.2)
    assert Counter(await asyncio.gather(*(said(own) for _ in range(4)))) == {"a hi": 2, "LIMIT_EXCEEDED": 2}
    assert Counter(await asyncio.gather(*(said(theirs) for _ in range(4)))) == {"a hi": 1, "LIMIT_EXCEEDED": 3}


async def test_calls_in_flight_end_with_the_breaker_that_let_them_through(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    channel = await trunkline.channel("echo")
    plane.set_policy(f"service: echo\n{BREAKER}")
    await until(lambda: channel.policy_state().breaker)
    server.always = Step(code=Code.INTERNAL, after_s=0.2)
    late = [asyncio.ensure_future(said(channel)) for _ in range(3)]
    await until(lambda: len(server.seen) == 3)
    plane.set_policy("service: echo\ncircuit_breaker: {sliding_window_size: 3, minimum_number_of_calls: 3}")
    await until(lambda: channel.policy_state().policy.circuit_breaker and channel.policy_state().policy.revision > 2)
    assert await asyncio.gather(*late) == ["INTERNAL"] * 3
    breaker = channel.policy_state().breaker
    assert breaker is not None
    assert (breaker.state, breaker.counts.total) == (State.CLOSED, 0)


# Outlier detection.


async def test_an_outlier_is_left_out_and_comes_back(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    detection = OutlierDetection(consecutive_5xx=3, max_ejection_percent=50, base_ejection_time_ns=30 * S)
    async with scripted(trunkline, "b"), scripted(trunkline, "c"):
        channel = await trunkline.channel("echo", policy=Policy(outlier_detection=detection))
        await until(lambda: len(channel.endpoints()) == 3)
        server.always = Step(code=Code.INTERNAL)
        answers = Counter([await said(channel) for _ in range(30)])
        assert answers["INTERNAL"] == 3
        assert [one.instance_id for one in channel.endpoints() if not one.picked] == ["a"]
        (why,) = channel.policy_state().ejected.values()
        assert why == "ejected: consecutive_5xx"
        assert {one.why for one in channel.endpoints()} == {"", why}
        server.always = None
        plane.advance(29)
        await asyncio.sleep(1.2)  # the look at the clock
        assert channel.policy_state().ejected
        plane.advance(11)
        await until(lambda: not channel.policy_state().ejected)
        assert "a hi" in {await said(channel) for _ in range(6)}


async def test_without_the_section_nobody_stays_ejected(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    async with scripted(trunkline, "b"):
        channel = await trunkline.channel("echo")
        plane.set_policy("service: echo\noutlier_detection: {consecutive_5xx: 1, max_ejection_percent: 50}")
        await until(lambda: channel.policy_state().policy.outlier_detection and len(channel.endpoints()) == 2)
        server.always = Step(code=Code.INTERNAL)
        assert Counter([await said(channel) for _ in range(10)]) == {"b hi": 9, "INTERNAL": 1}
        plane.set_policy("service: echo")
        await until(lambda: not channel.policy_state().ejected)
        assert Counter([await said(channel) for _ in range(10)])["INTERNAL"] >= 4


async def test_a_cancelled_call_ejects_nobody(trunkline: Trunkline, server: Scripted) -> None:
    async with scripted(trunkline, "b"):
        detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=50)
        channel = await trunkline.channel("echo", policy=Policy(outlier_detection=detection))
        await until(lambda: len(channel.endpoints()) == 2)
        server.always = Step(code=None, after_s=30)
        for _ in range(6):
            call = channel.unary_unary(SAY)(b"hi", timeout=10)
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(call, 0.1)
        assert len(server.seen) >= 3
        assert not channel.policy_state().ejected


# Outcomes.


async def test_outcomes_are_told_of_services_with_a_policy(
    plane: FakeControlPlane, trunkline: Trunkline, server: Scripted
) -> None:
    channel = await trunkline.channel("echo")
    assert await said(channel) == "a hi"
    plane.set_policy("service: echo\nretry: {max_attempts: 2, base_interval: 0.001s}")
    await until(lambda: channel.policy_state().policy.retry)
    server.steps = [FAIL]
    assert [await said(channel) for _ in range(4)] == ["a hi"] * 4
    assert [one async for one in channel.unary_stream(COUNT)(b"2", timeout=10)] == [b"a 0", b"a 1"]
    await until(lambda: sum(one.count for one in plane.outcomes) == 6)
    told = Counter({(one.service, one.instance_id, one.version, one.status_code): 0 for one in plane.outcomes})
    for one in plane.outcomes:
        told[one.service, one.instance_id, one.version, one.status_code] += one.count
        assert sum(one.latency_buckets.values()) == one.count
        assert one.total_latency.ToNanoseconds() >= 0
    assert told == {("echo", "a", "1.2.0", 0): 5, ("echo", "a", "1.2.0", 14): 1}
    await until(lambda: trunkline.outcome_counts == (6, 0))  # the answer to the last report may be on its way


async def test_outcomes_of_all_services_or_of_none(plane: FakeControlPlane, server: Scripted) -> None:
    async with plane.connect(options=ClientOptions(report_outcomes="always")) as always:
        await always.register("front", id="f", port=1, drain_on_exit=False)
        channel = await always.channel("echo")
        assert [await said(channel) for _ in range(3)] == ["a hi"] * 3
        server.steps = [Step(code=None, after_s=30)]
        call = channel.unary_unary(SAY)(b"hi", timeout=60)
        await until(lambda: len(server.seen) == 4)
        assert call.cancel()
    assert [one.count for one in plane.outcomes] == [3], "what is left is told at the end, a cancelled call is not"
    assert [one.caller for one in plane._discovery.reports] == ["front"]
    plane.set_policy("service: echo\ntimeout: 3s")
    async with plane.connect(options=ClientOptions(report_outcomes="never")) as never:
        channel = await never.channel("echo")
        assert [await said(channel) for _ in range(3)] == ["a hi"] * 3
    assert len(plane.outcomes) == 1


async def test_closing_does_not_wait_for_a_control_plane_that_is_away(
    plane: FakeControlPlane, server: Scripted
) -> None:
    async with plane.connect(options=ClientOptions(report_outcomes="always", timeout_s=0.1)) as always:
        channel = await always.channel("echo", timeout_s=10)
        assert await said(channel) == "a hi"
        plane.go_away()
    assert always.outcome_counts == (0, 1)
    plane.come_back()


async def test_a_policy_of_retries_counts_each_attempt_at_its_instance(trunkline: Trunkline, server: Scripted) -> None:
    seen: list[SentCall] = []
    retry = Retry(max_attempts=2, base_interval_ns=MS)
    channel = await trunkline.channel("echo", policy=Policy(retry=retry), on_call=seen.append)
    server.steps = [FAIL]
    assert await said(channel) == "a hi"
    await until(lambda: len(seen) == 2)
    assert [one.code for one in seen] == [Code.UNAVAILABLE, Code.OK]
    assert {one.instance.instance.id for one in seen} == {"a"}
