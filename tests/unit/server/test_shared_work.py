"""What many wait for is done once, a piece in each turn of the loop, and of no older state than who asks has seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from reference.unwaited import answered
from trunkline.core.work import Work
from trunkline.server.shared_work import SharedWork


class World:
    """A state that changes, and who makes something of it."""

    def __init__(self) -> None:
        self.state = 0
        self.begun = 0
        self.pieces = 0
        self.closed = 0
        self.work = SharedWork()

    def make(self, pieces: int = 5) -> Callable[[], Work[int]]:
        def making() -> Work[int]:
            self.begun += 1
            seen = self.state
            try:
                for _ in range(pieces - 1):
                    self.pieces += 1
                    yield
            finally:
                self.closed += 1
            return seen

        return making

    def ask(self, what: str = "this", pieces: int = 5) -> asyncio.Task[int]:
        return asyncio.create_task(self.work.do("service", what, self.make(pieces)))

    def change(self) -> None:
        self.state += 1
        self.work.outdate("service")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    running = asyncio.create_task(made.work.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_one_piece_is_done_at_once() -> None:
    made = World()
    assert answered(made.work.do("service", "this", made.make(1))) == 0
    assert len(made.work) == 0


async def test_all_who_ask_meanwhile_get_the_same(world: World) -> None:
    first = world.ask()
    await turns(2)
    others = [world.ask() for _ in range(20)]
    assert await asyncio.gather(first, *others) == [0] * 21
    assert world.begun == 1
    assert len(world.work) == 0
    assert await world.ask() == 0
    assert world.begun == 2, "nothing is kept"


async def test_who_asks_after_a_change_is_told_of_it_and_who_asked_before_need_not_be(world: World) -> None:
    first = world.ask()
    await turns(2)
    world.change()
    later = [world.ask() for _ in range(10)]
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 10
    assert world.begun == 2


async def test_however_often_it_changes_no_more_than_two_are_under_way(world: World) -> None:
    asked: list[tuple[int, asyncio.Task[int]]] = []
    most = 0
    for _ in range(200):
        world.change()
        asked.append((world.state, world.ask(pieces=20)))
        await turns(1)
        most = max(most, len(world.work))
    for state, task in asked:
        assert await task >= state, "older than what was known when it was asked for"
    assert most <= 2
    assert world.begun <= 200 // 19 + 3


async def test_a_piece_a_turn_whatever_is_asked_for(world: World) -> None:
    tasks = [world.ask(f"one of {number}", pieces=6) for number in range(10)]
    await turns(1)
    for _ in range(20):
        before = world.pieces
        await turns(1)
        assert world.pieces - before <= 1
    assert await asyncio.gather(*tasks) == [0] * 10


async def test_who_leaves_takes_nothing_from_the_others_and_the_last_ends_it(world: World) -> None:
    first = world.ask(pieces=50)
    await turns(2)
    second = world.ask()
    await turns(2)
    first.cancel()
    assert await second == 0
    assert (world.begun, world.closed) == (1, 1)
    alone = world.ask(pieces=1_000)
    await turns(3)
    alone.cancel()
    await turns(3)
    assert (world.begun, world.closed, len(world.work)) == (2, 2, 0)
    assert await world.ask() == 0


async def test_all_are_told_that_it_failed(world: World) -> None:
    def failing() -> Work[int]:
        yield
        raise ValueError("no such thing")

    tasks = [asyncio.create_task(world.work.do("service", "this", failing)) for _ in range(3)]
    for task in tasks:
        with pytest.raises(ValueError, match="no such thing"):
            await task
    assert await world.ask() == 0
