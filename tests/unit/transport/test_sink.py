"""The sink in virtual time: what it joins, when it pauses, when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import async_solipsism
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.errors import LimitExceeded
from trunkline.server.transport.sink import SinkConfig, StreamSink, sink_of

SMALL = SinkConfig(
    high_water_bytes=100, low_water_bytes=20, pending_bytes_max=200, message_bytes_max=50, write_timeout_ms=1_000
)


class Peer:
    """Takes messages, each after `seconds`; not at all while `held`."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.messages: list[bytes] = []

    async def write(self, message: bytes, /) -> None:
        await asyncio.sleep(self.seconds)
        self.messages.append(message)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        await body()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(go())


def test_pieces_are_joined_up_to_the_limit_and_never_cut() -> None:
    async def body() -> None:
        peer = Peer()
        sink = StreamSink(SMALL, peer)
        sink.offer([b"a" * 20, b"b" * 30, b"c" * 1, b"d" * 60, b"e" * 10, b"f" * 10])
        assert sink.pending_bytes == 131
        sink.close()
        await sink.run()
        assert [len(message) for message in peer.messages] == [50, 1, 60, 20]
        assert b"".join(peer.messages) == b"a" * 20 + b"b" * 30 + b"c" + b"d" * 60 + b"e" * 10 + b"f" * 10
        assert sink.pending_bytes == 0

    run(body)


@given(st.lists(st.binary(min_size=1, max_size=70), max_size=30))
def test_nothing_is_lost_reordered_or_cut(pieces: list[bytes]) -> None:
    async def body() -> None:
        config = SinkConfig(high_water_bytes=0, low_water_bytes=0, message_bytes_max=50)
        peer = Peer(0.1)
        sink = StreamSink(config, peer)
        running = asyncio.create_task(sink.run())
        for index, piece in enumerate(pieces):
            sink.offer(piece)
            if index % 3 == 0:
                await asyncio.sleep(0.05)
        sink.close()
        await running
        assert b"".join(peer.messages) == b"".join(pieces)
        ends = {sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)}
        position = 0
        for message in peer.messages:
            position += len(message)
            assert position in ends
            assert len(message) <= 50 or message in pieces

    run(body)


def test_it_pauses_above_the_high_and_goes_on_at_the_low_mark() -> None:
    async def body() -> None:
        peer = Peer(0.1)
        sink = StreamSink(SMALL, peer)
        told: list[int] = []
        sink.on_ready(lambda: told.append(sink.pending_bytes))
        running = asyncio.create_task(sink.run())
        answers = [sink.offer(b"x" * 25) for _ in range(4)]
        assert answers == [True] * 4
        assert sink.ready
        assert not sink.offer(b"x")
        assert not sink.ready
        await asyncio.sleep(10)
        assert told == [1]  # 101, then 51, then 1
        assert sink.ready
        assert sink.offer(b"x" * 10)
        sink.close()
        await running
        assert told == [1]

    run(body)


def test_too_much_is_let_go_at_once_and_ends_the_stream() -> None:
    async def body() -> None:
        peer = Peer(0.9)
        sink = StreamSink(SMALL, peer)
        running = asyncio.create_task(sink.run())
        sink.offer(b"x" * 25)
        await asyncio.sleep(0.1)
        assert not sink.offer(b"x" * 201)
        assert not sink._pieces
        assert not sink.offer(b"later")
        assert not sink._pieces
        with pytest.raises(LimitExceeded, match="sink_pending_bytes_max = 200"):
            await running
        assert asyncio.get_running_loop().time() < 0.2  # a write in progress is not waited for

    run(body)


def test_a_peer_that_takes_nothing_is_given_up() -> None:
    async def body() -> None:
        sink = StreamSink(SMALL, Peer(60))
        sink.offer(b"x")
        with pytest.raises(LimitExceeded, match="sink_write_timeout_ms = 1000"):
            await sink.run()
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        assert not sink.offer(b"y")

    run(body)


def test_a_slow_peer_that_takes_one_message_at_a_time_is_kept() -> None:
    async def body() -> None:
        peer = Peer(0.9)
        sink = StreamSink(SMALL, peer)
        sink.offer([b"x" * 40] * 2)
        sink.close()
        await sink.run()
        assert len(peer.messages) == 2
        assert asyncio.get_running_loop().time() == pytest.approx(1.8)

    run(body)


def test_leaving_the_block_writes_what_was_offered() -> None:
    async def body() -> None:
        peer = Peer(0.5)
        async with sink_of(peer, SMALL) as sink:
            sink.offer(b"a")
            await asyncio.sleep(0.1)
            sink.offer(b"b")
        assert peer.messages == [b"a", b"b"]

    run(body)


def test_a_failing_block_ends_the_writing() -> None:
    peer = Peer(0.5)

    async def block() -> None:
        async with sink_of(peer, SMALL) as sink:
            sink.offer(b"a")
            await asyncio.sleep(0.1)
            raise KeyError("block")

    with pytest.raises(BaseExceptionGroup) as failed:
        run(block)
    assert [type(cause) for cause in failed.value.exceptions] == [KeyError]
    assert peer.messages == []


def test_a_failing_peer_ends_the_block() -> None:
    reached: list[float] = []

    async def block() -> None:
        async with sink_of(Peer(60), SMALL) as sink:
            sink.offer(b"a")
            reached.append(asyncio.get_running_loop().time())
            await asyncio.sleep(30)
            reached.append(asyncio.get_running_loop().time())

    with pytest.raises(BaseExceptionGroup) as failed:
        run(block)
    assert [type(cause) for cause in failed.value.exceptions] == [LimitExceeded]
    assert reached == [0]
