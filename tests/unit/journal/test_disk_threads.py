"""Threads for system calls: answers and errors come back, nobody is waited for in vain, and they end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from trunkline.server.journal.files.disk_threads import DiskThreads


@pytest.fixture
def threads() -> Iterator[DiskThreads]:
    threads = DiskThreads(2, "test-disk")
    yield threads
    threads.shutdown()


def alive() -> int:
    return sum(thread.name.startswith("test-disk") for thread in threading.enumerate())


async def test_answers_and_errors_come_back(threads: DiskThreads) -> None:
    assert await threads.run(lambda: threading.current_thread().name) == "test-disk-1"
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert await threads.run(lambda: 7) == 7, "a thread does not end with an error"
    assert alive() == 1, "one after the other needs one thread"


async def test_there_are_no_more_than_were_allowed(threads: DiskThreads) -> None:
    running, most, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with guard:
            running -= 1

    await asyncio.gather(*(threads.run(work) for _ in range(7)))
    assert (most, alive()) == (2, 2)


async def test_work_is_done_to_its_end_though_nobody_waits(threads: DiskThreads) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    waiting = asyncio.ensure_future(threads.run(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert await threads.run(lambda: 7) == 7


def test_a_loop_that_is_closed_meanwhile_ends_no_thread(threads: DiskThreads) -> None:
    go_on = threading.Event()

    async def ask() -> None:
        threads.run(lambda: go_on.wait(10))

    async def again() -> int:
        return await threads.run(lambda: 7)

    asyncio.run(ask())
    go_on.set()
    assert asyncio.run(again()) == 7


async def test_threads_end_when_what_was_asked_is_done() -> None:
    threads = DiskThreads(2, "test-disk")
    asked = [threads.run(lambda number=number: number) for number in range(5)]  # type: ignore[misc]
    threads.shutdown()
    assert await asyncio.gather(*asked) == list(range(5))
    for thread in threading.enumerate():
        if thread.name.startswith("test-disk"):
            await asyncio.to_thread(thread.join, 10)
    assert alive() == 0
    with pytest.raises(RuntimeError):
        threads.run(lambda: 7)
