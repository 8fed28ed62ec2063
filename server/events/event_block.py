"""A block of a stream as the dispatcher holds it: what many subscribers need of it is made once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from .encode import OFFSET, TIME_NS, delivery_head, varint

CHUNK_BYTES = 64 << 10
"""A chunk holds at least one delivery, and ends with the one that reaches this."""
OVERHEAD_BYTES = 512


class Events(Protocol):
    """What is read of a journal block, or of derived events. All of a block have one time."""

    @property
    def count(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def topics(self) -> Sequence[str]: ...
    @property
    def topic_ids(self) -> Sequence[int]: ...
    @property
    def payload(self) -> bytes | memoryview: ...
    @property
    def ends(self) -> Sequence[int]: ...


class EventBlock:
    """Covers the offsets [start, end); its events are at `offsets`, the others are gaps."""

    __slots__ = (
        "_chunk_bytes",
        "_chunks",
        "_events",
        "_suffixes",
        "_time",
        "count",
        "end",
        "matched",
        "offsets",
        "size",
        "start",
        "topics",
    )

    def __init__(self, events: Events, offsets: Sequence[int], *, start: int, end: int) -> None:
        self._events = events
        self.offsets = offsets
        self.start = start
        self.end = end
        self.count = events.count
        self.topics = events.topics
        self.size = 4 * len(events.payload) + OVERHEAD_BYTES
        """About what it occupies, encodings included."""
        self.matched: dict[int, Sequence[int]] = {}
        """Indexes of the events that a filter group takes; filled by the matcher."""
        self._suffixes: list[bytes | None] = [None] * self.count
        self._time = TIME_NS + events.time_ns.to_bytes(8, "little")
        self._chunks: dict[tuple[int, int, bytes, int], tuple[bytes, int]] = {}
        self._chunk_bytes = 2 * len(events.payload) + CHUNK_BYTES

    @property
    def topic_ids(self) -> Sequence[int]:
        """Index of each event's topic in `topics`."""
        return self._events.topic_ids

    def _frame(self, index: int) -> memoryview:
        ends = self._events.ends
        return memoryview(self._events.payload)[ends[index - 1] if index else 0 : ends[index]]

    def event_at(self, offset: int) -> memoryview | None:
        """The serialized event at an offset; None if there is none."""
        index = bisect_left(self.offsets, offset)
        if index == self.count or self.offsets[index] != offset:
            return None
        frame = self._frame(index)
        at = 1
        while frame[at] & 0x80:
            at += 1
        return frame[at + 1 :]

    def suffix(self, index: int) -> bytes:
        """Offset, time and event, as they stand at the end of every delivery of it."""
        found = self._suffixes[index]
        if found is None:
            found = b"".join((OFFSET, varint(self.offsets[index]), self._time, self._frame(index)))
            self._suffixes[index] = found
        return found

    def suffix_at(self, offset: int) -> bytes | None:
        """The same by offset; None if there is no event."""
        index = bisect_left(self.offsets, offset)
        return self.suffix(index) if index < self.count and self.offsets[index] == offset else None

    def chunk(self, group: int, first: int, prefix: bytes, credit: int) -> tuple[bytes, int]:
        """Deliveries at their first attempt, and how many: the group's from its `first` on, as far as credit goes.

        Subscribers that keep step (the same filters, subscription id and credit) are given the same bytes.
        """
        key = (group, first, prefix, credit)
        found = self._chunks.get(key)
        if found is None:
            found = self._encode(self.matched[group], first, prefix, credit)
            if self._chunk_bytes >= len(found[0]):
                self._chunk_bytes -= len(found[0])
                self._chunks[key] = found
        return found

    def _encode(self, indexes: Sequence[int], first: int, prefix: bytes, credit: int) -> tuple[bytes, int]:
        pieces: list[bytes] = []
        size = 0
        for index in indexes[first : first + credit]:
            credit -= 1
            suffix = self.suffix(index)
            pieces.append(delivery_head(prefix, credit, 1, len(suffix)))
            pieces.append(suffix)
            size += len(suffix)
            if size >= CHUNK_BYTES:
                break
        return b"".join(pieces), len(pieces) // 2
