"""Compaction of event streams: of each key the latest event stays. Offsets stay what they were, and have gaps.

Keys are told apart by 128 bits of BLAKE2b: that any two among ten million share them has odds of less than 1 in 10^24. The
64-bit hashes of the index, which lanes go by, only say which events need a closer look: two keys that share one wait for
each other in a lane, and here one of them would go.

A pass goes over what was compacted before (where each key stands once) and over some of what came since, as much as is old
enough and as its keys find room in memory. So memory is bounded by what came, not by what is kept.

A tombstone, the event that says that its key has ended, is kept like any other by the pass that removes what it ended, and
goes `tombstone_retention` after that one has ended: who began to read before has so long to come to it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from .batch import Batch
from .block import Block

SLICE_EVENTS = 2_048
"""Worked on between two looks at the loop, some ms; and the most that one block holds that a pass leaves with gaps."""
PASSES_KEPT = 64
_NO_HASH = 0
_SHARDS = 256
"""A table of all keys at once would hold the loop for longer than anything may when it grows."""

Thinned = tuple[int, Batch]
"""The base offset of what stays of a block, and its records."""


class KeyReader(Protocol):
    """What compaction has to know of events, which the journal does not."""

    def digests(self, block: Block, indexes: Sequence[int]) -> list[bytes]:
        """16 bytes for the key of each of these events."""

    def tombstones(self, block: Block) -> Collection[int]:
        """The indexes of those events with a key that end its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """When and how a stream is compacted."""

    reader: KeyReader
    min_lag_ns: int
    """No event goes that is younger."""
    tombstone_retention_ns: int
    dirty_bytes_min: int
    """With less than this that came since the last pass there is none, unless it has waited for `dirty_age_max_ns`."""
    dirty_ratio: float
    """What came has to be at least this part of all, too."""
    dirty_age_max_ns: int
    keys_max: int
    """Keys held in memory by one pass, but for those of one segment; others have to wait for the next."""

    def is_due(self, dirty_bytes: int, bytes_in_all: int, oldest_ns: int | None, cutoff_ns: int) -> bool:
        """Whether what came, of which the oldest has this time, is worth reading and writing all, or has waited enough."""
        if oldest_ns is None:
            return False
        enough = dirty_bytes >= self.dirty_bytes_min and dirty_bytes >= self.dirty_ratio * bytes_in_all
        return enough or oldest_ns <= cutoff_ns - self.dirty_age_max_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionRecord:
    """What compaction has done to a stream."""

    runs: int = 0
    time_ns: int = 0
    """When the last pass ended, nanoseconds since the epoch; 0 when there was none."""
    took_ns: int = 0
    removed: int = 0
    """Events, by all passes."""
    saved_bytes: int = 0
    """By all passes."""
    first_tombstone: int | None = None
    """The lowest offset of those that the last pass left."""
    passes: tuple[tuple[int, int], ...] = ()
    """(when it ended, the offset below which each key stood once then), oldest first: those that tombstones wait for."""

    @property
    def end_offset(self) -> int:
        """Below it each key stands once, but for keys that came again since."""
        return self.passes[-1][1] if self.passes else 0

    def tombstones_below(self, now_ns: int, retention_ns: int) -> int:
        """Tombstones below this offset have been there for long enough."""
        return max((end for time_ns, end in self.passes if time_ns <= now_ns - retention_ns), default=0)

    def waits_for_tombstones(self, now_ns: int, retention_ns: int) -> bool:
        """Whether a pass would remove one."""
        return self.first_tombstone is not None and self.first_tombstone < self.tombstones_below(now_ns, retention_ns)

    def after(
        self,
        *,
        end_offset: int,
        began_ns: int,
        now_ns: int,
        removed: int,
        saved_bytes: int,
        first_tombstone: int | None,
        retention_ns: int,
    ) -> CompactionRecord:
        """With one more pass."""
        over = [one for one in self.passes if one[0] <= now_ns - retention_ns]
        passes = [*over[-1:], *self.passes[len(over) :], (now_ns, end_offset)]
        if len(passes) > PASSES_KEPT:
            del passes[1:-1:2]  # some tombstones stay a little longer
        return CompactionRecord(
            runs=self.runs + 1,
            time_ns=now_ns,
            took_ns=max(0, now_ns - began_ns),
            removed=self.removed + removed,
            saved_bytes=self.saved_bytes + saved_bytes,
            first_tombstone=first_tombstone,
            passes=tuple(passes),
        )


class LatestEvents:
    """Where each key was last written, in the blocks that were noted; `thin` what stands before, and them."""

    def __init__(self, policy: KeyPolicy, *, tombstones_below: int) -> None:
        self.first_tombstone: int | None = None
        """The lowest that stays."""
        self.removed = 0
        self._reader = policy.reader
        self._keys_max = policy.keys_max
        self._tombstones_below = tombstones_below
        self._hashes: list[set[int]] = [set() for _ in range(_SHARDS)]
        self._latest: list[dict[bytes, int]] = [{} for _ in range(_SHARDS)]
        self._keys = 0

    @property
    def is_full(self) -> bool:
        """Whether no more keys should be noted."""
        return self._keys >= self._keys_max

    async def note(self, block: Block) -> None:
        """Take down the keys of a block; in the order of offsets."""
        hashes, offsets = block.key_hashes, block.offsets
        keyed = [index for index, key_hash in enumerate(hashes) if key_hash != _NO_HASH]
        for at in range(0, len(keyed), SLICE_EVENTS):
            some = keyed[at : at + SLICE_EVENTS]
            for index, digest in zip(some, self._reader.digests(block, some), strict=True):
                shard = self._latest[digest[0]]
                self._keys += digest not in shard
                shard[digest] = offsets[index]
                self._hashes[hashes[index] % _SHARDS].add(hashes[index])
            await asyncio.sleep(0)

    async def thin(self, block: Block) -> AsyncIterator[Thinned] | None:
        """What stays of a block; None if all does."""
        going = await self._going(block)
        if not going:
            return None
        self.removed += len(going)
        return self._rest(block, [index for index in range(block.count) if index not in going])

    async def _going(self, block: Block) -> set[int]:
        offsets, latest, known = block.offsets, self._latest, self._hashes
        suspects = [i for i, key_hash in enumerate(block.key_hashes) if key_hash in known[key_hash % _SHARDS]]
        going: set[int] = set()
        for at in range(0, len(suspects), SLICE_EVENTS):
            some = suspects[at : at + SLICE_EVENTS]
            digests = self._reader.digests(block, some)
            going.update(i for i, key in zip(some, digests, strict=True) if latest[key[0]].get(key, -1) > offsets[i])
            await asyncio.sleep(0)
        for index in self._reader.tombstones(block):
            if index in going:
                continue
            if offsets[index] < self._tombstones_below:
                going.add(index)
            elif self.first_tombstone is None:
                self.first_tombstone = offsets[index]
        return going

    async def _rest(self, block: Block, staying: list[int]) -> AsyncIterator[Thinned]:
        for at in range(0, len(staying), SLICE_EVENTS):
            yield gather(block, staying[at : at + SLICE_EVENTS])
            await asyncio.sleep(0)


def gather(block: Block, indexes: Sequence[int]) -> Thinned:
    """Some events of a block (ascending, at least one) as a batch that may have gaps."""
    offsets, ends, topics = block.offsets, block.ends, block.topics
    payload = memoryview(block.payload)
    frames = [payload[ends[i - 1] if i else 0 : ends[i]] for i in indexes]
    base = offsets[indexes[0]]
    used: dict[int, int] = {}
    dense = offsets[indexes[-1]] - base + 1 == len(indexes)
    topic_ids = array("H", [used.setdefault(block.topic_ids[i], len(used)) for i in indexes])
    return base, Batch(
        len(indexes),
        b"".join(frames),
        array("I", accumulate(map(len, frames))),
        topic_ids,
        tuple(topics[topic_id] for topic_id in used),
        array("Q", [block.key_hashes[i] for i in indexes]),
        array("Q", [block.id_hashes[2 * i + half] for i in indexes for half in (0, 1)]),
        places=None if dense else array("H", [offsets[i] - base for i in indexes]),
    )


async def thin_blocks(blocks: Sequence[Block], latest: LatestEvents) -> list[Block]:
    """What stays of blocks, as blocks."""
    kept: list[Block] = []
    for block in blocks:
        thinned = await latest.thin(block)
        if thinned is None:
            kept.append(block)
            continue
        async for base_offset, batch in thinned:
            kept.append(
                Block.of_batch(batch, base_offset=base_offset, time_ns=block.time_ns, incarnation=block.incarnation)
            )
    return kept
