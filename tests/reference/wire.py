"""The scanner's oracle: protobuf's own parser, the contract's rules, and a slow search for what stands twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import xxhash
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from reference import fanout
from trunkline.api.rules import checker
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument

NAME = re.compile(r"[a-z0-9]{1,20}", re.ASCII)
HIGH_SEED = 0x9E3779B97F4A7C15

Field = tuple[int, int, bytes]
"""Number, wire type, the value's bytes (of a group or a number: as they stand)."""


class Refused(Exception):
    """The request must not be taken."""


@dataclass
class Scan:
    """What the scanner must find, in plain lists."""

    namespace: str
    stream: str
    require_sync: int
    sequence: int
    expected_offset: int | None
    producer: str
    producer_epoch: int
    first_sequence: int
    bodies: list[bytes]
    topic_ids: list[int] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    key_hashes: list[int] = field(default_factory=list)
    id_hashes: list[int] = field(default_factory=list)
    identities: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def frames(self) -> list[bytes]:
        return [b"\x7a" + varint(len(body)) + body for body in self.bodies]


def varint(value: int) -> bytes:
    """The shortest encoding."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message that protobuf accepted."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        end, value = _value(data, at, tag)
        yield tag >> 3, tag & 7, value
        at = end


def scan_publish(data: bytes, *, stream_request: bool) -> Scan:
    """What `trunkline.core.wire.scan_publish` must give. Raises Refused."""
    kind = events_pb2.PublishStreamRequest if stream_request else events_pb2.PublishRequest
    try:
        request = kind.FromString(data)
    except DecodeError as error:
        raise Refused(str(error)) from None
    refuse_repetition(data, kind.DESCRIPTOR)
    try:
        checker(kind.DESCRIPTOR)(request)
    except InvalidArgument as error:
        raise Refused(str(error)) from None
    if request.producer:
        _require(request.first_sequence >= 1, "first_sequence")
    else:
        _require(not request.producer_epoch and not request.first_sequence, "producer")
    scan = Scan(
        namespace=request.namespace,
        stream=request.stream or "events",
        require_sync=request.require_sync,
        sequence=request.sequence if isinstance(request, events_pb2.PublishStreamRequest) else 0,
        expected_offset=request.expected_offset if request.HasField("expected_offset") else None,
        producer=request.producer,
        producer_epoch=request.producer_epoch,
        first_sequence=request.first_sequence,
        bodies=[value for number, wire_type, value in fields(data) if (number, wire_type) == (15, 2)],
    )
    for event, body in zip(request.events, scan.bodies, strict=True):
        add_event(scan, event, body)
    return scan


def refuse_repetition(data: bytes, descriptor: Descriptor) -> None:
    """Search all depths for what two readers could take differently."""
    seen: Counter[str] = Counter()
    names: set[bytes] = set()
    for number, wire_type, value in fields(data):
        known = descriptor.fields_by_number.get(number)
        if known is None or wire_type != _wire_type(known):
            if descriptor.GetOptions().map_entry:
                raise Refused(f"a map entry has field {number}")
            continue
        if not known.is_repeated:
            seen[known.containing_oneof.name if known.containing_oneof else known.name] += 1
        if known.message_type is None:
            continue
        refuse_repetition(value, known.message_type)
        if known.message_type.GetOptions().map_entry:
            name = next((v for n, _, v in fields(value) if n == 1), b"")
            if name in names:
                raise Refused(f"attribute {name!r} twice")
            names.add(name)
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        raise Refused(f"{twice} twice")


def add_event(scan: Scan, event: events_pb2.CloudEvent, body: bytes) -> None:
    """The rules that the contract cannot say field by field, and the event's place in the columns."""
    _require(len(body) <= 1 << 20, "event")
    _require(event.spec_version == "1.0", "spec_version")
    _require(all(NAME.fullmatch(name) for name in event.attributes), "attributes")
    topic = attribute(event, "topic")
    topic = event.type if topic is None else topic
    _require(fanout.topic_is_valid(topic), "topic")
    key = attribute(event, "partitionkey")
    _require(key is None or 1 <= len(key.encode()) <= 256, "partitionkey")
    if topic not in scan.topics:
        scan.topics.append(topic)
    scan.topic_ids.append(scan.topics.index(topic))
    scan.key_hashes.append(0 if key is None else xxhash.xxh64_intdigest(key.encode()))
    source, id = event.source.encode(), event.id.encode()
    for seed in (0, HIGH_SEED):
        scan.id_hashes.append(xxhash.xxh64_intdigest(id, xxhash.xxh64_intdigest(source, seed)))
    scan.identities.append((source, id))


def attribute(event: events_pb2.CloudEvent, name: str) -> str | None:
    """A string attribute; None when it is not there."""
    if name not in event.attributes:
        return None
    value = event.attributes[name]
    _require(value.WhichOneof("attr") == "ce_string", name)
    return value.ce_string


def _require(condition: object, what: str) -> None:
    if not condition:
        raise Refused(what)


def _wire_type(known: FieldDescriptor) -> int:
    if known.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE):
        return 2
    return 0  # what the contract has besides are bools, integers and enums


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _value(data: bytes, at: int, tag: int) -> tuple[int, bytes]:
    """Where the value ends, and its bytes without a length."""
    start = at
    match tag & 7:
        case 0:
            at = _varint(data, at)[1]
        case 1:
            at += 8
        case 2:
            size, start = _varint(data, at)
            at = start + size
        case 3:
            while True:
                inner, at = _varint(data, at)
                if inner == tag + 1:
                    break
                at = _value(data, at, inner)[0]
        case 5:
            at += 4
        case other:
            raise AssertionError(f"protobuf accepted wire type {other}")
    return at, data[start:at]
