"""consume(): handlers see each delivery as if it had a task of its own, whether they wait or not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import pytest

from trunkline.client import Event
from trunkline.client._consumer import IN_A_TURN_MAX, consume
from trunkline.client._delivery import Delivery

seen: ContextVar[int] = ContextVar("seen", default=-1)
Handler = Callable[[Delivery], Awaitable[None]]


class Deliveries:
    """So many, one after the other; then the end, or nothing more for ever. It keeps what is said of them."""

    def __init__(self, offsets: Iterable[int], *, ends: bool = True) -> None:
        self._left = deque(offsets)
        self._ends = ends
        self.taken = 0
        self.acked: list[int] = []
        self.nacked: list[tuple[int, str]] = []

    async def next(self) -> Delivery | None:
        if not self._left:
            if not self._ends:
                await asyncio.Event().wait()
            return None
        self.taken += 1
        event = Event(type="t", id="e", source="s")
        return Delivery(self, event=event, offset=self._left.popleft(), incarnation=1, attempt=1, time_ns=0)

    def say(self, delivery: Delivery, outcome: int, *, delay_ms: int | None = None, reason: str = "") -> None:
        if outcome == 1:
            self.acked.append(delivery.offset)
        else:
            self.nacked.append((delivery.offset, reason))


async def consumed(deliveries: Deliveries, handler: Handler, concurrency: int, within_s: float = 5) -> None:
    await consume(deliveries, handler, concurrency=concurrency, nack_delay_s=None, finish_within_s=within_s)


async def no_wait(_: Delivery) -> None: ...


async def turn(_: Delivery) -> None:
    await asyncio.sleep(0)


async def future(_: Delivery) -> None:
    await asyncio.get_running_loop().run_in_executor(None, len, "")


async def every_third_waits(delivery: Delivery) -> None:
    if delivery.offset % 3 == 0:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("handler", [no_wait, turn, future, every_third_waits])
@pytest.mark.parametrize("concurrency", [1, 2, 7, 300])
async def test_each_is_handled_once_and_no_more_at_a_time_than_allowed(handler: Handler, concurrency: int) -> None:
    deliveries, running, most, began = Deliveries(range(400)), 0, 0, []

    async def counted(delivery: Delivery) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        began.append(delivery.offset)
        await handler(delivery)
        running -= 1

    await consumed(deliveries, counted, concurrency)
    assert began == list(range(400)), "they begin in their order"
    assert sorted(deliveries.acked) == began
    assert most <= concurrency
    assert handler is no_wait or handler is every_third_waits or most == concurrency, "those that wait do so together"


async def test_handlers_that_wait_begin_together() -> None:
    deliveries, turns, began = Deliveries(range(200), ends=False), 0, []
    go_on = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        began.append(turns)
        await go_on.wait()

    consuming = asyncio.ensure_future(consumed(deliveries, handler, 200))
    while len(began) < 200:
        turns += 1
        await asyncio.sleep(0)
        assert turns < 10, "a turn for each would hold all of them up"
    go_on.set()
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming
    assert len(deliveries.acked) == 200, "handlers end, although nothing more is taken"


async def test_the_loop_goes_on_between_handlers_that_never_wait() -> None:
    deliveries, at_turns, turns = Deliveries(range(1_000)), [], 0

    async def handler(delivery: Delivery) -> None:
        at_turns.append(turns)

    consuming = asyncio.ensure_future(consumed(deliveries, handler, 1_000))
    while not consuming.done():
        turns += 1
        await asyncio.sleep(0)
    assert max(at_turns.count(one) for one in set(at_turns)) == IN_A_TURN_MAX


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_handler_sets_in_its_context_stays_there(waits: bool) -> None:
    deliveries, before, after = Deliveries(range(50)), [], []
    seen.set(1_000)

    async def handler(delivery: Delivery) -> None:
        before.append(seen.get())
        seen.set(delivery.offset)
        if waits:
            await asyncio.sleep(0.001)
        after.append((delivery.offset, seen.get()))

    await consumed(deliveries, handler, 8)
    assert before == [1_000] * 50
    assert sorted(after) == [(offset, offset) for offset in range(50)]
    assert seen.get() == 1_000


async def test_one_that_raises_says_why_and_nobody_else_notices(caplog: pytest.LogCaptureFixture) -> None:
    deliveries = Deliveries(range(6))

    async def handler(delivery: Delivery) -> None:
        if delivery.offset % 2:
            await asyncio.sleep(0)
        if delivery.offset in (2, 3):
            raise ValueError(f"not {delivery.offset}")

    await consumed(deliveries, handler, 3)
    assert sorted(deliveries.acked) == [0, 1, 4, 5]
    assert sorted(deliveries.nacked) == [(2, "ValueError: not 2"), (3, "ValueError: not 3")]
    assert caplog.text.count("handler failed") == 2


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancels_its_task_and_waits() -> None:
    await cancels_its_task()
    await asyncio.sleep(1)


@pytest.mark.parametrize("ends", [raises_cancelled, cancels_its_task, cancels_its_task_and_waits])
@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_handler_that_is_cancelled_is_cancelled_alone(
    ends: Callable[[], Awaitable[None]], concurrency: int
) -> None:
    deliveries, ended = Deliveries(range(10)), []

    async def handler(delivery: Delivery) -> None:
        if delivery.offset in (0, 4):
            await ends()
        await asyncio.sleep(0)
        ended.append(delivery.offset)

    await consumed(deliveries, handler, concurrency)
    expected = [1, 2, 3, 5, 6, 7, 8, 9]
    assert sorted(ended) == expected
    assert sorted(deliveries.acked) == expected, "of the others nothing is said: they come again"


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_a_handler_that_cancels_its_task_as_it_returns_takes_nobody_along(concurrency: int) -> None:
    deliveries = Deliveries(range(10))

    async def handler(delivery: Delivery) -> None:
        if delivery.offset in (0, 4):
            await cancels_its_task()
        else:
            await asyncio.sleep(0)

    await consumed(deliveries, handler, concurrency)
    assert sorted(deliveries.acked) == list(range(10))


async def test_time_limits_and_groups_of_tasks_hold_in_handlers() -> None:
    deliveries, late = Deliveries(range(20)), []

    async def handler(delivery: Delivery) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(0))
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(0 if delivery.offset % 2 else 5)
        except TimeoutError:
            late.append(delivery.offset)

    await consumed(deliveries, handler, 5)
    assert late == list(range(0, 20, 2))
    assert sorted(deliveries.acked) == list(range(20))


@pytest.mark.parametrize("within_s", [0.0, 0.02])
async def test_what_does_not_end_in_time_is_cancelled(within_s: float, caplog: pytest.LogCaptureFixture) -> None:
    deliveries, cancelled = Deliveries(range(5)), []

    async def handler(delivery: Delivery) -> None:
        try:
            await asyncio.sleep(30 if delivery.offset else 0)
        except asyncio.CancelledError:
            cancelled.append(delivery.offset)
            raise

    await consumed(deliveries, handler, 5, within_s)
    assert set(deliveries.acked) <= {0}
    assert set(cancelled) <= {1, 2, 3, 4}
    assert within_s == 0 or (deliveries.acked == [0] and sorted(cancelled) == [1, 2, 3, 4])
    assert "handlers cancelled at the end" in caplog.text


async def test_no_more_is_taken_than_may_be_handled() -> None:
    deliveries = Deliveries(range(100), ends=False)
    consuming = asyncio.ensure_future(consumed(deliveries, lambda _: asyncio.sleep(30), 3, 0))
    for _ in range(10):
        await asyncio.sleep(0)
    assert deliveries.taken == 3
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming


async def test_what_ends_the_deliveries_ends_it_once_handlers_have_ended() -> None:
    class Refused(Deliveries):
        async def next(self) -> Delivery | None:
            if self.taken == 2:
                raise ConnectionError("refused")
            return await super().next()

    deliveries: Any = Refused(range(9))
    with pytest.raises(ConnectionError):
        await consumed(deliveries, every_third_waits, 4)
    assert sorted(deliveries.acked) == [0, 1]
