"""Blocks: records that are in a log. What was read is views into one buffer; nothing is parsed before it is asked for."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple, TypeAlias

import google_crc32c

from trunkline.core.collector import unseen
from trunkline.core.errors import JournalCorrupt
from trunkline.core.heads import read_record, write_heads
from trunkline.core.records import Draft, Record
from trunkline.core.sequences import NumberedRun

from .batch import Batch as Batch
from .block_layout import (
    FORMAT,
    FORMAT_WITH_GAPS,
    HEADER_BYTES,
    HEADS,
    IDS,
    KEYS,
    MAGIC,
    PLACES,
    TOPIC_IDS,
    BlockDamaged,
    Header,
    pack_header,
    padded,
)
from .numbered import read_numbered, write_numbered

assert sys.byteorder == "little", "columns are written as they lie in memory"

Column: TypeAlias = "array[int] | memoryview"
"""Integers: 'Q', 'I' or 'H'. Of what was appended here they are arrays: a view costs 300 bytes more, and Python's collector
two looks, for as long as the block is kept."""
Code = Literal["Q", "I", "H"]
SHARED_ZEROS_MAX = 256
"""A column of no more zeros is the same for all blocks."""
_WIDTH = {"Q": 8, "I": 4, "H": 2}


class Block:
    """Records of one time that follow one another; where compaction has been, with gaps. What is in it must not be changed."""

    __slots__ = (
        "_drafts",
        "_head_ends",
        "_heads",
        "_numbered",
        "_offsets",
        "_topics",
        "base_offset",
        "count",
        "ends",
        "id_hashes",
        "incarnation",
        "key_hashes",
        "payload",
        "places",
        "size",
        "span",
        "time_ns",
        "topic_ids",
    )

    base_offset: int
    """Position of the first record."""
    count: int
    span: int
    """Offsets from the first record's to behind the last one's: `count` where there are no gaps."""
    places: Column | None
    """'H': how far each record lies from the first; None where there are no gaps."""
    time_ns: int
    """Nanoseconds since the epoch, for all its records."""
    incarnation: int
    ends: Column
    """'I': where each frame ends in `payload`."""
    topic_ids: Column
    """'H': index of each record's topic in `topics`."""
    key_hashes: Column
    """'Q': 0 for no key."""
    id_hashes: Column
    """'Q': two per record, zeros where records have no ids."""
    payload: bytes | memoryview
    size: int
    """Bytes that this takes in memory, about."""

    def __init__(self, base_offset: int, count: int, time_ns: int, incarnation: int) -> None:
        self.base_offset = base_offset
        self.count = count
        self.span = count
        self.places = None
        self.time_ns = time_ns
        self.incarnation = incarnation
        self._numbered: tuple[NumberedRun, ...] | bytes = ()
        self._offsets: Sequence[int] | None = None
        self._drafts: Sequence[Draft] = ()
        self._topics: tuple[str, ...] | bytes = ()
        self._heads: tuple[bytes, memoryview] | None = None
        self._head_ends: Column | None = None

    @staticmethod
    def of_batch(batch: Batch, *, base_offset: int, time_ns: int, incarnation: int) -> Block:
        """The block that a batch becomes, without a detour over its bytes."""
        block = Block(base_offset, batch.count, time_ns, incarnation)
        block.payload = batch.payload
        block.ends = batch.ends
        block.topic_ids = batch.topic_ids
        block.key_hashes = batch.key_hashes or zeros("Q", batch.count)
        block.id_hashes = batch.id_hashes or zeros("Q", 2 * batch.count)
        block._numbered = batch.numbered
        block._topics = batch.topics
        block._drafts = batch.drafts
        block.size = batch.size
        if batch.places is not None:
            block.places, block.span = batch.places, batch.places[-1] + 1
        return unseen(block)

    @property
    def end_offset(self) -> int:
        """The position behind the last record."""
        return self.base_offset + self.span

    @property
    def offsets(self) -> Sequence[int]:
        """The position of each record, ascending: a range where there are no gaps."""
        if self.places is None:
            return range(self.base_offset, self.end_offset)
        if self._offsets is None:
            base = self.base_offset
            self._offsets = array("Q", [base + place for place in self.places])
        return self._offsets

    def index_of(self, offset: int) -> int | None:
        """Which record stands at an offset; None if none does."""
        place = offset - self.base_offset
        if self.places is None:
            return place if 0 <= place < self.count else None
        index = bisect_left(self.places, place)
        return index if index < self.count and self.places[index] == place else None

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that `topic_ids` refers to; some may be of no record."""
        if isinstance(self._topics, bytes):
            try:
                self._topics = tuple(self._topics.decode().split("\n"))
            except UnicodeDecodeError as error:
                raise self._corrupt(error) from error
        return self._topics

    @property
    def numbered(self) -> tuple[NumberedRun, ...]:
        """Which of its events their producers numbered, in order."""
        if isinstance(self._numbered, bytes):
            try:
                self._numbered = read_numbered(self._numbered, self.count)
            except ValueError as error:
                raise self._corrupt(error) from error
        return self._numbered

    def frame(self, index: int) -> memoryview:
        """Tag, length and body of one record."""
        return memoryview(self.payload)[self.ends[index - 1] if index else 0 : self.ends[index]]

    def body(self, index: int) -> memoryview:
        """The body of one record."""
        frame = self.frame(index)
        at = 1
        while at < len(frame) and frame[at] & 0x80:
            at += 1
        return frame[at + 1 :]

    def topic(self, index: int) -> str:
        """The topic of one record."""
        try:
            return self.topics[self.topic_ids[index]]
        except IndexError as error:
            raise self._corrupt(error) from error

    def record(self, index: int) -> Record:
        """One record with its head. Heads are kept of control records and checkpoints; an event stands in its body."""
        offset = self.offsets[index]
        if self._drafts:
            return self._drafts[index].record(offset, self.time_ns)
        topic, body = self.topic(index), bytes(self.body(index))
        if self._heads is None or self._head_ends is None:
            return Record(offset=offset, time_ns=self.time_ns, topic=topic, body=body)
        common, own = self._heads
        begin = self._head_ends[index - 1] if index else 0
        try:
            return read_record(common + own[begin : self._head_ends[index]], offset, self.time_ns, topic, body)
        except ValueError as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> JournalCorrupt:
        """The checksums are right and the content is not: no writer of ours made this."""
        return JournalCorrupt(f"block of offsets {self.base_offset} to {self.end_offset - 1}: {error}")


def zeros(code: Code, count: int) -> Column:
    """A column of zeros: 'Q', 'I' or 'H'."""
    return _few_zeros(code, count) if count <= SHARED_ZEROS_MAX else _zeros(code, count)


@cache
def _few_zeros(code: Code, count: int) -> memoryview:
    return _zeros(code, count)


def _zeros(code: Code, count: int) -> memoryview:
    return memoryview(bytes(_WIDTH[code] * count)).cast(code)


class Encoded(NamedTuple):
    """A block as it is written."""

    header: Header
    data: bytes


def encode_block(
    batch: Batch,
    *,
    segment_id: int,
    salt: int,
    incarnation: int,
    base_offset: int,
    durable_end: int,
    time_ns: int,
) -> Encoded:
    """A batch as a block's bytes. It must fit: see Batch.split."""
    flags, columns = _encode_columns(batch)
    common, heads = b"", b""
    if batch.drafts:
        common, own = write_heads(list(batch.drafts))
        heads = b"".join(own)
        flags |= HEADS
        columns.insert(-1 if flags & TOPIC_IDS else len(columns), array("I", accumulate(map(len, own))).tobytes())
    elif batch.numbered:
        common = write_numbered(batch.numbered)
    span = 0 if batch.places is None else batch.places[-1] + 1
    if batch.places is not None:
        assert not batch.drafts, "blocks with gaps have no heads"
        flags |= PLACES
        columns.append(batch.places.tobytes())
    topics = "\n".join(batch.topics).encode()
    index = b"".join([*columns, topics, common, heads])
    payload = bytes(batch.payload)  # no copy when it is bytes already; the checksum takes nothing else
    size = padded(HEADER_BYTES + len(index) + len(payload))
    padding = bytes(size - HEADER_BYTES - len(index) - len(payload))
    header = Header(
        magic=MAGIC,
        format=FORMAT_WITH_GAPS if span else FORMAT,
        flags=flags,
        index_crc=google_crc32c.value(index),
        payload_crc=google_crc32c.extend(google_crc32c.value(payload), padding),
        segment_id=segment_id,
        incarnation=incarnation,
        base_offset=base_offset,
        durable_end=durable_end,
        time_ns=time_ns,
        records=batch.count,
        size=size,
        payload_size=len(payload),
        topics_size=len(topics),
        common_size=len(common),
        heads_size=span or len(heads),
        salt=salt,
    )
    return Encoded(header, b"".join([pack_header(header), index, payload, padding]))


def _encode_columns(batch: Batch) -> tuple[int, list[bytes]]:
    """The flags and the columns in their order; those that are all zero are left out."""
    flags = 0
    columns: list[bytes] = []
    for flag, column in (
        (IDS, batch.id_hashes),
        (KEYS, batch.key_hashes),
        (0, batch.ends),
        (TOPIC_IDS, batch.topic_ids),
    ):
        data = column.tobytes()
        if not flag or data.count(0) != len(data):
            flags |= flag
            columns.append(data)
    return flags, columns


def parse_block(data: bytes, at: int, header: Header) -> Block:
    """The block at `at`, whose header is `header`. BlockDamaged when it is cut short or a checksum is wrong."""
    if len(data) - at < header.size:
        raise BlockDamaged(f"{len(data) - at} bytes of {header.size}")
    view = memoryview(data)
    index_at = at + HEADER_BYTES
    payload_at = index_at + header.index_size
    if google_crc32c.value(data[payload_at : at + header.size]) != header.payload_crc:
        raise BlockDamaged("the payload's checksum is wrong")
    block = parse_index(data, at, header)
    block.payload = view[payload_at : payload_at + header.payload_size]
    if block.ends[-1] != header.payload_size:
        raise BlockDamaged("the frames do not fill the payload")
    return block


def parse_ids(data: bytes, at: int, header: Header) -> tuple[Column, tuple[NumberedRun, ...]]:
    """The id hashes of the block at `at`, and what producers numbered in it.

    BlockDamaged when its index is cut short or has another checksum.
    """
    index = _checked_index(data, at, header)
    numbered: tuple[NumberedRun, ...] = ()
    if header.common_size and not header.flags & HEADS:
        common_at = header.columns_size + header.topics_size
        try:
            numbered = read_numbered(index[common_at : common_at + header.common_size], header.records)
        except ValueError as error:
            raise BlockDamaged(f"what producers numbered: {error}") from error
    if not header.flags & IDS:
        return zeros("Q", 2 * header.records), numbered
    return memoryview(index)[: 2 * header.records * _WIDTH["Q"]].cast("Q"), numbered


def _checked_index(data: bytes, at: int, header: Header) -> bytes:
    index_at, size = at + HEADER_BYTES, header.index_size
    index = data[index_at : index_at + size]
    if len(index) != size or google_crc32c.value(index) != header.index_crc:
        raise BlockDamaged("the index is cut short or its checksum is wrong")
    return index


def parse_index(data: bytes, at: int, header: Header) -> Block:
    """The block at `at` without its payload. BlockDamaged when its index is cut short or has another checksum."""
    index = _checked_index(data, at, header)
    block = Block(header.base_offset, header.records, header.time_ns, header.incarnation)
    view = memoryview(index)
    position = 0

    def column(flag: int, code: Code, entries: int) -> Column:
        nonlocal position
        if flag and not header.flags & flag:
            return zeros(code, entries)
        begin, position = position, position + entries * _WIDTH[code]
        return view[begin:position].cast(code)

    block.id_hashes = column(IDS, "Q", 2 * header.records)
    block.key_hashes = column(KEYS, "Q", header.records)
    block.ends = column(0, "I", header.records)
    head_ends = column(HEADS, "I", header.records)
    block.topic_ids = column(TOPIC_IDS, "H", header.records)
    if header.flags & PLACES:
        block.places, block.span = column(PLACES, "H", header.records), header.span
        if block.places[0] != 0 or block.places[-1] != header.span - 1:
            raise BlockDamaged("the records do not span what the header says")
    common_at = position + header.topics_size
    own_at = common_at + header.common_size
    block._topics = index[position:common_at]
    if header.flags & HEADS:
        block._heads = index[common_at:own_at], view[own_at:]
        block._head_ends = head_ends
    elif common_at < own_at:
        block._numbered = index[common_at:own_at]
    block.payload = memoryview(b"")
    block.size = header.size
    return block
