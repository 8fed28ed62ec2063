"""Bodies are bounded: each in length and time, all of them in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from trunkline.core.cloudevent import EVENT_BYTES_MAX
from trunkline.core.errors import LimitExceeded, NotReady
from trunkline.server.ingestion.binding import Mode
from trunkline.server.ingestion.bodies import Bodies
from trunkline.server.ingestion.config import HttpConfig
from trunkline.server.ingestion.refused import Refused

CONFIG = HttpConfig(body_bytes_max=100, body_bytes_in_flight_max=150, body_timeout_ms=50)


async def pieces(count: int, *, stops: bool = False) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"0123456789"
    if stops:
        await asyncio.Event().wait()


async def test_what_is_held_is_counted_until_it_is_done_with() -> None:
    bodies = Bodies(CONFIG)
    async with bodies.whole(pieces(3), Mode.BATCHED) as one, bodies.whole(pieces(10), Mode.BINARY) as other:
        assert one + other == b"0123456789" * 13
        assert bodies.held_bytes == 130
    assert bodies.held_bytes == 0


async def test_too_long_too_slow_and_too_many() -> None:
    bodies = Bodies(CONFIG)
    with pytest.raises(Refused) as caught:
        async with bodies.whole(pieces(1_000), Mode.STRUCTURED):
            raise AssertionError("not reached")
    assert caught.value.status == 413
    with pytest.raises(Refused) as caught:
        async with bodies.whole(pieces(1, stops=True), Mode.STRUCTURED):
            raise AssertionError("not reached")
    assert caught.value.status == 408
    async with bodies.whole(pieces(9), Mode.STRUCTURED):
        with pytest.raises(LimitExceeded):
            async with bodies.whole(pieces(9), Mode.STRUCTURED):
                raise AssertionError("not reached")
        assert bodies.held_bytes == 90
    assert bodies.held_bytes == 0


async def test_a_stop_gives_up_what_is_still_coming_and_not_what_is_being_published() -> None:
    bodies = Bodies(HttpConfig())

    async def coming() -> None:
        async with bodies.whole(pieces(1, stops=True), Mode.STRUCTURED):
            raise AssertionError("not reached")

    waiting = asyncio.create_task(coming())
    await asyncio.sleep(0)
    async with asyncio.timeout(5), bodies.whole(pieces(2), Mode.STRUCTURED):
        bodies.end("the server stops")
        with pytest.raises(NotReady, match="the server stops"):
            await waiting
        with pytest.raises(NotReady, match="the server stops"):
            await coming()
        async with bodies.whole(pieces(1), Mode.STRUCTURED) as there:
            assert there == b"0123456789"
    assert bodies.held_bytes == 0


@pytest.mark.parametrize(
    ("mode", "size", "refused"),
    [
        (Mode.BINARY, EVENT_BYTES_MAX, False),
        (Mode.BINARY, EVENT_BYTES_MAX + 1, True),
        (Mode.STRUCTURED, EVENT_BYTES_MAX + 1, False),
        (Mode.BATCHED, 16 << 20, False),
        (Mode.BATCHED, (16 << 20) + 1, True),
    ],
)
def test_lengths_that_are_said_beforehand(mode: Mode, size: int, refused: bool) -> None:
    bodies = Bodies(HttpConfig())
    if refused:
        with pytest.raises(Refused):
            bodies.check_length(mode, size)
    else:
        bodies.check_length(mode, size)
