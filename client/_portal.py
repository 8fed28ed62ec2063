"""An event loop in a thread of its own, and the way to it from other threads: what the blocking face stands on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from ._fork import ForkGuard

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class Portal:
    """Runs things on its loop and waits for them. Threads may share it; the loop's own thread must not wait on it.

    Several connections may share it, too: it runs from the first `open` to the last `close`.
    """

    def __init__(self) -> None:
        self._guard = ForkGuard()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._users = 0
        self._opening = threading.Lock()

    @property
    def is_elsewhere(self) -> bool:
        """It runs, and not in this thread."""
        return self._loop is not None and self._thread is not threading.current_thread()

    def open(self) -> None:
        """Start the thread if it does not run."""
        self._guard.check()
        with self._opening:
            self._users += 1
            if self._loop is None:
                started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
                self._thread = threading.Thread(target=self._run, args=(started,), name="trunkline", daemon=True)
                self._thread.start()
                self._loop = started.result()

    def close(self) -> None:
        """The last one stops the thread and waits for it."""
        with self._opening:
            self._users -= 1
            if self._users or self._guard.forked or self._loop is None:
                return
            loop, self._loop = self._loop, None
            loop.call_soon_threadsafe(loop.stop)
            assert self._thread is not None
            self._thread.join()

    def _run(self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.call_soon(started.set_result, loop)
            loop.run_forever()

    def begin(
        self, work: Callable[Given, Coroutine[Any, Any, Answer]], *args: Given.args, **kwargs: Given.kwargs
    ) -> concurrent.futures.Future[Answer]:
        """Await `work(...)` on the loop; cancelling the future cancels it there."""
        loop = self._opened()
        return asyncio.run_coroutine_threadsafe(work(*args, **kwargs), loop)

    def call(
        self, work: Callable[Given, Coroutine[Any, Any, Answer]], *args: Given.args, **kwargs: Given.kwargs
    ) -> Answer:
        """Await `work(...)` on the loop. What interrupts the wait (Ctrl-C) cancels it there."""
        waiting = self.begin(work, *args, **kwargs)
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            raise

    def run(self, work: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        """Call `work(...)` on the loop's thread."""

        async def on_loop() -> Answer:
            return work(*args, **kwargs)

        return self.call(on_loop)

    def post(self, work: Callable[Given, None], *args: Given.args, **kwargs: Given.kwargs) -> None:
        """Call `work(...)` on the loop's thread some time soon, in the order of the calls; its result is not waited
        for."""
        self._opened().call_soon_threadsafe(lambda: work(*args, **kwargs))

    def abandon(self, work: Callable[[], Any]) -> None:
        """Call `work()` on the loop's thread some time, if there is still one. For finalizers: any thread may run them."""
        loop = self._loop
        if loop is not None and not self._guard.forked:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(work)

    def iterate(self, items: Callable[[], AsyncIterator[Answer]]) -> Iterator[Answer]:
        """The items of an async iterator. Leaving the loop early ends it there, too."""
        iterator = self.run(items)

        async def step() -> tuple[bool, Answer | None]:
            try:
                return True, await anext(iterator)
            except StopAsyncIteration:
                return False, None

        async def end() -> None:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

        try:
            while True:
                more, item = self.call(step)
                if not more:
                    return
                yield item  # type: ignore[misc]
        finally:
            if self._loop is not None:
                self.call(end)

    def _opened(self) -> asyncio.AbstractEventLoop:
        self._guard.check()
        if self._loop is None:
            raise RuntimeError("the connection is not open: use it inside `with connect_sync(...) as trunkline`")
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "the blocking face was used in a callback on its own event loop, which would wait for ever"
            )
        return self._loop
