"""From where an ephemeral subscription goes on: behind what is done, not behind what was merely sent."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MARKS_MAX = 64


class Mark(NamedTuple):
    """A token, and the offset at which the stream goes on when it is used."""

    next_offset: int
    token: bytes


class ResumePoint:
    """Keeps the tokens that may still be needed: the newest at or below everything that is not done, and all above."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque()

    def add(self, mark: Mark, lowest_open: int | None) -> None:
        """A bookmark. `lowest_open` is the lowest offset in hand, None when nothing is."""
        if self._marks and mark.next_offset <= self._marks[-1].next_offset:
            return
        self._marks.append(mark)
        self.prune(lowest_open)
        if len(self._marks) > MARKS_MAX:
            # Thinning the middle costs events received again (and dropped again), never events missed.
            del self._marks[len(self._marks) // 2]

    def prune(self, lowest_open: int | None) -> None:
        """Forget tokens below the newest usable one."""
        while len(self._marks) > 1 and (lowest_open is None or self._marks[1].next_offset <= lowest_open):
            self._marks.popleft()

    def token(self, lowest_open: int | None) -> bytes:
        """What to resume with; empty when nothing is known."""
        self.prune(lowest_open)
        return self._marks[0].token if self._marks else b""

    def begins_at(self) -> int:
        """The offset of that token; 0 when nothing is known."""
        return self._marks[0].next_offset if self._marks else 0
