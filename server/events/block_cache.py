"""Blocks of one stream by position: its newest ones, and what was read for those who are behind."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict

from .event_block import EventBlock

CACHE_BYTES_MAX = 32 << 20
"""Of one stream. The least recently used go first."""


class BlockCache:
    """Bounded by bytes; at least the block put last is kept."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._starts: list[int] = []
        self._blocks: OrderedDict[int, EventBlock] = OrderedDict()
        self._found: EventBlock | None = None
        """What was asked for last: a thousand followers that keep step ask for the same."""

    def put(self, block: EventBlock) -> None:
        """Keep a block; one with its start is replaced, and so are those within what it covers.

        Of a stream that is compacted, what covers an offset changes: a smaller block would stand before this one, and hide it.
        """
        self._found = None
        old = self._blocks.pop(block.start, None)
        if old is None:
            insort(self._starts, block.start)
        else:
            self.bytes -= old.size
        if self._starts[-1] != block.start:
            self._drop_within(block)
        self._blocks[block.start] = block
        self.bytes += block.size
        while self.bytes > self._bytes_max and len(self._blocks) > 1:
            start, evicted = self._blocks.popitem(last=False)
            self.bytes -= evicted.size
            del self._starts[bisect_right(self._starts, start) - 1]

    def _drop_within(self, block: EventBlock) -> None:
        place = bisect_right(self._starts, block.start)
        while place < len(self._starts) and self._blocks[self._starts[place]].end <= block.end:
            self.bytes -= self._blocks.pop(self._starts.pop(place)).size

    def find(self, offset: int) -> EventBlock | None:
        """The block that covers an offset."""
        found = self._found
        if found is not None and found.start <= offset < found.end:
            return found
        place = bisect_right(self._starts, offset) - 1
        if place < 0:
            return None
        start = self._starts[place]
        block = self._blocks[start]
        if offset >= block.end:
            return None
        self._blocks.move_to_end(start)
        self._found = block
        return block

    def clear(self) -> None:
        """Forget everything: the stream has another history."""
        self._found = None
        self._starts.clear()
        self._blocks.clear()
        self.bytes = 0
