"""Coroutines that run at once, and become tasks only when they wait for something.

Most calls are answered without waiting. A task of asyncio costs more than such a call: its first step takes a turn of the
loop, and it is entered in a register of all tasks. (From Python 3.12 on asyncio has eager tasks, which are entered, too.)
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from sys import getrefcount
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

    __slots__ = ("_cancel_requests", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._cancel_requests = 0

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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def become(self, task: asyncio.Task[None]) -> None:
        """The first step is over, and the coroutine goes on in this task."""
        requests, self._cancel_requests, self._task = self._cancel_requests, 0, task
        for _ in range(requests):
            task.cancel()


_spare: list[EagerTask] = []
_REFERENCES_OF_OURS = 3
"""Those of `start`, of getrefcount, and of asyncio's register of current tasks."""


def start(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, None],
    waits: Callable[[asyncio.Task[None]], None],
) -> None:
    """Run a coroutine, which raises nothing, until it waits; if it does, `waits` gets the task that goes on.

    Not to be called within a task.
    """
    current = _spare.pop() if _spare else EagerTask()
    context = contextvars.copy_context()
    _enter_task(loop, current)  # type: ignore[arg-type]
    try:
        awaited = context.run(coroutine.send, None)
    except StopIteration:
        if getrefcount(current) == _REFERENCES_OF_OURS and not current.cancelling():
            _spare.append(current)  # nobody has kept it
        return
    finally:
        _leave_task(loop, current)  # type: ignore[arg-type]
    task = loop.create_task(Resumed(coroutine, awaited), context=context)
    current.become(task)
    waits(task)
