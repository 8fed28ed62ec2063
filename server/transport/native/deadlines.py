"""The deadlines of all calls of a server in a wheel: one timer, and a call that ends in time costs two set operations."""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .call import Call

TICKS_PER_S = 200
"""A call is expired up to a tick, 5 ms, after its deadline, never before."""
_LATER_S = 0.0005
"""Timers of the loop may be half a millisecond early: ours are asked for that much later, so as not to wake for nothing."""
_ROUNDING = 1e-3
"""Of a tick: what is due by less than that is due."""
_SWEEP_AT = 1_024


class Deadlines:
    """Calls by the tick at which they are due. A call has its tick, or 0, in `tick`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: dict[int, set[Call]] = {}
        self._ticks: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0
        self._sweep_at = _SWEEP_AT

    def begin(self, call: Call, due_s: float) -> None:
        """Expire this call at `due_s` of the loop's clock, instead of when it was to be expired."""
        if call.tick:
            self.end(call)
        call.tick = tick = math.ceil(due_s * TICKS_PER_S)
        calls = self._calls.get(tick)
        if calls is None:
            if len(self._ticks) >= self._sweep_at:
                self._sweep()
            calls = self._calls[tick] = set()
            heapq.heappush(self._ticks, tick)
            if self._timer is None or tick < self._armed:
                self._arm()
        calls.add(call)

    def end(self, call: Call) -> None:
        """The call needs no deadline any more."""
        if call.tick:
            calls = self._calls.get(call.tick)
            if calls is not None:
                calls.discard(call)
            call.tick = 0

    def close(self) -> None:
        """Expire nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._calls.clear()
        self._ticks.clear()

    def _sweep(self) -> None:
        """Forget ticks whose calls are all over: peers may name far ones, each another."""
        self._calls = {tick: calls for tick, calls in self._calls.items() if calls}
        self._ticks = sorted(self._calls)
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._ticks))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._ticks[0]
        self._timer = self._loop.call_at(self._armed / TICKS_PER_S + _LATER_S, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time() * TICKS_PER_S + _ROUNDING
        while self._ticks and self._ticks[0] <= now:
            for call in self._calls.pop(heapq.heappop(self._ticks)):
                call.tick = 0
                call.expire()
        # Ticks whose calls are all over need no timer.
        while self._ticks and not self._calls[self._ticks[0]]:
            del self._calls[heapq.heappop(self._ticks)]
        if self._ticks:
            self._arm()
