"""The dedupe window as a list that is searched from its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SAME_HASH_MAX = 8


class Entry(NamedTuple):
    """An event that came."""

    hash: tuple[int, int]
    offset: int
    time_ns: int
    is_findable: bool


class DedupeWindow:
    """See trunkline.core.dedupe.DedupeWindow."""

    def __init__(self, *, max_ids: int, window_ns: int) -> None:
        self.max_ids = max_ids
        self.window_ns = window_ns
        self.entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self.entries)

    def find_many(self, id_hashes: Sequence[int], count: int) -> list[int]:
        hashes = pairs(id_hashes)
        if len(id_hashes) != 2 * count:
            raise ValueError
        found = []
        for i, hash in enumerate(hashes):
            earlier = [j for j in range(i) if hashes[j] == hash]
            stored = self.candidates(*hash)
            found.append(-2 - earlier[-1] if earlier else stored[0] if stored else -1)
        return found

    def candidates(self, low: int, high: int) -> list[int]:
        return sorted((e.offset for e in self.entries if e.hash == (low, high) and e.is_findable), reverse=True)

    def add_many(self, id_hashes: Sequence[int], first_offset: int, time_ns: int) -> None:
        if len(id_hashes) % 2 or first_offset < 0:
            raise ValueError
        if self.entries and (first_offset <= self.entries[-1].offset or time_ns < self.entries[-1].time_ns):
            raise ValueError("not after the last one")
        self.expire(time_ns)
        hashes = pairs(id_hashes)
        for i, hash in list(enumerate(hashes))[-self.max_ids :]:
            self.entries = self.entries[-(self.max_ids - 1) :] if self.max_ids > 1 else []
            findable = len(self.candidates(*hash)) < SAME_HASH_MAX
            self.entries.append(Entry(hash, first_offset + i, time_ns, findable))

    def take_back(self, first_offset: int) -> int:
        before = len(self.entries)
        self.entries = [e for e in self.entries if e.offset < first_offset]
        return before - len(self.entries)

    def expire(self, now_ns: int) -> int:
        before = len(self.entries)
        self.entries = [e for e in self.entries if now_ns - e.time_ns < self.window_ns]
        return before - len(self.entries)


def pairs(id_hashes: Sequence[int]) -> list[tuple[int, int]]:
    """The hashes, two words each."""
    return list(zip(id_hashes[::2], id_hashes[1::2], strict=False))
