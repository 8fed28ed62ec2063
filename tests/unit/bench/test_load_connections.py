"""The load client's subscribers, publishers and waiting connections, on gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from bench.load.batches import MARK, NUMBER
from bench.load.client.fanout import Delivered, Fanout, deliver
from bench.load.client.hold import Held, Released, holding
from bench.load.client.program import message, messages

SUBSCRIBE, PUBLISH, REFUSE, ECHO = (f"/bench.Test/{name}" for name in ("Subscribe", "Publish", "Refuse", "Echo"))


class Topic(grpc.GenericRpcHandler):
    """What is published goes to all who have subscribed."""

    def __init__(self) -> None:
        self.subscribers: list[asyncio.Queue[bytes]] = []
        self.opened: list[bytes] = []
        self.echoed: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return {
            SUBSCRIBE: grpc.stream_stream_rpc_method_handler(self._subscribe),
            PUBLISH: grpc.unary_unary_rpc_method_handler(self._publish),
            REFUSE: grpc.unary_unary_rpc_method_handler(self._refuse),
            ECHO: grpc.stream_stream_rpc_method_handler(self._echo),
        }.get(details.method or "")

    async def _subscribe(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.opened.append(request)
            break
        mine: asyncio.Queue[bytes] = asyncio.Queue()
        self.subscribers.append(mine)
        yield b"opened"
        while True:
            yield await mine.get()

    async def _publish(self, request: bytes, context: Any) -> bytes:
        for subscriber in self.subscribers:
            subscriber.put_nowait(request)
        return b""

    async def _refuse(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not today")
        return b""

    async def _echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.echoed.append(request)
            yield request


@pytest.fixture
async def served() -> AsyncIterator[tuple[Topic, str]]:
    topic = Topic()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((topic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield topic, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def delivered(address: str, *, publish: str = PUBLISH, rate: float | None = None) -> list[Delivered]:
    event = MARK + NUMBER + bytes(20_000)
    fanout = Fanout(
        protocol="grpc",
        opening=b"all of it",
        body=event * 2,
        events=2,
        subscribers=3,
        subscribe_path=SUBSCRIBE,
        publish_path=publish,
        in_flight=2,
    )
    return await asyncio.to_thread(deliver, address, fanout, bodies=5, repetitions=2, rate=rate, within_s=30)


async def test_every_delivery_is_counted(served: tuple[Topic, str]) -> None:
    topic, address = served
    found = await delivered(address)
    assert len(found) == 2
    assert all(one.rate > 0 for one in found)
    assert topic.opened == [b"all of it"] * 3


async def test_at_a_rate_it_takes_its_time(served: tuple[Topic, str]) -> None:
    for one in await delivered(served[1], rate=100):
        assert 0 < one.p50_us <= one.p99_us
        assert one.rate < 3 * 2 * 5 / 0.04, "five bodies at 100 a second take 40 ms"


async def test_a_refused_publish_is_no_result(served: tuple[Topic, str]) -> None:
    with pytest.raises(RuntimeError, match="a publish was refused: HTTP 200, gRPC 8"):
        await delivered(served[1], publish=REFUSE)


async def test_connections_say_what_they_are_told_to(served: tuple[Topic, str]) -> None:
    topic, address = served

    def hold() -> Released:
        first = [message(b"%d " % number + MARK + b"%016x" % 0) for number in range(70)]
        with holding(address, Held(connections=70, path=ECHO, says=first, each=70)) as held:
            first_at = held.told_at(0, within_s=10)
            began = time.perf_counter()
            held.say([message(b"not the last") + message(MARK + b"%016x" % 1)])
            assert first_at < began < held.told_at(1, within_s=10) < time.perf_counter()
            return held.release()

    found = await asyncio.to_thread(hold)
    assert sorted(topic.echoed[:70]) == sorted(b"%d " % number + MARK + b"%016x" % 0 for number in range(70))
    assert (found.messages, found.marks) == (210, 140)
    assert [messages(last)[-1] for last in found.last] == [MARK + b"%016x" % 1] * 70


async def test_what_is_said_at_intervals_is_said_again(served: tuple[Topic, str]) -> None:
    topic, address = served

    def hold() -> Released:
        says = [message(b"%d" % number) for number in range(4)]
        with holding(address, Held(connections=4, path=ECHO, says=says, every_s=0.1)) as held:
            time.sleep(0.35)
            return held.release()

    found = await asyncio.to_thread(hold)
    assert 8 <= found.messages <= 20
    assert [messages(last)[-1] for last in found.last] == [b"0", b"1", b"2", b"3"]
    assert found.messages <= len(topic.echoed)


async def test_calls_that_end_are_answered_before_it_is_ready(served: tuple[Topic, str]) -> None:
    topic, address = served

    def hold() -> Released:
        with holding(address, Held(connections=70, path=ECHO, says=[message(b"once")], is_call=True)) as held:
            assert len(topic.echoed) == 70
            return held.release()

    found = await asyncio.to_thread(hold)
    assert found.messages == 70
    assert found.last == [message(b"once")] * 70
