"""Coroutines that run at once, and become tasks only when they wait for something.

Most calls are answered without waiting. A task of asyncio costs more than such a call: its first step takes a turn of the
loop, and it is entered in a register of all tasks. (From Python 3.12 on asyncio has eager tasks, which are entered, too.)
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from typing import Any

_NOTHING = object()


class Resumed(Coroutine[Any, Any, Any]):
    """A coroutine whose first step is done: gives once more what that step waits for, then goes on."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def send(self, value: Any) -> Any:
        """See Coroutine."""
        awaited = self._awaited
        if awaited is not _NOTHING:
            self._awaited = _NOTHING
            return awaited
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """See Coroutine."""
        awaited, self._awaited = self._awaited, _NOTHING
        if awaited is not _NOTHING and awaited is not None:
            awaited._asyncio_future_blocking = False  # nobody waits for it any more
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """See Coroutine."""
        self._coroutine.close()

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class EagerTask:
    """The current task of a coroutine's first step, and whoever keeps it (a timeout, a group) of all further ones."""

    __slots__ = ("_callbacks", "_cancel_requests", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._cancel_requests = 0
        self._callbacks: list[Callable[[Any], object]] | None = None

    def cancel(self, msg: Any = None) -> bool:
        """See asyncio.Task; in the first step it takes effect at its end."""
        if self._task is not None:
            return self._task.cancel(msg)
        self._cancel_requests += 1
        return True

    def cancelling(self) -> int:
        """See asyncio.Task."""
        return self._cancel_requests if self._task is None else self._task.cancelling()

    def uncancel(self) -> int:
        """See asyncio.Task."""
        if self._task is not None:
            return self._task.uncancel()
        self._cancel_requests = max(0, self._cancel_requests - 1)
        return self._cancel_requests

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        """See asyncio.Task."""
        if self._task is not None:
            self._task.add_done_callback(callback, context=context)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """See asyncio.Task."""
        return self._loop

    def get_name(self) -> str:
        """See asyncio.Task."""
        return "first step" if self._task is None else self._task.get_name()

    def done(self) -> bool:
        """See asyncio.Task."""
        return self._task is not None and self._task.done()

    def cancelled(self) -> bool:
        """See asyncio.Task."""
        return self._task is not None and self._task.cancelled()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def finish(self) -> None:
        """The first step was the last."""
        for callback in self._callbacks or ():
            self._loop.call_soon(callback, self)

    def become(self, task: asyncio.Task[None]) -> None:
        """The first step is over, and the coroutine goes on in this task."""
        requests, self._cancel_requests, self._task = self._cancel_requests, 0, task
        for _ in range(requests):
            task.cancel()
        for callback in self._callbacks or ():
            task.add_done_callback(callback)


def start(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, None],
    waits: Callable[[asyncio.Task[None]], None],
) -> None:
    """Run a coroutine, which raises nothing, until it waits; if it does, `waits` gets the task that goes on.

    Not to be called within a task.
    """
    current = EagerTask(loop)
    context = contextvars.copy_context()
    _enter_task(loop, current)  # type: ignore[arg-type]
    try:
        awaited = context.run(coroutine.send, None)
    except StopIteration:
        current.finish()
        return
    finally:
        _leave_task(loop, current)  # type: ignore[arg-type]
    task = loop.create_task(Resumed(coroutine, awaited), context=context)
    current.become(task)
    waits(task)
