"""Threads that do the disk's system calls, and tell the loop.

`concurrent.futures` would do, and costs two and a half times as much a call (136 us against 48 where one call waits for
the next): its futures have a lock of their own, and the loop turns twice more until the caller goes on. Every append is
such a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Asked(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    work: Callable[[], Any]


class DiskThreads:
    """At most so many, started when they are first needed. Used on one loop at a time.

    What waits is not bounded here: a log has one write on its way, and whoever reads waits for what was read.
    """

    def __init__(self, count_max: int, name: str) -> None:
        self._count_max = count_max
        self._name = name
        self._asked: SimpleQueue[_Asked | None] = SimpleQueue()
        self._started = 0
        self._unfinished = 0
        self._ended = False

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do it in a thread, to its end even if nobody waits for the future any more."""
        if self._ended:
            raise RuntimeError("the disk was shut down")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._unfinished += 1
        if self._started < min(self._unfinished, self._count_max):
            self._started += 1
            # A daemon: whatever it does when the process ends without `shutdown` is cut off as by a kill.
            Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()
        self._asked.put(_Asked(loop, future, work))
        return future

    def shutdown(self) -> None:
        """Let the threads end, each when it has done what was asked before."""
        self._ended = True
        for _ in range(self._started):
            self._asked.put(None)

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            result, error = None, None
            try:
                result = asked.work()
            except BaseException as failure:  # whoever waits gets it
                error = failure
            try:
                asked.loop.call_soon_threadsafe(self._finish, asked.future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits
                self._unfinished -= 1
            del asked, result, error  # not to be kept while the thread waits

    def _finish(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._unfinished -= 1
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
