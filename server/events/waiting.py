"""Events that wait to be delivered again: not before their time, and not before a checkpoint counts the attempt.

No more of them are counted ahead than may be delivered soon: what a checkpoint counts was tried as far as a crash can tell,
and a process that dies again and again must not use up the attempts of events that nobody ever saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from .delivery import NEVER, Entry

SLACK = 64


class Waiting:
    """A heap with lazy removal over the subscription's open entries: those that are not in flight wait."""

    __slots__ = ("_entries", "_heap", "_is_full", "uncounted")

    def __init__(self, entries: Mapping[int, Entry]) -> None:
        self.uncounted: dict[int, Entry] = {}
        """Due, but the attempt that comes next is in no durable checkpoint yet."""
        self._entries = entries
        self._heap: list[tuple[int, int]] = []
        self._is_full = False
        """Whether something is due that is not even to be counted yet."""

    def __bool__(self) -> bool:
        """Whether `pop_due` may find one, now or later."""
        return bool(self._heap)

    def push(self, entry: Entry, not_before_ns: int) -> None:
        """An entry that is not in flight any more."""
        entry.not_before_ns = not_before_ns
        heappush(self._heap, (not_before_ns, entry.offset))
        if len(self._heap) > 2 * len(self._entries) + SLACK:
            waiting = (e for e in self._entries.values() if not e.in_flight and e.offset not in self.uncounted)
            self._heap = [(e.not_before_ns, e.offset) for e in waiting]
            heapify(self._heap)

    def pop_due(self, now_ns: int, *, ahead: int) -> Entry | None:
        """One that may be delivered; those whose attempt is not counted yet go to `uncounted`, up to `ahead`.

        With `ahead` 0 nothing has to be counted.
        """
        heap = self._heap
        self._is_full = False
        while heap and heap[0][0] <= now_ns:
            if ahead and len(self.uncounted) >= ahead:
                self._is_full = True
                return None
            not_before_ns, offset = heappop(heap)
            entry = self._entries.get(offset)
            if entry is None or entry.in_flight or entry.not_before_ns != not_before_ns:
                continue
            if entry.attempts < entry.counted or not ahead:
                return entry
            self.uncounted[offset] = entry
        return None

    def first_ns(self) -> int:
        """When the first may be delivered; NEVER if nothing waits for a time."""
        return self._heap[0][0] if self._heap else NEVER

    def look_ns(self) -> int:
        """When to call `pop_due`, at the latest; NEVER if nothing comes before `count`, or before something changes."""
        return NEVER if self._is_full else self.first_ns()

    def next_attempts(self) -> dict[int, int]:
        """What a checkpoint has to count before the uncounted ones are delivered: attempts by offset."""
        return {offset: entry.attempts + 1 for offset, entry in self.uncounted.items()}

    def count(self, attempts: Mapping[int, int]) -> None:
        """A checkpoint that counts these is durable: they are due again."""
        for offset, counted in attempts.items():
            entry = self.uncounted.pop(offset, None)
            if entry is not None:
                entry.counted = max(entry.counted, counted)
                heappush(self._heap, (entry.not_before_ns, offset))

    def forget(self, offset: int) -> None:
        """It is done, or aside."""
        if self.uncounted and self.uncounted.pop(offset, None) is not None:
            self._is_full = False
