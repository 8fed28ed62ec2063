"""Events that wait to be delivered again: not before their time, and not before a checkpoint counts the attempt.

No more of them are counted ahead than may be delivered soon: what a checkpoint counts was tried as far as a crash can tell,
and a process that dies again and again must not use up the attempts of events that nobody ever saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from .delivery import NEVER, Entry

SLACK = 64


def _is_counted(entry: Entry) -> bool:
    return entry.attempts < entry.counted


class _Heap:
    """By time and offset, with lazy removal, over those open entries that are not in flight and satisfy `belongs`."""

    __slots__ = ("_belongs", "_entries", "_items")

    def __init__(self, entries: Mapping[int, Entry], belongs: Callable[[Entry], bool]) -> None:
        self._entries = entries
        self._belongs = belongs
        self._items: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._items)

    def push(self, entry: Entry) -> None:
        heappush(self._items, (entry.not_before_ns, entry.offset))
        if len(self._items) > 2 * len(self._entries) + SLACK:
            self._items = [(e.not_before_ns, e.offset) for e in self._entries.values() if self._waits(e)]
            heapify(self._items)

    def _waits(self, entry: Entry) -> bool:
        return not entry.in_flight and self._belongs(entry)

    def first_ns(self) -> int:
        return self._items[0][0] if self._items else NEVER

    def pop(self, now_ns: int) -> Entry | None:
        """One that is due."""
        items = self._items
        while items and items[0][0] <= now_ns:
            not_before_ns, offset = heappop(items)
            entry = self._entries.get(offset)
            if entry is not None and entry.not_before_ns == not_before_ns and self._waits(entry):
                return entry
        return None


class Waiting:
    """The subscription's open entries that are not in flight."""

    __slots__ = ("_counted", "_firsts", "_is_full", "_others", "uncounted")

    def __init__(self, entries: Mapping[int, Entry]) -> None:
        self.uncounted: dict[int, Entry] = {}
        """Due, and to be counted by the next checkpoint."""
        self._counted = _Heap(entries, _is_counted)
        """Those whose next attempt a durable checkpoint counts already: they wait for nothing but their time."""
        self._others = _Heap(entries, lambda entry: not _is_counted(entry) and entry.offset not in self.uncounted)
        self._is_full = False
        """Whether something is due that is not even to be counted yet."""
        self._firsts = 0
        """Of `uncounted`: those that nobody was given before."""

    def __bool__(self) -> bool:
        """Whether anything waits, or did: removal is lazy."""
        return bool(self._counted) or bool(self._others) or bool(self.uncounted)

    def push(self, entry: Entry, not_before_ns: int) -> None:
        """An entry that is not in flight any more."""
        entry.not_before_ns = not_before_ns
        (self._counted if _is_counted(entry) else self._others).push(entry)

    def pop_due(self, now_ns: int, *, ahead: int) -> Entry | None:
        """One that may be delivered; those whose attempt is not counted yet go to `uncounted`, up to `ahead`.

        With `ahead` 0 nothing has to be counted.
        """
        self._is_full = False
        entry = self._counted.pop(now_ns)
        while entry is None and self._others.first_ns() <= now_ns:
            if ahead and len(self.uncounted) >= ahead:
                self._is_full = True
                return None
            entry = self._others.pop(now_ns)
            if entry is None or not ahead:
                return entry
            self.uncounted[entry.offset] = entry
            self._firsts += entry.attempts == 0
            entry = None
        return entry

    def first_ns(self) -> int:
        """When the first may be delivered; NEVER if nothing waits for a time."""
        return min(self._counted.first_ns(), self._others.first_ns())

    def look_ns(self) -> int:
        """When to call `pop_due`, at the latest; NEVER if nothing comes before `count`, or before something changes."""
        return self._counted.first_ns() if self._is_full else self.first_ns()

    def next_attempts(self) -> dict[int, int]:
        """What a checkpoint has to count before the uncounted ones are delivered: attempts by offset."""
        return {offset: entry.attempts + 1 for offset, entry in self.uncounted.items()}

    def count(self, attempts: Mapping[int, int]) -> None:
        """A checkpoint that counts these is durable: they are due again."""
        for offset, counted in attempts.items():
            entry = self.forget(offset)
            if entry is not None:
                entry.counted = max(entry.counted, counted)
                self.push(entry, entry.not_before_ns)

    def forget(self, offset: int) -> Entry | None:
        """It is not uncounted any more: counted, done, or aside."""
        entry = self.uncounted.pop(offset, None) if self.uncounted else None
        if entry is not None:
            self._is_full = False
            self._firsts -= entry.attempts == 0
        return entry

    @property
    def goes_first(self) -> bool:
        """Whether something that was never given to anybody waits to be counted: what is behind it is not to pass it."""
        return self._is_full or self._firsts > 0
