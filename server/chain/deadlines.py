"""The end of calls that came without a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

from trunkline.core.clock import Clock


class Deadlines:
    """Calls of one method, all given the same time, so that the oldest is due first: one timer for all of them.

    A timer per call costs several microseconds, and almost every call is over long before.
    """

    __slots__ = ("_clock", "_due_ns", "_expired", "_timer", "limit_ns")

    def __init__(self, clock: Clock, limit_ns: int) -> None:
        self.limit_ns = limit_ns
        self._clock = clock
        self._due_ns: dict[asyncio.Task[Any], int] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[Any]) -> int:
        """Cancel the task when its time has come; returns when that is, monotonic."""
        due_ns = self._due_ns[task] = self._clock.now_ns() + self.limit_ns
        if self._timer is None:
            self._arm(self.limit_ns)
        return due_ns

    def is_due(self, task: asyncio.Task[Any]) -> bool:
        """Whether the task was cancelled because its time had come."""
        return task in self._expired

    def end(self, task: asyncio.Task[Any]) -> None:
        """The call is over."""
        del self._due_ns[task]
        self._expired.discard(task)

    def _arm(self, in_ns: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(in_ns / 1e9, self._sweep)

    def _sweep(self) -> None:
        """End what is due; wake again for the oldest of the rest."""
        self._timer = None
        now_ns = self._clock.now_ns()
        for task, due_ns in self._due_ns.items():
            if due_ns > now_ns:
                self._arm(due_ns - now_ns)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
