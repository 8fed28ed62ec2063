"""Whether the server itself stood still: nobody is blamed for silence that nobody listened to."""

from __future__ import annotations


class StallDetector:
    """Compares when a tick should have come with when it came. Monotonic nanoseconds.

    Whoever is about to judge time asks `observe` first, the tick or a keep-alive: whichever runs first after a stall
    finds all of it, and the other nothing.
    """

    def __init__(self, *, tick_ms: int, tolerance_ms: int) -> None:
        self._tick_ns = tick_ms * 1_000_000
        self._tolerance_ns = tolerance_ms * 1_000_000
        self._expected_ns: int | None = None

    def ticked(self, now_ns: int) -> None:
        """A tick has come; the next one is expected a tick later."""
        self._expected_ns = now_ns + self._tick_ns

    def observe(self, now_ns: int) -> int:
        """How long the server has stood still since it was last asked; 0 if the next tick is not late."""
        if self._expected_ns is None:
            return 0
        late_ns = now_ns - self._expected_ns
        if late_ns <= self._tolerance_ns:
            return 0
        self._expected_ns = now_ns
        return late_ns
