"""Blocks that are kept in memory: how many, when they are small."""

from __future__ import annotations

import tracemalloc

from reference.journal_batches import events_batch
from trunkline.server.journal.block import Block
from trunkline.server.journal.recent import RecentBlocks


def block(offset: int) -> Block:
    batch = events_batch(1, first=offset)
    return Block.of_batch(batch, base_offset=offset, time_ns=1, incarnation=1)


def test_small_blocks_take_no_more_memory_than_they_may() -> None:
    bytes_max = 1 << 20
    kept = RecentBlocks()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for offset in range(5_000):
            kept.add(block(offset))
            kept.shrink(bytes_max)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= bytes_max
    assert len(kept) > 300, "and not next to nothing"
    first = kept.first
    assert first is not None
    assert kept.read(first.base_offset - 1, max_bytes=1) is None
    [found] = kept.read(4_999, max_bytes=1 << 20) or []
    assert found.base_offset == 4_999
