"""Virtual time for generators: each yields how long to wait, in nanoseconds. The same each time it is run."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator, Iterable
from typing import TypeAlias

from trunkline.core.clock import ManualClock

S = 1_000_000_000
Work: TypeAlias = Generator[int, None, None]


class Timeline:
    """What goes on, by when it goes on."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._numbers = itertools.count()
        self._due: list[tuple[int, int, Work]] = []

    @property
    def now_ns(self) -> int:
        """What time it is."""
        return self.clock.now_ns()

    def spawn(self, work: Iterable[int], *, after_ns: int = 0) -> None:
        """Begin with it later."""
        heapq.heappush(self._due, (self.now_ns + after_ns, next(self._numbers), _as_work(work)))

    def run_until(self, end_ns: int) -> None:
        """Let everything happen that is due by then."""
        while self._due and self._due[0][0] <= end_ns:
            at_ns, _, work = heapq.heappop(self._due)
            self.clock.advance(at_ns - self.now_ns)
            wait_ns = next(work, None)
            if wait_ns is not None:
                heapq.heappush(self._due, (at_ns + wait_ns, next(self._numbers), work))
        self.clock.advance(end_ns - self.now_ns)


def _as_work(work: Iterable[int]) -> Work:
    yield from work
