"""Order through the SDK: per key and one at a time, over two consumers, refusals and a SIGKILL of the server."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, Literal

import pytest
from integration.processes import Server, serving
from integration.waiting import until

from trunkline.client import BackoffOptions, ClientOptions, Event, connect

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.05, max_backoff_s=0.5))
KEYS = 20


class Handled:
    """What two consumers did, and what is wrong with its order."""

    def __init__(self, ordering: str, *, count: int) -> None:
        self.done: set[int] = set()
        self.finished = asyncio.Event()
        self.tries = 0
        self._running: dict[int, int] = {}
        self._is_keyed = ordering == "keyed"
        self._count = count
        self._chance = random.Random(7)
        self.lives = 0
        """How often the server was started: what was in hand before may still be, when it comes again."""

    def lane(self, number: int) -> int:
        return number % KEYS if self._is_keyed else 0

    async def handle(self, delivery: Any) -> None:
        number, lives = int(delivery.event.id), self.lives
        lane = self.lane(number)
        before = [other for other in range(number) if self.lane(other) == lane and other not in self.done]
        assert not before, f"{number} came before {before}"
        assert self._running.get(lane) != lives, f"two of lane {lane} at a time"
        self._running[lane] = lives
        self.tries += 1
        await asyncio.sleep(self._chance.random() * 0.004)
        if self._running.get(lane) == lives:
            del self._running[lane]
        if self._chance.random() < 0.1:
            raise ValueError("not this time")
        self.done.add(number)
        if len(self.done) == self._count:
            self.finished.set()


async def publish(server: Server, count: int) -> None:
    async with connect(server.address, options=OPTIONS) as trunkline:
        await trunkline.publish(
            [Event(type="order.placed", id=str(n), source="/test", key=f"k{n % KEYS}") for n in range(count)]
        )


async def consume(server: Server, ordering: Literal["keyed", "sequential"], handled: Handled) -> None:
    failures: list[BaseException] = []

    async def handle(delivery: Any) -> None:
        try:
            await handled.handle(delivery)
        except AssertionError as error:
            failures.append(error)
            handled.finished.set()
            raise

    async with connect(server.address, options=OPTIONS) as trunkline:
        subscription = trunkline.subscribe("billing", start="earliest", ordering=ordering, max_deliveries=1_000)
        consuming = asyncio.ensure_future(subscription.consume(handle, concurrency=16, nack_delay_s=0.001))
        await handled.finished.wait()
        subscription.close()
        await consuming
    if failures:
        raise failures[0]


@pytest.mark.parametrize(("ordering", "count"), [("keyed", 2_000), ("sequential", 150)])
async def test_each_comes_when_those_before_it_are_done(
    tmp_path: Path, ordering: Literal["keyed", "sequential"], count: int
) -> None:
    with serving(tmp_path) as server:
        await publish(server, count)
        handled = Handled(ordering, count=count)
        async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(consume(server, ordering, handled))
            await until(lambda: len(handled.done) >= count // 3)
            await asyncio.to_thread(server.kill)
            handled.lives += 1
            await asyncio.to_thread(server.start)
        assert handled.done == set(range(count))
        assert handled.tries > count, "some were refused and came again"
