"""A block of a stream as the dispatcher holds it: what many subscribers need of it is made once."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from trunkline.core.attributes import attribute_texts
from trunkline.core.collector import unseen
from trunkline.core.deliveries import delivery_suffix, first_deliveries

from .keys import EXPIRY_ATTRIBUTE, key_hash, time_ns_of
from .settings import KEY_ATTRIBUTE

CHUNK_BYTES = 64 << 10
"""A chunk holds at least one delivery, and ends with the one that reaches this."""
OVERHEAD_BYTES = 512
_MAY_EXPIRE = re.compile(EXPIRY_ATTRIBUTE.encode())
"""Most blocks have no such event, and a search tells at the speed of memory."""


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
    def ends(self) -> array[int] | memoryview: ...
    @property
    def key_hashes(self) -> Sequence[int] | None:
        """Of each event's partition key, 0 for none; None when they were not kept."""


class EventBlock:
    """Covers the offsets [start, end); its events are at `offsets`, the others are gaps."""

    __slots__ = (
        "_chunk_bytes",
        "_chunks",
        "_events",
        "_expiries",
        "_keys",
        "_suffixes",
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
        self._keys: dict[str, Sequence[int]] = {}
        self._expiries: dict[int, int] | None = None
        self._suffixes: list[bytes | None] | None = None
        self._chunks: dict[tuple[int, int, bytes, int], tuple[bytes, int]] = {}
        self._chunk_bytes = 2 * len(events.payload) + CHUNK_BYTES
        unseen(self)

    @property
    def topic_ids(self) -> Sequence[int]:
        """Index of each event's topic in `topics`."""
        return self._events.topic_ids

    @property
    def time_ns(self) -> int:
        """When its events were appended, in nanoseconds since the epoch."""
        return self._events.time_ns

    def keys(self, attribute: str) -> Sequence[int]:
        """The hash of each event's attribute, 0 for one that has none."""
        known = self._keys.get(attribute)
        if known is None:
            kept = self._events.key_hashes if attribute == KEY_ATTRIBUTE else None
            if kept is None:
                kept = [key_hash(text) for (text,) in self.texts(range(self.count), (attribute,))]
            known = self._keys[attribute] = kept
        return known

    @property
    def expiries(self) -> dict[int, int]:
        """When events expire that say so, by offset, in nanoseconds since the epoch."""
        if self._expiries is None:
            self._expiries = self._find_expiries() if _MAY_EXPIRE.search(self._events.payload) else {}
        return self._expiries

    def _find_expiries(self) -> dict[int, int]:
        texts = self.texts(range(self.count), (EXPIRY_ATTRIBUTE,))
        found = {self.offsets[index]: time_ns_of(text) for index, (text,) in enumerate(texts) if text}
        return {offset: time_ns for offset, time_ns in found.items() if time_ns is not None}

    def texts(self, indexes: Sequence[int], names: tuple[str, ...]) -> list[tuple[str | None, ...]]:
        """The texts of these attributes of the events at these indexes; see attribute_texts."""
        return attribute_texts(self._events.payload, self._events.ends, indexes, names)

    def _frame(self, index: int) -> memoryview:
        ends = self._events.ends
        return memoryview(self._events.payload)[ends[index - 1] if index else 0 : ends[index]]

    def event_at(self, offset: int) -> memoryview | None:
        """The serialized event at an offset; None if there is none."""
        index = bisect_left(self.offsets, offset)
        if index == self.count or self.offsets[index] != offset:
            return None
        return self._body(index)

    def _body(self, index: int) -> memoryview:
        frame = self._frame(index)
        at = 1
        while frame[at] & 0x80:
            at += 1
        return frame[at + 1 :]

    def suffix(self, index: int) -> bytes:
        """Offset, time and event, as they stand at the end of every delivery of it."""
        suffixes = self._suffixes
        if suffixes is None:  # those who need no acknowledgement never ask
            suffixes = self._suffixes = [None] * self.count
        found = suffixes[index]
        if found is None:
            found = suffixes[index] = delivery_suffix(self.offsets[index], self._events.time_ns, self._frame(index))
        return found

    def suffix_at(self, offset: int) -> bytes | None:
        """The same by offset; None if there is no event."""
        offsets = self.offsets
        if type(offsets) is range:  # no gaps, as in every block of a stored stream
            index = offset - offsets.start
            if not 0 <= index < self.count:
                return None
        else:
            index = bisect_left(offsets, offset)
            if index == self.count or offsets[index] != offset:
                return None
        return self.suffix(index)

    def chunk(self, group: int, first: int, prefix: bytes, credit: int) -> tuple[bytes, int]:
        """Deliveries at their first attempt, and how many: the group's from its `first` on, as far as credit goes.

        Subscribers that keep step (the same filters, subscription id and credit) are given the same bytes.
        """
        key = (group, first, prefix, credit)
        found = self._chunks.get(key)
        if found is None:
            events, indexes = self._events, self.matched[group]
            found = first_deliveries(
                events.payload,
                events.ends,
                self.offsets,
                events.time_ns,
                indexes,
                first,
                prefix,
                credit,
                CHUNK_BYTES,
            )
            if self._chunk_bytes >= len(found[0]):
                self._chunk_bytes -= len(found[0])
                self._chunks[unseen(key)] = unseen(found)
        return found
