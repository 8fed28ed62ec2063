"""The balanced channel over real sockets: spreading, tiers, refusals, drains, and the four kinds of calls."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from integration.echo_server import COUNT, JOIN, SAY, TALK, Echo, serve
from integration.waiting import until

from trunkline.client import BalancedChannel, Registration, SentCall, Trunkline
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import Unreachable
from trunkline.core.policy import Policy, S


@pytest.fixture
async def plane() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
async def trunkline(plane: FakeControlPlane) -> AsyncIterator[Trunkline]:
    async with plane.connect() as connected:
        yield connected


@asynccontextmanager
async def running(trunkline: Trunkline, name: str, **fields: object) -> AsyncIterator[tuple[Registration, Echo]]:
    server, port, echo = await serve(name)
    registration = await trunkline.register("echo", id=name, port=port, host="127.0.0.1", **fields)  # type: ignore[arg-type]
    try:
        yield registration, echo
    finally:
        await registration.close()
        await server.stop(None)


async def say(channel: BalancedChannel, text: bytes = b"hi", **options: object) -> str:
    answer: bytes = await channel.unary_unary(SAY)(text, **{"timeout": 5, **options})
    return answer.decode()


async def test_calls_are_spread_over_all_instances(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"), running(trunkline, "b"), running(trunkline, "c"):
        channel = await trunkline.channel("echo")
        say_it = channel.unary_unary(SAY)
        said = Counter([(await say_it(b"", timeout=5)).decode().strip() for _ in range(30)])
        assert said == {"a": 10, "b": 10, "c": 10}


async def test_all_four_kinds_of_calls(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"):
        channel = await trunkline.channel("echo")

        async def three() -> AsyncIterator[bytes]:
            for part in (b"x", b"y", b"z"):
                yield part

        for _ in range(2):  # once through the way that waits for a connection, once straight
            assert await say(channel) == "a hi"
            assert [part async for part in channel.unary_stream(COUNT)(b"3", timeout=5)] == [b"a 0", b"a 1", b"a 2"]
            assert await channel.stream_unary(JOIN)(three(), timeout=5) == b"a xyz"
            assert [part async for part in channel.stream_stream(TALK)(three(), timeout=5)] == [b"a x", b"a y", b"a z"]
            talk = channel.stream_stream(TALK)(timeout=5)
            await talk.write(b"1")
            assert await talk.read() == b"a 1"
            await talk.done_writing()
            assert await talk.read() is grpc.aio.EOF
            assert await talk.code() is grpc.StatusCode.OK


async def test_the_first_call_of_each_kind_may_wait_for_its_connection(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"):
        for make in ("unary_stream", "stream_stream"):
            channel = await trunkline.channel("echo")
            method = {"unary_stream": COUNT, "stream_stream": TALK}[make]
            call = getattr(channel, make)(method)(b"2" if make == "unary_stream" else iter([b"0", b"1"]), timeout=5)
            assert not call.done()
            assert [part async for part in call] == [b"a 0", b"a 1"]
            assert await call.code() is grpc.StatusCode.OK
            assert call.done()
            await channel.close()


async def test_who_is_told_of_calls_cannot_break_them(trunkline: Trunkline, caplog: pytest.LogCaptureFixture) -> None:
    told: list[SentCall] = []

    def tell(sent: SentCall) -> None:
        told.append(sent)
        raise ValueError("of the one who is told")

    async with running(trunkline, "a"):
        channel = await trunkline.channel("echo", on_call=tell)
        assert [await say(channel) for _ in range(3)] == ["a hi"] * 3
        await until(lambda: len(told) == 3)
        assert {sent.code for sent in told} == {grpc.StatusCode.OK}
        assert sum(record.message == "on_call failed" for record in caplog.records) == 3


async def test_serving_comes_before_degraded(trunkline: Trunkline) -> None:
    async with running(trunkline, "good") as (good, _), running(trunkline, "worse", declared="degraded"):
        channel = await trunkline.channel("echo")
        assert {await say(channel) for _ in range(6)} == {"good hi"}
        await good.declare("degraded")
        await until(lambda: len([one for one in channel.endpoints() if one.picked]) == 2)
        assert {await say(channel) for _ in range(6)} == {"good hi", "worse hi"}


async def test_a_refused_endpoint_costs_no_call(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"):
        await trunkline.register("echo", id="dead", port=await unused_port(), host="127.0.0.1")
        channel = await trunkline.channel("echo")
        for _ in range(10):
            assert await say(channel) == "a hi"
        dead = next(one for one in channel.endpoints() if one.instance_id == "dead")
        assert not dead.picked
        assert dead.why == "connection refused"


async def test_with_nobody_to_reach_a_call_says_whom_it_tried(trunkline: Trunkline) -> None:
    port = await unused_port()
    await trunkline.register("echo", id="dead", port=port, host="127.0.0.1")
    channel = await trunkline.channel("echo")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert str(port) in (caught.value.details() or "")


async def test_a_service_that_comes_back_at_its_address_is_called_again(trunkline: Trunkline) -> None:
    server, port, _ = await serve("a")
    await trunkline.register("echo", id="a", port=port, host="127.0.0.1")
    channel = await trunkline.channel("echo")
    assert await say(channel) == "a hi"
    await server.stop(None)
    await until(lambda: not channel.endpoints()[0].picked or channel.endpoints()[0].why == "")
    server, _, _ = await serve("again", port)
    assert await say(channel, wait_for_ready=True, timeout=20) == "again hi"
    await server.stop(None)


async def test_a_call_waits_for_the_first_instance(trunkline: Trunkline) -> None:
    channel = await trunkline.channel("echo")
    waiting = asyncio.ensure_future(say(channel))
    await asyncio.sleep(0)
    async with running(trunkline, "a"):
        assert await waiting == "a hi"


async def test_a_call_that_waits_keeps_its_deadline(trunkline: Trunkline) -> None:
    channel = await trunkline.channel("echo")
    call = channel.unary_unary(SAY)(b"", timeout=0.05)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.aio.AioRpcError, match="no instance of echo"):
        await call


async def test_a_call_that_waits_can_be_cancelled(trunkline: Trunkline) -> None:
    channel = await trunkline.channel("echo")
    call = channel.unary_unary(SAY)(b"", timeout=5)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()


async def test_a_draining_instance_gets_no_new_calls_and_finishes_the_old(trunkline: Trunkline) -> None:
    async with running(trunkline, "old") as (old, echo), running(trunkline, "new"):
        channel = await trunkline.channel("echo")
        while await say(channel) != "old hi":
            pass
        calls = [asyncio.ensure_future(say(channel, b"slow 0.3")) for _ in range(2)]
        await until(lambda: echo.calls and any(one.calls_in_flight for one in channel.endpoints()))
        drained = await old.drain()
        assert drained.complete, "the channel's view acknowledges when the picker has the change"
        before = echo.calls
        assert {await say(channel) for _ in range(10)} == {"new hi"}
        assert sorted(await asyncio.gather(*calls)) == ["new slow 0.3", "old slow 0.3"]
        assert echo.calls == before


async def test_hashing_by_header_keeps_a_key_at_its_instance(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"), running(trunkline, "b"), running(trunkline, "c"):
        for policy in ("ring_hash", "maglev"):
            channel = await trunkline.channel("echo", load_balancing=policy, hash_header="x-user")
            where = {
                user: {await say(channel, metadata=(("x-user", user),)) for _ in range(3)}
                for user in (f"user-{index}" for index in range(20))
            }
            assert all(len(answers) == 1 for answers in where.values())
            assert len({answer for answers in where.values() for answer in answers}) == 3


async def test_least_request_avoids_the_busy_one(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"), running(trunkline, "b"):
        channel = await trunkline.channel("echo", load_balancing="least_request")
        while {await say(channel) for _ in range(8)} != {"a hi", "b hi"}:
            pass
        slow = asyncio.ensure_future(say(channel, b"slow 1"))
        await until(lambda: any(one.calls_in_flight for one in channel.endpoints()))
        busy = next(one.instance_id for one in channel.endpoints() if one.calls_in_flight)
        said = Counter([await say(channel) for _ in range(40)])
        assert said[f"{busy} hi"] < 20
        slow.cancel()


async def test_an_application_that_says_unavailable_is_called_again_soon(trunkline: Trunkline) -> None:
    async with running(trunkline, "a"):
        channel = await trunkline.channel("echo")
        with pytest.raises(grpc.aio.AioRpcError, match="not in the mood"):
            await say(channel, b"fail")
        assert await say(channel) == "a hi"
        await until(lambda: channel.endpoints()[0].why == "")


async def test_a_closed_channel_refuses(trunkline: Trunkline) -> None:
    channel = await trunkline.channel("echo")
    await channel.close()
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    with pytest.raises(RuntimeError, match="closed"):
        await say(channel)


async def test_choose_gives_addresses_for_other_protocols(trunkline: Trunkline) -> None:
    await trunkline.register("web", id="w1", endpoints=["127.0.0.1:8001"], protocol="http")
    await trunkline.register("web", id="w2", endpoints=["127.0.0.1:8002"], protocol="http")
    async with await trunkline.chooser("web", protocol="http") as chooser:
        assert {chooser.choose().endpoint.address for _ in range(4)} == {"127.0.0.1:8001", "127.0.0.1:8002"}
        with pytest.raises(ConnectionRefusedError), chooser.choose() as choice:
            raise ConnectionRefusedError
        left = {chooser.choose().endpoint.address for _ in range(4)}
        assert choice.endpoint.address not in left
        assert len(left) == 1


async def test_a_watch_that_never_had_an_answer_fails_the_channel(
    plane: FakeControlPlane, trunkline: Trunkline
) -> None:
    plane.go_away()
    with pytest.raises(Unreachable):
        await trunkline.channel("echo", timeout_s=0.1)


async def unused_port() -> int:
    server, port, _ = await serve("gone")
    await server.stop(None)
    return port


async def test_closing_ends_calls_at_endpoints_that_are_gone(
    trunkline: Trunkline, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(trunkline, "a") as (registration, _):
        channel = await trunkline.channel("echo")
        assert await say(channel) == "a hi"
        call = channel.unary_unary(SAY)(b"slow 30")
        await until(lambda: channel.endpoints()[0].calls_in_flight == 1)
        await registration.close()
        await until(lambda: not channel.endpoints())
        assert not call.done(), "who is gone from the registry answers what it has begun"
        await channel.close()
        await until(call.done)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not caplog.records


@pytest.mark.parametrize("policy", [None, Policy(timeout_ns=5 * S)])
async def test_methods_are_kept_no_longer_than_who_uses_them(trunkline: Trunkline, policy: Policy | None) -> None:
    """Programs make stubs for single calls, too."""

    async def used(channel: BalancedChannel) -> weakref.ref[Any]:
        def serialize(request: bytes) -> bytes:
            return request

        assert await channel.unary_unary(SAY, serialize)(b"hi", timeout=5) == b"a hi"
        return weakref.ref(serialize)

    async with running(trunkline, "a"):
        channel = await trunkline.channel("echo", policy=policy)
        methods = [await used(channel) for _ in range(3)]
        gc.collect()
        await until(lambda: not any(method() for method in methods))
