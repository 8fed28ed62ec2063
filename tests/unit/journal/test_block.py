"""Blocks: what goes in comes out, and nothing else is taken for a block."""

from __future__ import annotations

import struct
from array import array
from dataclasses import replace
from typing import Any

import google_crc32c
import pytest

from reference.journal_batches import FakeScan, body_of, events_batch, scan_of
from trunkline.api.journal.v1 import record_pb2
from trunkline.core.errors import InvalidArgument, JournalCorrupt, JournalTooNew
from trunkline.core.records import Draft, Version
from trunkline.core.sequences import NumberedRun
from trunkline.server.journal.batch import (
    BLOCK_PAYLOAD_BYTES_MAX,
    BLOCK_RECORDS_MAX,
    BODY_BYTES_MAX,
    Batch,
    frame_head,
)
from trunkline.server.journal.block import Block, encode_block, parse_block, parse_ids, parse_index
from trunkline.server.journal.block_layout import HEADER_BYTES, BlockDamaged, Header, pack_header, parse_header
from trunkline.server.journal.key_compaction import gather
from trunkline.server.journal.log import Ids
from trunkline.server.journal.numbered import not_numbered

DRAFTS = [
    Draft(topic="a.b", body=b"one", key="k1", id="r1", namespace="ns", schema=3, version=Version(7, 2, 1), author="me"),
    Draft(
        topic="a.c",
        body=b"",
        key="k2",
        id="r1",
        namespace="ns",
        schema=3,
        version=Version(7, 2, 2),
        expects=Version(0, 0, 0),
        author="me",
        reason="why",
        traceparent="00-1-2-01",
    ),
    Draft(topic="a.b", body=b"x" * 300, namespace="other", version=Version(8, 2, 3), expects=Version(1, 2, 3)),
]


def encoded(batch: Batch, **overrides: int) -> bytes:
    fields = {
        "segment_id": 9,
        "salt": 3,
        "incarnation": 5,
        "base_offset": 1_000,
        "durable_end": 990,
        "time_ns": 77,
    } | overrides
    return encode_block(batch, **fields).data


def parsed(data: bytes) -> Block:
    return parse_block(data, 0, parse_header(data))


def assert_same(block: Block, batch: Batch) -> None:
    assert block.count == batch.count
    assert bytes(block.payload) == bytes(batch.payload)
    assert list(block.ends) == list(batch.ends)
    assert [block.topic(i) for i in range(block.count)] == [batch.topics[t] for t in batch.topic_ids]
    assert list(block.key_hashes) == (list(batch.key_hashes) or [0] * batch.count)
    assert list(block.id_hashes) == (list(batch.id_hashes) or [0] * 2 * batch.count)


@pytest.mark.parametrize("topics", [1, 3])
@pytest.mark.parametrize("keyed", [False, True])
def test_events_come_back_column_by_column(topics: int, keyed: bool) -> None:
    batch = events_batch(10, topics=topics, keyed=keyed)
    block = parsed(encoded(batch))
    assert_same(block, batch)
    assert (block.base_offset, block.end_offset, block.time_ns, block.incarnation) == (1_000, 1_010, 77, 5)
    assert bytes(block.body(3)) == body_of(3)
    assert bytes(block.frame(3)) == frame_head(200) + body_of(3)
    assert block.record(3).topic == f"topic.t{3 % topics}"
    assert block.record(3).body == body_of(3)


def test_a_block_made_of_a_batch_says_the_same_as_one_that_was_read() -> None:
    batch = Batch.of_records(DRAFTS)
    made = Block.of_batch(batch, base_offset=1_000, time_ns=77, incarnation=5)
    read = parsed(encoded(batch))
    assert [made.record(i) for i in range(3)] == [read.record(i) for i in range(3)]
    assert_same(made, batch)
    assert_same(read, batch)


def test_heads_come_back_whole() -> None:
    block = parsed(encoded(Batch.of_records(DRAFTS)))
    for index, draft in enumerate(DRAFTS):
        assert block.record(index) == draft.record(1_000 + index, 77)


@pytest.mark.parametrize("count", [1, 2, 200])
def test_what_heads_have_in_common_stands_once(count: int) -> None:
    drafts = [
        Draft(topic="t", body=b"", key=f"k{n}", author="a" * 100, version=Version(2**63, 9, n)) for n in range(count)
    ]
    data = encoded(Batch.of_records(drafts))
    assert data.count(b"a" * 100) == 1
    assert [parsed(data).record(n).version for n in range(count)] == [draft.version for draft in drafts]


def test_overhead_of_200_byte_events_in_thousands_is_under_a_fifth() -> None:
    serialized = 1_000 * 200
    assert len(encoded(events_batch(1_000, topics=4, keyed=True))) / serialized <= 1.2


def test_the_index_is_read_without_the_payload() -> None:
    batch = events_batch(50, keyed=True)
    data = encoded(batch)
    header = parse_header(data)
    cut = data[: HEADER_BYTES + header.index_size]
    assert list(parse_ids(cut, 0, header)[0]) == list(batch.id_hashes)
    with pytest.raises(BlockDamaged):
        parse_ids(cut[:-1], 0, header)


def numbered_batch(count: int, *, producer: str = "p", epoch: int = 2, first: int = 1, size: int = 20) -> Batch:
    """Events that a producer numbered, in one request."""
    return replace(events_batch(count, size=size), numbered=(NumberedRun(0, count, producer, epoch, first),))


def test_what_producers_numbered_is_told_by_the_block_and_by_its_index_alone() -> None:
    batch = Batch.merge(
        [
            events_batch(2, size=20),
            numbered_batch(3, first=7),
            numbered_batch(2, first=10),
            numbered_batch(1, first=13),
            numbered_batch(1, producer="q" * 128, epoch=2**64 - 1, first=2**62),
            events_batch(1, size=20),
        ]
    )
    expected = (
        NumberedRun(2, 5, "p", 2, 7),
        NumberedRun(7, 1, "p", 2, 13),
        NumberedRun(8, 1, "q" * 128, 2**64 - 1, 2**62),
    )
    data = encoded(batch)
    assert parsed(data).numbered == expected
    assert Block.of_batch(batch, base_offset=0, time_ns=0, incarnation=0).numbered == expected
    header = parse_header(data)
    assert parse_ids(data[: HEADER_BYTES + header.index_size], 0, header) == (batch.id_hashes, expected)
    assert list(not_numbered(expected, batch.count)) == [(0, 2), (9, 10)]
    assert_same(parsed(data), batch)


def test_numbers_lie_where_the_layout_says() -> None:
    data = encoded(numbered_batch(2, producer="p", epoch=3, first=9))
    topics_size, common_size, heads_size = struct.unpack_from("<III", data, 68)
    assert heads_size == 0
    at = 88 + 2 * 16 + 2 * 4 + topics_size
    [run] = record_pb2.RecordHead.FromString(data[at : at + common_size]).numbered
    assert (run.first_record, run.count, run.producer, run.epoch, run.first_sequence) == (0, 2, "p", 3, 9)


def test_numbers_cost_a_block_of_events_some_fifty_bytes() -> None:
    plain, numbered = encoded(events_batch(1_000)), encoded(numbered_batch(1_000, producer="orders-7", size=200))
    assert 0 < len(numbered) - len(plain) <= 48


def test_what_is_split_or_left_out_keeps_its_numbers() -> None:
    scan = replace(scan_of([("t", b"", b"%d" % n, b"x") for n in range(10)]), producer="p", first_sequence=5)
    assert Batch.of_scan(scan).numbered == (NumberedRun(0, 10, "p", 0, 5),)
    assert Batch.of_scan(scan, range(4, 10)).numbered == (NumberedRun(0, 6, "p", 0, 9),)
    large = replace(events_batch(3, size=BODY_BYTES_MAX), numbered=(NumberedRun(0, 3, "p", 1, 4),))
    parts = list(Batch.merge([large] * 5).split())
    assert [part.count for part in parts] == [7, 7, 1]
    assert [run for part in parts for run in part.numbered] == [
        *(NumberedRun(0, 3, "p", 1, 4), NumberedRun(3, 3, "p", 1, 4), NumberedRun(6, 1, "p", 1, 4)),
        *(NumberedRun(0, 2, "p", 1, 5), NumberedRun(2, 3, "p", 1, 4), NumberedRun(5, 2, "p", 1, 4)),
        NumberedRun(0, 1, "p", 1, 6),
    ]


@pytest.mark.parametrize(
    "numbered",
    [
        (NumberedRun(0, 4, "p", 1, 1),),
        (NumberedRun(1, 0, "p", 1, 1),),
        (NumberedRun(0, 2, "p", 1, 1), NumberedRun(1, 2, "p", 1, 3)),
    ],
)
def test_numbers_that_no_writer_made_are_damage(numbered: tuple[NumberedRun, ...]) -> None:
    data = encoded(replace(events_batch(3, size=20), numbered=numbered))
    with pytest.raises(JournalCorrupt):
        _ = parsed(data).numbered
    with pytest.raises(BlockDamaged):
        parse_ids(data, 0, parse_header(data))


@pytest.mark.parametrize(
    "batch", [events_batch(3, topics=2, keyed=True, size=20), Batch.of_records(DRAFTS), numbered_batch(3)]
)
def test_every_flipped_bit_is_seen(batch: Batch) -> None:
    data = encoded(batch)
    for position in range(len(data)):
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(BlockDamaged):
                parsed(bytes(damaged))


def test_every_cut_is_seen() -> None:
    data = encoded(events_batch(3, size=20))
    for size in range(len(data)):
        with pytest.raises(BlockDamaged):
            parsed(data[:size])


def reheadered(data: bytes, **fields: Any) -> bytes:
    header = parse_header(data)
    return pack_header(header._replace(**fields)) + data[HEADER_BYTES:]


@pytest.mark.parametrize(
    "fields",
    [{"records": 0}, {"records": 4}, {"size": 8}, {"topics_size": 2**32 - 1}, {"flags": 16}, {"format": 0}],
)
def test_a_header_that_contradicts_itself_is_refused_although_its_checksum_is_right(fields: dict[str, int]) -> None:
    data = encoded(events_batch(3, size=20))
    with pytest.raises(BlockDamaged):
        parsed(reheadered(data, **fields))


def test_a_newer_format_is_refused_in_one_line() -> None:
    with pytest.raises(JournalTooNew, match="format 3; this program reads up to 2"):
        parse_header(reheadered(encoded(events_batch(1)), format=3))


def thinned(*indexes: int, topics: int = 3) -> tuple[Block, int, Batch]:
    """A block of 300 keyed events, and what stays of it if these do."""
    whole = parsed(encoded(events_batch(300, topics=topics, keyed=True), base_offset=1_000))
    return whole, *gather(whole, indexes)


def test_a_block_with_gaps_comes_back_and_says_where_its_records_stand() -> None:
    whole, base, batch = thinned(5, 6, 9, 299)
    data = encoded(batch, base_offset=base)
    header, block = parse_header(data), parsed(data)
    assert (header.format, header.span, header.records, header.end_offset) == (2, 295, 4, 1_300)
    for one in (block, Block.of_batch(batch, base_offset=base, time_ns=77, incarnation=5)):
        assert (one.base_offset, one.end_offset, one.count) == (1_005, 1_300, 4)
        assert list(one.offsets) == [1_005, 1_006, 1_009, 1_299]
        assert [one.index_of(offset) for offset in (1_004, 1_005, 1_007, 1_009, 1_299, 1_300)] == [
            None,
            0,
            None,
            2,
            3,
            None,
        ]
        assert [one.record(i) for i in range(4)] == [whole.record(i) for i in (5, 6, 9, 299)]
        assert list(one.key_hashes) == [whole.key_hashes[i] for i in (5, 6, 9, 299)]
        runs = [(h.base_offset, len(h.id_hashes) // 2) for h in Ids.of_block(one)]
        assert runs == [(1_005, 2), (1_009, 1), (1_299, 1)]
        assert [i for h in Ids.of_block(one) for i in h.id_hashes] == list(one.id_hashes)
    cut = data[: HEADER_BYTES + header.index_size]
    assert list(parse_index(cut, 0, header).offsets) == list(block.offsets)


def test_what_stays_without_a_gap_is_a_block_like_any_other_and_topics_go_that_nobody_has() -> None:
    _, base, batch = thinned(3, 4, 5, topics=100)
    assert (base, batch.places, len(batch.topics)) == (1_003, None, 3)
    assert parse_header(encoded(batch, base_offset=base)).format == 1


def test_every_flipped_bit_of_a_block_with_gaps_is_seen() -> None:
    _, base, batch = thinned(1, 7)
    data = encoded(batch, base_offset=base)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(BlockDamaged):
            parsed(bytes(damaged))


@pytest.mark.parametrize(
    "fields", [{"heads_size": 1}, {"heads_size": 65_537}, {"format": 1}, {"flags": 2}, {"flags": 2 | 8 | 16}]
)
def test_a_header_with_gaps_that_no_writer_would_make(fields: dict[str, int]) -> None:
    _, base, batch = thinned(1, 7)
    with pytest.raises(BlockDamaged):
        parse_header(reheadered(encoded(batch, base_offset=base), **fields))


def test_places_that_are_not_what_the_header_says() -> None:
    _, base, batch = thinned(1, 7)
    with pytest.raises(BlockDamaged, match="span"):
        parsed(reheadered(encoded(batch, base_offset=base), heads_size=8))


def forged(data: bytes, at: int, value: bytes) -> bytes:
    """The block with other index bytes and right checksums."""
    header = parse_header(data)
    index = bytearray(data[HEADER_BYTES : HEADER_BYTES + header.index_size])
    index[at : at + len(value)] = value
    changed: Header = header._replace(index_crc=google_crc32c.value(bytes(index)))
    return pack_header(changed) + bytes(index) + data[HEADER_BYTES + header.index_size :]


def test_content_that_no_writer_made_is_corrupt_and_not_a_crash() -> None:
    data = encoded(events_batch(2, topics=2, size=20))
    topic_ids_at = 2 * 16 + 2 * 4
    with pytest.raises(JournalCorrupt):
        parsed(forged(data, topic_ids_at, b"\xff\xff")).topic(0)
    with pytest.raises(JournalCorrupt):
        parsed(forged(data, topic_ids_at + 4, b"\xff")).topic(0)
    with pytest.raises(BlockDamaged):
        parsed(forged(data, 2 * 16 + 4, b"\xff\xff\xff\xff"))
    heads = encoded(Batch.of_records(DRAFTS[:1]))
    header = parse_header(heads)
    with pytest.raises(JournalCorrupt):
        parsed(forged(heads, header.index_size - header.common_size - header.heads_size, b"\xff" * 4)).record(0)


def test_duplicates_are_left_out_of_a_scan() -> None:
    scan: FakeScan = scan_of([(f"t{n % 3}", b"k", b"%d" % n, body_of(n, 5 + n)) for n in range(10)])
    keep = [0, 1, 2, 5, 7, 8]
    batch = Batch.of_scan(scan, keep)
    block = Block.of_batch(batch, base_offset=0, time_ns=0, incarnation=0)
    assert [bytes(block.body(i)) for i in range(block.count)] == [body_of(n, 5 + n) for n in keep]
    assert [block.topic(i) for i in range(block.count)] == [f"t{n % 3}" for n in keep]
    assert list(block.id_hashes) == [h for n in keep for h in scan.id_hashes[2 * n : 2 * n + 2]]
    assert Batch.of_scan(scan, []).count == 0
    assert Batch.of_scan(scan, list(range(10))).payload is scan.payload


def test_too_many_records_are_split() -> None:
    body = b"\x7a\x00"
    count = BLOCK_RECORDS_MAX + 5
    scan = scan_of([("t", b"", b"", b"")])
    many = FakeScan(
        count,
        body * count,
        array("I", range(2, 2 * count + 1, 2)),
        scan.topic_ids * count,
        scan.topics,
        scan.key_hashes * count,
        scan.id_hashes * count,
    )
    parts = list(Batch.of_scan(many).split())
    assert [part.count for part in parts] == [BLOCK_RECORDS_MAX, 5]
    assert [list(part.ends)[-1] for part in parts] == [2 * BLOCK_RECORDS_MAX, 10]
    for part in parts:
        assert_same(parsed(encoded(part)), part)


def test_too_many_bytes_are_split_and_nothing_is_lost() -> None:
    drafts = [Draft(topic="t", key=str(n), body=bytes([n]) * BODY_BYTES_MAX) for n in range(20)]
    parts = list(Batch.of_records(drafts).split())
    assert len(parts) == 3
    assert all(len(part.payload) <= BLOCK_PAYLOAD_BYTES_MAX for part in parts)
    records = [block.record(i) for block in map(parsed, map(encoded, parts)) for i in range(block.count)]
    assert [(record.key, record.body) for record in records] == [(draft.key, draft.body) for draft in drafts]


def test_bodies_and_topics_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="body"):
        Batch.of_records([Draft(topic="t", body=bytes(BODY_BYTES_MAX + 1))])
    with pytest.raises(InvalidArgument, match="topic"):
        Batch.of_records([Draft(topic="t\nu", body=b"")])
