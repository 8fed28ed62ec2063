"""A journal read by its documentation alone: struct, crc32c and the protos of heads, nothing of server/journal.

What is read here is what ARCHITECTURE.md, block_layout.py and segment_layout.py say; the shipped reader has to agree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from golden.make import JOURNAL

from trunkline.api.journal.v1 import control_pb2, record_pb2
from trunkline.api.v1 import events_pb2
from trunkline.core.records import Version
from trunkline.server.journal.files.inspect import show
from trunkline.server.journal.files.real_disk import RealDisk

GOLDEN = sorted(path for path in Path(__file__).parent.glob(f"v*/{JOURNAL}"))
SEGMENT_HEADER = struct.Struct("<4sHHQQQQqI8xI")
BLOCK_HEADER = struct.Struct("<4sHHIIQQQQqIIIIIIII")
IDS, KEYS, TOPIC_IDS, HEADS, PLACES = 1, 2, 4, 8, 16
TRAILER_BYTES, DATA_END_AT = 96, 56


def numbers(data: bytes, at: int, code: str, count: int) -> tuple[tuple[int, ...], int]:
    """A column and where the next one begins."""
    column = struct.Struct(f"<{count}{code}")
    return column.unpack_from(data, at), at + column.size


def blocks(data: bytes) -> Iterator[list[dict[str, Any]]]:
    """The records of each block of a segment."""
    magic, version, _, segment_id, incarnation, first, covers_end, _, salt, crc = SEGMENT_HEADER.unpack_from(data)
    assert (magic, version, crc) == (b"TLSG", 1, google_crc32c.value(data[:60]))
    at, offset, end = 64, first, len(data)
    if data[-TRAILER_BYTES:].startswith(b"TLSE"):
        (end,) = struct.unpack_from("<Q", data, len(data) - TRAILER_BYTES + DATA_END_AT)
    while at < end:
        header = BLOCK_HEADER.unpack_from(data, at)
        assert header[:2] == (b"TLBK", 2 if header[2] & PLACES else 1)
        assert header[17] == google_crc32c.value(data[at : at + 84])
        assert (header[5], header[6], header[16]) == (segment_id, incarnation, salt)
        assert header[7] >= offset if covers_end else header[7] == offset
        assert header[8] <= max(offset, covers_end)
        yield records(data[at : at + header[11]], header)
        at, offset = at + header[11], header[7] + (header[15] if header[2] & PLACES else header[10])


def records(block: bytes, header: tuple[Any, ...]) -> list[dict[str, Any]]:
    _, _, flags, index_crc, payload_crc, _, _, first, _, time_ns, count, _, payload_size, topics_size, *_ = header
    common_size, heads_size = header[14], 0 if flags & PLACES else header[15]
    at = 88
    ids, at = numbers(block, at, "Q", 2 * count) if flags & IDS else ((0,) * 2 * count, at)
    keys, at = numbers(block, at, "Q", count) if flags & KEYS else ((0,) * count, at)
    ends, at = numbers(block, at, "I", count)
    head_ends, at = numbers(block, at, "I", count) if flags & HEADS else ((), at)
    topic_ids, at = numbers(block, at, "H", count) if flags & TOPIC_IDS else ((0,) * count, at)
    places, at = numbers(block, at, "H", count) if flags & PLACES else (tuple(range(count)), at)
    topics = block[at : at + topics_size].decode().split("\n")
    common = block[at + topics_size : at + topics_size + common_size]
    heads_at = at + topics_size + common_size
    payload_at = heads_at + heads_size
    assert index_crc == google_crc32c.value(block[88:payload_at])
    assert payload_crc == google_crc32c.value(block[payload_at:])
    assert len(block) % 8 == 0
    assert ends[-1] == payload_size
    found = []
    for index, (begin, end) in enumerate(pairwise((0, *ends))):
        head = record_pb2.RecordHead()
        if flags & HEADS:
            own_begin = head_ends[index - 1] if index else 0
            head.MergeFromString(common + block[heads_at + own_begin : heads_at + head_ends[index]])
        frame = block[payload_at + begin : payload_at + end]
        found.append(
            {
                "offset": first + places[index],
                "time_ns": time_ns,
                "topic": topics[topic_ids[index]],
                "body": events_pb2.Delivery.FromString(frame).event.SerializeToString() if not flags & HEADS else None,
                "frame": frame,
                "head": head,
                "hashes": (*ids[2 * index : 2 * index + 2], keys[index]),
            }
        )
    return found


def by_hand(folder: Path) -> list[dict[str, Any]]:
    return [record for path in sorted(folder.glob("*.seg")) for block in blocks(path.read_bytes()) for record in block]


@pytest.mark.parametrize("journal", GOLDEN, ids=lambda path: path.parent.name)
@pytest.mark.parametrize(
    "stream", ["trunkline.control", "trunkline.subscriptions", "shop/events", "shop/audit", "shop/prices"]
)
async def test_the_shipped_reader_reads_what_the_pages_say(journal: Path, stream: str) -> None:
    folder = journal / "streams" / stream.replace("/", "%2F")
    if not folder.exists():
        pytest.skip("older than this stream")
    found = by_hand(folder)
    shown = [record async for record in show(RealDisk(), str(journal), stream, from_offset=0, count=1_000)]
    assert len(found) == len(shown) > 0
    for mine, record in zip(found, shown, strict=True):
        head = mine["head"]
        assert (mine["offset"], mine["time_ns"], mine["topic"]) == (record.offset, record.time_ns, record.topic)
        assert mine["frame"].endswith(record.body)
        assert (head.key, head.id, head.namespace, head.author, head.reason, head.traceparent) == (
            record.key, record.id, record.namespace, record.author, record.reason, record.traceparent,
        )  # fmt: skip
        assert Version(head.version.writer, head.version.epoch, head.version.sequence) == record.version
        assert head.HasField("expects") == (record.expects is not None)


def test_a_compacted_stream_has_gaps_within_blocks_and_between_them() -> None:
    """Pears, plums and apples were there before; the key that is empty is none, and stays."""
    found = by_hand(GOLDEN[-1] / "streams/shop%2Fprices")
    assert [record["offset"] for record in found] == [2, 4, 6, 8, 9, 10, 11]


def test_events_lie_as_they_are_delivered() -> None:
    for record in by_hand(GOLDEN[-1] / "streams/shop%2Fevents"):
        event = events_pb2.Delivery.FromString(record["frame"]).event
        assert (event.type, event.spec_version) == (record["topic"], "1.0")
        assert all(record["hashes"][:2])


def test_control_tells_its_story() -> None:
    """Bodies by topic, as control.proto lists them."""
    found = by_hand(GOLDEN[-1] / "streams/trunkline.control")
    assert [record["topic"] for record in found].count("node.started") == 2
    registered = next(record for record in found if record["topic"] == "instance.registered")
    body = control_pb2.InstanceRegistered.FromString(registered["frame"][-_length(registered["frame"]) :])
    assert registered["head"].key == f"instance/shop/{body.instance.service}/{body.instance.id}"
    assert len(body.secret_hash) == 32
    assert registered["head"].version.epoch == 1


def _length(frame: bytes) -> int:
    """Of the body: a varint behind the tag 7A."""
    assert frame[0] == 0x7A
    size = shift = 0
    for byte in frame[1:]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return size
    raise AssertionError("the length does not end")
