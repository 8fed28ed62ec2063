"""Compaction by key: which records stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from trunkline.core.records import Record

from .batch import Batch
from .block import Block

Keep = Callable[[Record], bool]


def thin_blocks(blocks: list[Block], keep: Keep | None) -> list[Block]:
    """The blocks with only the latest record of each key in them."""
    latest: dict[str, int] = {}
    for block in blocks:
        note_latest(latest, block)
    return [thinned for block in blocks for thinned in _thin_block(block, latest, keep)]


def _thin_block(block: Block, latest: dict[str, int], keep: Keep | None) -> Iterator[Block]:
    kept = kept_records(block, latest, keep)
    if len(kept) == block.count:
        yield block
        return
    for base_offset, batch in batches_of(kept):
        yield Block.of_batch(batch, base_offset=base_offset, time_ns=block.time_ns, incarnation=block.incarnation)


def note_latest(latest: dict[str, int], block: Block) -> None:
    """Take down where each key was last written."""
    for index in range(block.count):
        record = block.record(index)
        latest[record.key] = record.offset


def kept_records(block: Block, latest: dict[str, int], keep: Keep | None) -> list[Record]:
    """The records that stay: the latest of their keys, if they have a body and `keep` does not object."""
    return [
        record
        for record in map(block.record, range(block.count))
        if latest[record.key] == record.offset and record.body and (keep is None or keep(record))
    ]


def batches_of(records: list[Record]) -> Iterator[tuple[int, Batch]]:
    """(base offset, batch) for each run of offsets: a block has no gaps."""
    breaks = [number for number, (a, b) in enumerate(pairwise(records), 1) if b.offset != a.offset + 1]
    for first, last in pairwise([0, *breaks, len(records)]):
        if first < last:
            yield records[first].offset, Batch.of_records(records[first:last])
