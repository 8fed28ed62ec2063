"""Batches for journal tests: columns made one record at a time, as the wire scanner's oracle would."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from trunkline.core.records import Draft
from trunkline.server.journal.batch import Batch


@dataclass(frozen=True)
class FakeScan:
    """What the scanner says of a publish request."""

    count: int
    payload: bytes
    ends: array[int]
    topic_ids: array[int]
    topics: list[str]
    key_hashes: array[int]
    id_hashes: array[int]
    producer: str = ""
    producer_epoch: int = 0
    first_sequence: int = 0


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = b""
    while value >= 0x80:
        out += bytes([value % 0x80 + 0x80])
        value //= 0x80
    return out + bytes([value])


def scan_of(events: Sequence[tuple[str, bytes, bytes, bytes]]) -> FakeScan:
    """Columns of events given as (topic, key, id, body)."""
    topics = list(dict.fromkeys(topic for topic, *_ in events)) or ["none"]
    payload, ends = b"", array("I")
    keys, ids = array("Q"), array("Q")
    for _, key, event_id, body in events:
        payload += b"\x7a" + varint(len(body)) + body
        ends.append(len(payload))
        keys.append(struct.unpack("<Q", blake2b(key, digest_size=8).digest())[0] if key else 0)
        ids.extend(struct.unpack("<QQ", blake2b(event_id, digest_size=16).digest()))
    topic_ids = array("H", [topics.index(topic) for topic, *_ in events])
    return FakeScan(len(events), payload, ends, topic_ids, topics, keys, ids)


def events_batch(count: int, *, first: int = 0, size: int = 200, topics: int = 1, keyed: bool = False) -> Batch:
    """`count` events of `size` bytes; the body of the n-th says n."""
    return Batch.of_scan(
        scan_of(
            [
                (f"topic.t{n % topics}", b"k%d" % n if keyed else b"", b"id%d" % n, body_of(n, size))
                for n in range(first, first + count)
            ]
        )
    )


def body_of(number: int, size: int = 200) -> bytes:
    """A body that can be told from every other one."""
    return (b"%020d" % number).ljust(size, b".")[:size]


def records_batch(*keys: str, body: bytes = b"body", author: str = "tester") -> Batch:
    """One control record per key."""
    return Batch.of_records([Draft(topic="thing.changed", key=key, body=body, author=author) for key in keys])
