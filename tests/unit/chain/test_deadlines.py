"""Many calls, one timer, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import async_solipsism

from trunkline.core.clock import Clock
from trunkline.server.chain.deadlines import Deadlines

SECOND = 1_000_000_000


class LoopClock(Clock):
    """The loop's virtual time."""

    def now_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e9)


def run(body: Any) -> None:
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(body)


class Calls:
    """Calls that last so long, and when each ended."""

    def __init__(self, limit_ns: int) -> None:
        self.deadlines = Deadlines(LoopClock(), limit_ns)
        self.ended: dict[str, tuple[float, str]] = {}

    async def call(self, name: str, seconds: float) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self.deadlines.begin(task)
        try:
            await asyncio.sleep(seconds)
            self.ended[name] = (loop.time(), "done")
        except asyncio.CancelledError:
            self.ended[name] = (loop.time(), "late" if self.deadlines.is_due(task) else "cancelled")
        finally:
            self.deadlines.end(task)


def test_each_call_ends_at_its_own_time() -> None:
    async def body() -> None:
        calls = Calls(10 * SECOND)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(calls.call("first", 100))
            await asyncio.sleep(1)
            tasks.create_task(calls.call("short", 2))
            await asyncio.sleep(2)
            tasks.create_task(calls.call("second", 100))
            gone = tasks.create_task(calls.call("gone", 100))
            await asyncio.sleep(1)
            gone.cancel()
        assert {name: (round(at, 3), how) for name, (at, how) in calls.ended.items()} == {
            "short": (3, "done"),
            "gone": (4, "cancelled"),
            "first": (10, "late"),
            "second": (13, "late"),
        }
        assert not calls.deadlines._due_ns
        assert not calls.deadlines._expired

    run(body())


def test_ten_thousand_calls_share_a_timer() -> None:
    async def body() -> None:
        calls, loop = Calls(10 * SECOND), asyncio.get_running_loop()
        timers = 0
        call_later = loop.call_later

        def counting(delay: float, callback: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal timers
            timers += callback == calls.deadlines._sweep
            return call_later(delay, callback, *args, **kwargs)

        loop.call_later = counting  # type: ignore[method-assign, assignment]
        async with asyncio.TaskGroup() as tasks:
            for number in range(10_000):
                tasks.create_task(calls.call(str(number), 1))
        assert timers == 1
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(calls.call("late", 100))
        assert calls.ended["late"] == (11, "late")

    run(body())


def test_a_call_that_will_not_end_does_not_keep_others_from_theirs() -> None:
    async def body() -> None:
        calls = Calls(10 * SECOND)

        async def stubborn() -> None:
            task = asyncio.current_task()
            assert task is not None
            calls.deadlines.begin(task)
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(50)  # is told once, and may take its time
                calls.ended["stubborn"] = (asyncio.get_running_loop().time(), "cancelled")
            finally:
                calls.deadlines.end(task)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stubborn())
            await asyncio.sleep(5)
            tasks.create_task(calls.call("after", 100))
            await asyncio.sleep(20)
            tasks.create_task(calls.call("later", 100))
        assert calls.ended == {"after": (15, "late"), "later": (35, "late"), "stubborn": (60, "cancelled")}

    run(body())
