"""The newest blocks of a log in memory, found by offset."""

from __future__ import annotations

from bisect import bisect_right

from .block import Block

BLOCK_BYTES = 1_024
"""What a block takes in memory beside its bytes, about."""
_COMPACT_AT = 1_024


class RecentBlocks:
    """Blocks in order of their offsets, without holes between them. Oldest are dropped from the front."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._bases: list[int] = []
        self._head = 0
        self.bytes = 0
        self.records = 0

    def __len__(self) -> int:
        return len(self._blocks) - self._head

    @property
    def first(self) -> Block | None:
        """The oldest block."""
        return self._blocks[self._head] if len(self) else None

    def add(self, block: Block) -> None:
        """Put a block behind the others."""
        self._blocks.append(block)
        self._bases.append(block.base_offset)
        self.bytes += block.size
        self.records += block.count

    def drop_first(self) -> Block:
        """Forget the oldest block."""
        block = self._blocks[self._head]
        self._head += 1
        self.bytes -= block.size
        self.records -= block.count
        if self._head >= _COMPACT_AT and self._head * 2 >= len(self._blocks):
            del self._blocks[: self._head], self._bases[: self._head]
            self._head = 0
        else:
            self._blocks[self._head - 1] = None  # type: ignore[call-overload]
        return block

    def drop_below(self, offset: int) -> None:
        """Forget what lies below an offset: on disk there is less of it now."""
        while len(self) and self._blocks[self._head].end_offset <= offset:
            self.drop_first()

    def shrink(self, bytes_max: int) -> None:
        """Drop the oldest until no more than `bytes_max` are held, with what Python takes for each block."""
        while self.bytes + BLOCK_BYTES * len(self) > bytes_max:
            self.drop_first()

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()
        self._bases.clear()
        self._head = self.bytes = self.records = 0

    def replace(self, blocks: list[Block]) -> None:
        """Hold these instead."""
        self.clear()
        for block in blocks:
            self.add(block)

    def all(self) -> list[Block]:
        """Every block, oldest first."""
        return self._blocks[self._head :]

    def read(self, offset: int, *, max_bytes: int) -> list[Block] | None:
        """Blocks from the one that holds `offset` (or the next) on; None when `offset` lies before the oldest."""
        if not len(self) or offset < self._bases[self._head]:
            return None
        index = bisect_right(self._bases, offset, lo=self._head) - 1
        if self._blocks[index].end_offset <= offset:
            index += 1
        size = 0
        taken: list[Block] = []
        while index < len(self._blocks):
            block = self._blocks[index]
            size += block.size
            if taken and size > max_bytes:
                break
            taken.append(block)
            index += 1
        return taken
