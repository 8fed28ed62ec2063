"""One timer: it rings at the earliest of the times that it was last set to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .delivery import NEVER


class WakeUp:
    """Calls `ring` once when its time comes. A later time than it is set to takes effect at that ring: set it anew then."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = NEVER

    def set(self, due_ns: int, now_ns: int) -> None:
        """Ring at `due_ns`, or before that if it is set to an earlier time."""
        if due_ns >= self._due_ns:
            return
        self.cancel()
        self._due_ns = due_ns
        delay_s = max(0.0, (due_ns - now_ns) / 1e9)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def cancel(self) -> None:
        """Do not ring."""
        self._due_ns = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer, self._due_ns = None, NEVER
        self._ring()
