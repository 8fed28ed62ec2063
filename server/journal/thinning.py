"""Compaction by key: which records stay, and blocks of only those."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from .batch import Batch, Draft
from .block import Block
from .record import NO_VERSION, Record

Keep = Callable[[Record], bool]


def thin_blocks(blocks: list[Block], keep: Keep | None) -> list[Block]:
    """The blocks with only the latest record of each key in them."""
    latest: dict[str, int] = {}
    for block in blocks:
        note_latest(latest, block)
    return [thinned for block in blocks for thinned in thin(block, latest, keep)]


def note_latest(latest: dict[str, int], block: Block) -> None:
    """Take down where each key was last written."""
    for index in range(block.count):
        record = block.record(index)
        latest[record.key] = record.offset


def thin(block: Block, latest: dict[str, int], keep: Keep | None) -> Iterable[Block]:
    """What stays of a block: one block per run of offsets, as a block has no gaps.

    A record stays if it is its key's latest, has a body, and `keep` does not object.
    """
    kept = [
        record
        for record in map(block.record, range(block.count))
        if latest[record.key] == record.offset and record.body and (keep is None or keep(record))
    ]
    if len(kept) == block.count:
        yield block
        return
    breaks = [i for i, (a, b) in enumerate(pairwise(kept), 1) if b.offset != a.offset + 1]
    for first, last in pairwise([0, *breaks, len(kept)]):
        if first < last:
            yield _block_of(kept[first:last], block)


def _block_of(records: list[Record], original: Block) -> Block:
    return Block.of_batch(
        Batch.of_records([draft_of(record) for record in records]),
        base_offset=records[0].offset,
        time_ns=original.time_ns,
        incarnation=original.incarnation,
    )


def draft_of(record: Record) -> Draft:
    """The draft that would become this record again."""
    return Draft(
        topic=record.topic,
        body=record.body,
        key=record.key,
        id=record.id,
        namespace=record.namespace,
        schema=record.schema,
        version=None if record.version == NO_VERSION else record.version,
        expects=record.expects,
        author=record.author,
        reason=record.reason,
        traceparent=record.traceparent,
    )
