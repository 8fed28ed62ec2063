"""When deliveries are taken back. All of a subscription have the same time, so a queue is in order by itself."""

from __future__ import annotations

from collections import deque

from .delivery import NEVER, Entry

SLACK = 1_024


class Deadlines:
    """Removal is lazy: an item whose entry was settled, sent again or prolonged is passed over."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Entry, int]] = deque()

    def arm(self, entry: Entry, deadline_ns: int, *, in_flight: int) -> None:
        """`deadline_ns` is no earlier than any given before; `in_flight` bounds how many items can be alive."""
        entry.deadline_ns = deadline_ns
        self._queue.append((deadline_ns, entry, entry.attempts))
        if len(self._queue) > 2 * in_flight + SLACK:
            self._queue = deque(item for item in self._queue if _alive(item))

    def shorten(self, deadline_ns: int) -> None:
        """None is later than this from now on."""
        alive = [item for item in self._queue if _alive(item)]
        self._queue.clear()
        for old_ns, entry, attempt in alive:
            entry.deadline_ns = min(old_ns, deadline_ns)
            self._queue.append((entry.deadline_ns, entry, attempt))

    def first_ns(self) -> int:
        """The first deadline; NEVER if nothing is in flight."""
        queue = self._queue
        while queue and not _alive(queue[0]):
            queue.popleft()
        return queue[0][0] if queue else NEVER

    def pop_due(self, now_ns: int) -> Entry | None:
        """An entry whose deadline has come."""
        if self.first_ns() > now_ns:
            return None
        return self._queue.popleft()[1]


def _alive(item: tuple[int, Entry, int]) -> bool:
    deadline_ns, entry, attempt = item
    return entry.in_flight and entry.attempts == attempt and entry.deadline_ns == deadline_ns
