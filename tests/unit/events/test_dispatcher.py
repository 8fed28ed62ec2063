"""A dispatcher brings what is durable in the turn in which it became so, and lets all go out when all were pumped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reference.journal_batches import events_batch
from reference.registry_world import virtual
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import TrunklineError
from trunkline.core.model import Sync
from trunkline.server.events.delivery import NEVER
from trunkline.server.events.dispatcher import Dispatcher, _Nothing
from trunkline.server.events.event_block import EventBlock
from trunkline.server.events.stream import wrap_block
from trunkline.server.events.tasks import Tasks
from trunkline.server.events.wake_up import WakeUp
from trunkline.server.journal.block import Block
from trunkline.server.journal.log import Log, LogConfig
from trunkline.server.journal.memory import MemoryEngine


class Recorder:
    """A follower that says what is done with it."""

    def __init__(self, name: str, said: list[str], dispatcher: Dispatcher[Any], *, fails: bool = False) -> None:
        self.fails = fails
        self._name = name
        self._said = said
        self._dispatcher = dispatcher

    def pump(self) -> bool:
        self._said.append(f"pump {self._name} to {self._dispatcher.end}")
        if self.fails:
            raise RuntimeError("a bug")
        return False

    def flush(self) -> None:
        self._said.append(f"flush {self._name}")

    def missing(self, first_offset: int) -> None: ...
    def move(self, incarnation: int, cut: int) -> None: ...
    def fail(self, error: TrunklineError) -> None: ...


async def a_dispatcher() -> tuple[Log, Dispatcher[Block]]:
    log = await MemoryEngine(ManualClock(), Rng(1), offers=Sync.MEMORY).open_log("s", LogConfig(sync=Sync.MEMORY))
    dispatcher: Dispatcher[Block] = Dispatcher(log, wrap_block, Tasks())
    dispatcher.start()
    return log, dispatcher


async def test_all_are_pumped_once_and_then_flushed_before_the_append_is_answered() -> None:
    log, dispatcher = await a_dispatcher()
    said: list[str] = []
    first, second = Recorder("a", said, dispatcher), Recorder("b", said, dispatcher)
    dispatcher.attach(first)
    dispatcher.attach(second)
    await asyncio.sleep(0)
    said.clear()
    large = log.append_nowait(events_batch(200), time_ns=1)
    small = log.append_nowait(events_batch(3, first=200), time_ns=1)
    small.future.add_done_callback(lambda _: said.append("answered"))
    await small.future
    assert large.future.done()
    assert said == ["pump a to 203", "pump b to 203", "flush a", "flush b", "answered"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(said) == 5, "nobody is pumped once more"


async def test_who_is_told_again_of_nothing_new_pumps_nobody() -> None:
    class Told:
        """A log that is told of several groups before it says so, as the changes of control are."""

        first_offset = next_offset = 0

        def on_durable(self, listener: Callable[[EventBlock], None], told: Callable[[], None]) -> None:
            self.listener, self.told = listener, told

        async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> list[EventBlock]:
            return []

    log = Told()
    dispatcher: Dispatcher[EventBlock] = Dispatcher(log, lambda block, _start: block, Tasks())
    dispatcher.start()
    said: list[str] = []
    dispatcher.attach(Recorder("a", said, dispatcher))
    await asyncio.sleep(0)
    said.clear()
    for end in (1, 2):
        log.listener(EventBlock(_Nothing(), (), start=end - 1, end=end))
    log.told()
    log.told()
    assert said == ["pump a to 2", "flush a"]


async def test_one_that_fails_keeps_nobody_from_going_on() -> None:
    log, dispatcher = await a_dispatcher()
    said: list[str] = []
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    dispatcher.attach(Recorder("a", said, dispatcher, fails=True))
    dispatcher.attach(Recorder("b", said, dispatcher))
    await log.append(events_batch(1), time_ns=1)
    assert said[-4:] == ["pump a to 1", "pump b to 1", "flush a", "flush b"]
    assert set(reported) == {"a follower failed"}
    dispatcher.detach(next(iter(dispatcher.followers)))
    said.clear()
    await log.append(events_batch(1, first=1), time_ns=1)
    assert said == ["pump b to 2", "flush b"]


async def test_nothing_is_brought_any_more_once_it_is_closed() -> None:
    log, dispatcher = await a_dispatcher()
    said: list[str] = []
    dispatcher.attach(Recorder("a", said, dispatcher))
    dispatcher.close()
    await log.append(events_batch(1), time_ns=1)
    await asyncio.sleep(0)
    assert said == []


def rings(sets: Callable[[WakeUp], None]) -> list[float]:
    """When it rang, in milliseconds."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        begun, rung = loop.time(), list[float]()
        sets(WakeUp(lambda: rung.append(round((loop.time() - begun) * 1e3))))
        await asyncio.sleep(1)
        return rung

    return virtual(main)


@pytest.mark.parametrize(
    ("due_ms", "rung_ms"), [([100], [100]), ([100, 50], [50]), ([50, 100], [50]), ([], []), ([NEVER], []), ([-10], [0])]
)
def test_a_wake_up_rings_once_at_the_earliest_time(due_ms: list[int], rung_ms: list[int]) -> None:
    def sets(wake_up: WakeUp) -> None:
        for due in due_ms:
            wake_up.set(due * 1_000_000, 0)

    assert rings(sets) == rung_ms


def test_a_wake_up_that_is_cancelled_does_not_ring_and_can_be_set_anew() -> None:
    def sets(wake_up: WakeUp) -> None:
        wake_up.set(20_000_000, 0)
        wake_up.cancel()
        wake_up.set(60_000_000, 0)

    assert rings(sets) == [60]
