"""Records on their way into a log, as columns.

A body lies in `payload` behind the tag of a protobuf field (number 15, length-delimited) and its length, so that the
bytes of a stored event are the bytes of the field `event` of a Delivery.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from trunkline.core.errors import InvalidArgument
from trunkline.core.records import Draft
from trunkline.core.sequences import NumberedRun

FRAME_TAG = 0x7A
"""Field 15, wire type 2."""
BODY_BYTES_MAX = 1 << 20
BLOCK_RECORDS_MAX = 1 << 16
BLOCK_PAYLOAD_BYTES_MAX = 8 << 20
_FRAME_BYTES_MAX = BODY_BYTES_MAX + 8
assert _FRAME_BYTES_MAX <= BLOCK_PAYLOAD_BYTES_MAX, "a record fits into a block"


class Scan(Protocol):
    """What trunkline.core.wire.scan_publish found: the columns of the events of one request."""

    @property
    def count(self) -> int: ...
    @property
    def payload(self) -> bytes | memoryview: ...
    @property
    def ends(self) -> array[int]: ...
    @property
    def topic_ids(self) -> array[int]: ...
    @property
    def topics(self) -> Sequence[str]: ...
    @property
    def key_hashes(self) -> array[int]: ...
    @property
    def id_hashes(self) -> array[int]: ...
    @property
    def producer(self) -> str: ...
    @property
    def producer_epoch(self) -> int: ...
    @property
    def first_sequence(self) -> int: ...


@dataclass(slots=True, eq=False)  # frozen would cost as much again, once an append
class Batch:
    """Columns of `count` records, in order. What is in it must not be changed any more."""

    count: int
    payload: bytes | memoryview
    """Framed bodies, one after the other."""
    ends: array[int]
    """'I': where each frame ends in `payload`."""
    topic_ids: array[int]
    """'H': index of each record's topic in `topics`."""
    topics: tuple[str, ...]
    key_hashes: array[int]
    """'Q': 64-bit hash of each key, 0 for none; empty when no record has one."""
    id_hashes: array[int]
    """'Q': two per record, the 128-bit hash of source and id; empty when records have none."""
    drafts: tuple[Draft, ...] = ()
    """Of control records and checkpoints: what the heads are made of."""
    numbered: tuple[NumberedRun, ...] = ()
    """Which records their producers numbered, in order."""
    places: array[int] | None = None
    """'H': how far each record's offset lies from the first one's; None where they follow without gaps. Only of what
    compaction leaves: what is appended has no gaps."""
    size: int = field(init=False)
    """About how many bytes this occupies, in memory and on disk."""

    def __post_init__(self) -> None:
        columns = len(self.ends) * 4 + len(self.topic_ids) * 2 + (len(self.key_hashes) + len(self.id_hashes)) * 8
        self.size = len(self.payload) + columns + 128 * (len(self.drafts) + len(self.numbered)) + 128

    @staticmethod
    def of_scan(scan: Scan, keep: Sequence[int] | None = None) -> Batch:
        """The events of a scanned request; with `keep`, only those at these ascending indexes."""
        whole = Batch(
            scan.count,
            scan.payload,
            scan.ends,
            scan.topic_ids,
            tuple(scan.topics),
            scan.key_hashes,
            scan.id_hashes,
            numbered=numbered_by(scan),
        )
        return (
            whole
            if keep is None or len(keep) == scan.count
            else Batch.merge([whole._slice(a, b) for a, b in _runs(keep)])
        )

    @staticmethod
    def of_records(drafts: Sequence[Draft]) -> Batch:
        """Control records or checkpoints. InvalidArgument when a body is over 1 MiB or a topic has a line break."""
        topics: dict[str, int] = {}
        topic_ids = array("H")
        frames: list[bytes] = []
        for draft in drafts:
            if len(draft.body) > BODY_BYTES_MAX:
                raise InvalidArgument.of("body", f"at most {BODY_BYTES_MAX} bytes", len(draft.body))
            if "\n" in draft.topic:
                raise InvalidArgument.of("topic", "no line break", draft.topic)
            frames.append(frame_head(len(draft.body)) + draft.body)
            topic_ids.append(topics.setdefault(draft.topic, len(topics)))
        ends = array("I", accumulate(map(len, frames)))
        return Batch(
            len(drafts), b"".join(frames), ends, topic_ids, tuple(topics), array("Q"), array("Q"), tuple(drafts)
        )

    @staticmethod
    def merge(batches: Sequence[Batch]) -> Batch:
        """Batches one after the other as one; all of them with drafts, or none."""
        topics: dict[str, int] = {}
        topic_ids, ends = array("H"), array("I")
        key_hashes, id_hashes = array("Q"), array("Q")
        numbered: list[NumberedRun] = []
        size = 0
        for batch in batches:
            for run in batch.numbered:
                _add_run(numbered, run, len(ends))
            ids = [topics.setdefault(topic, len(topics)) for topic in batch.topics]
            topic_ids.extend([ids[topic_id] for topic_id in batch.topic_ids])
            ends.extend([size + end for end in batch.ends])
            key_hashes.extend(batch.key_hashes)
            id_hashes.extend(batch.id_hashes)
            size += len(batch.payload)
        return Batch(
            len(ends),
            b"".join([batch.payload for batch in batches]),
            ends,
            topic_ids,
            tuple(topics),
            key_hashes,
            id_hashes,
            tuple([draft for batch in batches for draft in batch.drafts]),
            tuple(numbered),
        )

    def split(self) -> Sequence[Batch]:
        """This batch in pieces that each fit into one block."""
        if self.count <= BLOCK_RECORDS_MAX and len(self.payload) <= BLOCK_PAYLOAD_BYTES_MAX:
            return (self,)
        return list(self._pieces())

    def _pieces(self) -> Iterator[Batch]:
        first = 0
        begin = 0
        for index in range(1, self.count + 1):
            full = index - first == BLOCK_RECORDS_MAX
            if index == self.count or full or self.ends[index] - begin > BLOCK_PAYLOAD_BYTES_MAX:
                yield self._slice(first, index)
                first = index
                begin = self.ends[index - 1]

    def _slice(self, first: int, last: int) -> Batch:
        """Records [first, last) as a batch of their own; topics stay as they are."""
        begin = self.ends[first - 1] if first else 0
        ends = self.ends[first:last]
        if begin:
            ends = array("I", [end - begin for end in ends])
        payload = memoryview(self.payload)[begin : begin + ends[-1]]
        return Batch(
            last - first,
            payload,
            ends,
            self.topic_ids[first:last],
            self.topics,
            self.key_hashes[first:last],
            self.id_hashes[2 * first : 2 * last],
            self.drafts[first:last],
            tuple([part for run in self.numbered if (part := run.part(first, last)) is not None]),
        )


def numbered_by(scan: Scan) -> tuple[NumberedRun, ...]:
    """What a request says of the numbers of its events: nothing without a producer."""
    if not scan.producer:
        return ()
    return (NumberedRun(0, scan.count, scan.producer, scan.producer_epoch, scan.first_sequence),)


def _add_run(numbered: list[NumberedRun], run: NumberedRun, records: int) -> None:
    """Add a run of a batch that stands behind so many records; what goes on where the last one ends is one with it."""
    joined = run.behind(numbered[-1], records) if numbered else None
    if joined is not None:
        numbered[-1] = joined
    else:
        numbered.append(run.moved(records))


def _runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending indexes as half-open ranges."""
    first = previous = None
    for index in indexes:
        if previous is None or first is None:
            first = index
        elif index != previous + 1:
            yield first, previous + 1
            first = index
        previous = index
    if first is not None and previous is not None:
        yield first, previous + 1


def frame_head(size: int) -> bytes:
    """What stands before a body of `size` bytes: the field's tag and the length as a varint."""
    head = bytearray((FRAME_TAG,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
