"""What the scanner finds and what it refuses, one rule at a time and at its edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.cloudevent import ATTRIBUTES_MAX, EVENT_BYTES_MAX
from trunkline.core.errors import InvalidArgument
from trunkline.core.wire import EVENTS_MAX, EventScan, Scan, event_identity, scan_event, scan_publish

Change = Callable[[events_pb2.PublishRequest], object]


def put(name: str, value: object) -> Change:
    """Set a field of the request."""
    return lambda made: setattr(made, name, value)


def event(name: str, value: object) -> Change:
    """Set a field of the last event."""
    return lambda made: setattr(made.events[-1], name, value)


def without(name: str) -> Change:
    """Clear a field of the last event."""
    return lambda made: made.events[-1].ClearField(name)  # type: ignore[arg-type]


def attribute(name: str, kind: str, value: object) -> Change:
    """Set an attribute of the last event."""
    return lambda made: setattr(made.events[-1].attributes[name], kind, value)


def many_attributes(count: int) -> Change:
    """Give the last event so many attributes."""
    return lambda made: [made.events[-1].attributes[f"a{i}"] for i in range(count)]


def request(count: int = 1) -> events_pb2.PublishRequest:
    made = events_pb2.PublishRequest(namespace="shop")
    for i in range(count):
        made.events.add(id=f"id-{i}", source="/orders", spec_version="1.0", type="orders.created")
    return made


def scan(made: events_pb2.PublishRequest | events_pb2.PublishStreamRequest) -> Scan:
    is_stream = isinstance(made, events_pb2.PublishStreamRequest)
    return scan_publish(made.SerializeToString(), stream_request=is_stream)


def refused_field(data: bytes, *, stream_request: bool = False) -> str:
    with pytest.raises(InvalidArgument) as caught:
        scan_publish(data, stream_request=stream_request)
    (violation,) = caught.value.violations
    return violation.field


def field(number: int, value: bytes) -> bytes:
    assert number < 16
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


EVENT = field(1, b"i") + field(2, b"s") + field(3, b"1.0") + field(4, b"t")
SHOP = field(1, b"shop")


def test_columns_of_an_ordinary_request() -> None:
    made = request(3)
    made.events[1].attributes["partitionkey"].ce_string = "c-1"
    made.events[2].attributes["topic"].ce_string = "orders.paid"
    found = scan(made)
    assert (found.namespace, found.stream, found.require_sync, found.sequence) == ("shop", "events", 0, 0)
    assert found.topics == ["orders.created", "orders.paid"]
    assert found.topic_ids.tolist() == [0, 0, 1]
    assert [bool(hash) for hash in found.key_hashes] == [False, True, False]
    assert len({tuple(found.id_hashes[2 * i : 2 * i + 2]) for i in range(3)}) == 3
    start = 0
    for end, event in zip(found.ends, made.events, strict=True):
        assert bytes(found.payload[start:end]) == field(15, event.SerializeToString())
        start = end


def test_the_type_is_free_when_an_attribute_is_the_topic() -> None:
    made = request()
    made.events[0].type = "Order Created!"
    made.events[0].attributes["topic"].ce_string = "orders.created"
    assert scan(made).topics == ["orders.created"]


def test_a_large_payload_is_no_copy_and_a_small_one_keeps_nothing_else() -> None:
    data = request(2_000).SerializeToString()
    assert len(data) > 32_000
    found = scan_publish(data, stream_request=False)
    assert isinstance(found.payload, memoryview)
    assert found.payload.obj is data
    data = request(100).SerializeToString()
    found = scan_publish(data, stream_request=False)
    assert isinstance(found.payload, bytes)
    assert data.endswith(found.payload)


@pytest.mark.parametrize(
    "data",
    [
        field(15, EVENT) + SHOP + field(15, EVENT),
        SHOP + b"\xfa\x00" + bytes([len(EVENT)]) + EVENT + field(15, EVENT),
        SHOP + b"\x7a" + bytes([len(EVENT) | 0x80, 0]) + EVENT + field(15, EVENT),
        SHOP + field(15, EVENT) + b"\x48\x01" + field(15, EVENT),
    ],
    ids=["apart", "long tag", "long length", "unknown field between"],
)
def test_frames_that_cannot_be_taken_as_they_stand_are_written_anew(data: bytes) -> None:
    found = scan_publish(data, stream_request=False)
    assert found.payload == 2 * field(15, EVENT)
    assert found.ends.tolist() == [len(found.payload) // 2, len(found.payload)]


def test_a_stream_request_has_a_sequence_and_a_plain_one_ignores_it() -> None:
    made = events_pb2.PublishStreamRequest(
        namespace="shop", stream="a.b", require_sync=common_pb2.SYNC_FSYNCED, sequence=2**64 - 1
    )
    made.events.extend(request().events)
    found = scan(made)
    assert (found.stream, found.require_sync, found.sequence) == ("a.b", 3, 2**64 - 1)
    assert scan_publish(made.SerializeToString(), stream_request=False).sequence == 0


def test_what_a_producer_says_is_found() -> None:
    made = request(2)
    made.producer, made.producer_epoch, made.first_sequence = "orders/7@eu:a_b.C", 2**64 - 1, 2**62
    found = scan(made)
    assert (found.producer, found.producer_epoch, found.first_sequence) == ("orders/7@eu:a_b.C", 2**64 - 1, 2**62)
    nobody = scan(request())
    assert (nobody.producer, nobody.producer_epoch, nobody.first_sequence) == ("", 0, 0)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("producer", {"producer": "a b", "first_sequence": 1}),
        ("producer", {"producer": "p" * 129, "first_sequence": 1}),
        ("producer", {"producer": "pä", "first_sequence": 1}),
        ("first_sequence", {"producer": "p"}),
        ("first_sequence", {"producer": "p", "first_sequence": 2**62 + 1}),
        ("first_sequence", {"first_sequence": 1}),
        ("producer_epoch", {"producer_epoch": 1}),
    ],
)
def test_what_a_producer_must_not_say(field: str, fields: dict[str, Any]) -> None:
    for kind in (events_pb2.PublishRequest, events_pb2.PublishStreamRequest):
        data = kind(namespace="shop", events=request().events, **fields).SerializeToString()
        assert refused_field(data, stream_request=kind is events_pb2.PublishStreamRequest) == field


def test_identity_tells_where_the_source_ends() -> None:
    bodies = [field(1, b"bc") + field(2, b"a"), field(1, b"c") + field(2, b"ab")]
    found = scan_publish(
        SHOP + b"".join(field(15, b + field(3, b"1.0") + field(4, b"t")) for b in bodies), stream_request=False
    )
    assert found.id_hashes[:2] != found.id_hashes[2:]
    assert [event_identity(body) for body in bodies] == [(b"a", b"bc"), (b"ab", b"c")]


def test_identity_hashes_are_part_of_the_journals_format() -> None:
    found = scan_publish(SHOP + field(15, EVENT), stream_request=False)
    assert [f"{word:016x}" for word in found.id_hashes] == ["f47c87b56e949d1f", "eaf8e6e728a62cdf"]


def test_one_event_alone() -> None:
    keyed = EVENT + field(5, field(1, b"partitionkey") + field(2, field(3, b"k")))
    assert scan_event(keyed) == EventScan(topic="t", key="k", source="s", id="i")
    assert scan_event(memoryview(EVENT)) == EventScan("t", "", "s", "i")
    for wrong, name in ((b"", "event.id"), (EVENT + b"\x30", "event"), (EVENT + field(1, b"j"), "event.id")):
        with pytest.raises(InvalidArgument) as caught:
            scan_event(wrong)
        assert caught.value.violations[0].field == name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("namespace", ""), "namespace"),
        (put("namespace", "Shop"), "namespace"),
        (put("namespace", "a.b"), "namespace"),
        (put("namespace", "-a"), "namespace"),
        (put("namespace", "a" * 64), "namespace"),
        (put("stream", "a..b"), "stream"),
        (put("stream", "a."), "stream"),
        (put("stream", "a.b-"), "stream"),
        (put("stream", "a" * 64), "stream"),
        (put("stream", ".".join(["a" * 42] * 3) + "a"), "stream"),
        (put("require_sync", 4), "require_sync"),
        (put("require_sync", -1), "require_sync"),
        (lambda r: r.ClearField("events"), "events"),
        (without("id"), "events[1].id"),
        (event("id", "i" * 257), "events[1].id"),
        (without("source"), "events[1].source"),
        (event("source", "s" * 1025), "events[1].source"),
        (without("spec_version"), "events[1].spec_version"),
        (event("spec_version", "0.3"), "events[1].spec_version"),
        (without("type"), "events[1].type"),
        (event("type", "t" * 257), "events[1].type"),
        (event("type", "a.*"), "events[1].type"),
        (event("type", ".".join("w" * 17)), "events[1].type"),
        (attribute("topic", "ce_string", "a..b"), "events[1].attributes[topic]"),
        (attribute("topic", "ce_string", ""), "events[1].attributes[topic]"),
        (attribute("topic", "ce_uri", "a.b"), "events[1].attributes[topic]"),
        (lambda r: r.events[1].attributes["topic"].Clear(), "events[1].attributes[topic]"),
        (attribute("partitionkey", "ce_string", ""), "events[1].attributes[partitionkey]"),
        (attribute("partitionkey", "ce_integer", 1), "events[1].attributes[partitionkey]"),
        (attribute("partitionkey", "ce_string", "k" * 257), "events[1].attributes[partitionkey]"),
        (attribute("", "ce_string", "v"), "events[1].attributes"),
        (attribute("Time", "ce_string", "v"), "events[1].attributes"),
        (attribute("a-b", "ce_string", "v"), "events[1].attributes"),
        (attribute("a" * 21, "ce_string", "v"), "events[1].attributes"),
        (many_attributes(ATTRIBUTES_MAX + 1), "events[1].attributes"),
    ],
)
def test_rules_name_the_field(change: Change, named: str) -> None:
    made = request(2)
    assert scan(made).count == 2
    change(made)
    assert refused_field(made.SerializeToString()) == named


@pytest.mark.parametrize(
    "change",
    [
        put("namespace", "a" * 63),
        put("namespace", "0-1"),
        put("stream", ".".join(["a" * 42, "b" * 42, "c" * 42])),
        put("require_sync", 3),
        event("id", "i" * 256),
        event("source", "s" * 1024),
        event("type", "ü" * 128),
        event("type", ".".join("w" * 16)),
        attribute("partitionkey", "ce_string", "k" * 256),
        attribute("a" * 20, "ce_string", "v"),
        many_attributes(1),
        many_attributes(ATTRIBUTES_MAX),
    ],
)
def test_what_just_passes(change: Change) -> None:
    made = request()
    change(made)
    assert scan(made).count == 1


SECONDS_TWICE = field(7, b"\x08\x01\x08\x01")
TWICE = field(5, field(1, b"a")) * 2
VALUE = field(1, b"a") + field(2, field(3, b"v"))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (SHOP + SHOP + field(15, EVENT), "namespace"),
        (SHOP + b"\x0a\x00" + field(15, EVENT), "namespace"),
        (SHOP + field(2, b"a") + field(2, b"a") + field(15, EVENT), "stream"),
        (SHOP + b"\x18\x00\x18\x00" + field(15, EVENT), "require_sync"),
        (SHOP + field(15, EVENT + field(1, b"i")), "events[0].id"),
        (SHOP + field(15, EVENT + field(2, b"s")), "events[0].source"),
        (SHOP + field(15, EVENT + field(3, b"1.0")), "events[0].spec_version"),
        (SHOP + field(15, EVENT + field(4, b"t")), "events[0].type"),
        (SHOP + field(15, EVENT + field(6, b"") + field(6, b"")), "events[0].data"),
        (SHOP + field(15, EVENT + field(6, b"") + field(7, b"")), "events[0].data"),
        (SHOP + field(15, EVENT + field(8, b"") + field(8, b"")), "events[0].data"),
        (SHOP + field(15, EVENT + field(8, field(1, b"") * 2)), "events[0].proto_data.type_url"),
        (SHOP + field(15, EVENT + field(8, field(2, b"") * 2)), "events[0].proto_data.value"),
        (SHOP + field(15, EVENT + TWICE), "events[0].attributes[a]"),
        (SHOP + field(15, EVENT + field(5, field(1, b"a") * 2)), "events[0].attributes"),
        (SHOP + field(15, EVENT + field(5, field(1, b"a") + field(2, b"") * 2)), "events[0].attributes"),
        (SHOP + field(15, EVENT + field(5, VALUE + b"\x18\x01")), "events[0].attributes"),
        (SHOP + field(15, EVENT + field(5, field(1, b"a") + field(2, field(3, b"v") * 2))), "events[0].attributes"),
        (SHOP + field(15, EVENT + field(5, field(1, b"a") + field(2, b"\x08\x01\x10\x01"))), "events[0].attributes"),
        (SHOP + field(15, EVENT + field(5, field(1, b"a") + field(2, SECONDS_TWICE))), "events[0].attributes"),
    ],
)
def test_what_stands_twice_is_refused(data: bytes, named: str) -> None:
    events_pb2.PublishRequest.FromString(data)  # protobuf would take it, and readers would differ in what they saw
    assert refused_field(data) == named


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x0a", "request"),
        (SHOP + b"\x7a\x05a", "request"),
        (SHOP + b"\x03", "request"),
        (SHOP + b"\x04", "request"),
        (SHOP + b"\x4b" * 101 + b"\x4c" * 101, "request"),
        (field(1, b"\xff") + field(15, EVENT), "namespace"),
        (SHOP + field(15, EVENT) + field(15, EVENT + b"\x4b"), "events[1]"),
        (SHOP + field(15, EVENT + b"\x30"), "events[0]"),
        (SHOP + field(15, EVENT[:-1] + b"\xff"), "events[0].type"),
        (SHOP + field(15, EVENT + field(7, b"\xed\xa0\x80")), "events[0].text_data"),
    ],
)
def test_malformed_bytes(data: bytes, named: str) -> None:
    assert refused_field(data) == named


def groups(levels: int) -> bytes:
    """Unknown groups in each other."""
    return b"\x4b" * levels + b"\x4c" * levels


def long_field(number: int, value: bytes) -> bytes:
    """A field whose length takes two bytes."""
    return bytes([number << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value


@pytest.mark.parametrize(
    ("levels", "enclosed"),
    [
        (100, lambda deep: deep),
        (99, lambda deep: long_field(15, EVENT + deep)),
        (98, lambda deep: long_field(15, EVENT + long_field(8, deep))),
        (97, lambda deep: long_field(15, EVENT + long_field(5, field(1, b"a") + long_field(2, deep)))),
        (96, lambda deep: long_field(15, EVENT + long_field(5, field(1, b"a") + long_field(2, long_field(7, deep))))),
    ],
    ids=["request", "event", "any", "value", "timestamp"],
)
def test_groups_may_lie_as_deep_as_protobuf_lets_them(levels: int, enclosed: Callable[[bytes], bytes]) -> None:
    just, too_deep = (SHOP + field(15, EVENT) + enclosed(groups(deep)) for deep in (levels, levels + 1))
    events_pb2.PublishRequest.FromString(just)
    assert scan_publish(just, stream_request=False).count >= 1
    with pytest.raises(DecodeError):
        events_pb2.PublishRequest.FromString(too_deep)
    assert refused_field(too_deep) in ("request", "events[1]")


def test_sequence_twice_matters_only_where_it_is_known() -> None:
    data = SHOP + b"\x20\x01\x20\x01" + field(15, EVENT)
    assert scan_publish(data, stream_request=False).count == 1
    assert refused_field(data, stream_request=True) == "sequence"


def test_unknown_fields_stay_in_the_event() -> None:
    body = b"\x48\x01" + EVENT + b"\x4b\x08\x01\x4c" + field(5, VALUE)
    found = scan_publish(SHOP + b"\x50\x07" + field(15, body), stream_request=False)
    assert bytes(found.payload) == field(15, body)


def test_an_event_of_just_the_largest_size() -> None:
    made = request(2)
    made.events[1].binary_data = bytes(EVENT_BYTES_MAX - made.events[1].ByteSize() - 4)
    assert made.events[1].ByteSize() == EVENT_BYTES_MAX
    assert scan(made).ends[1] > EVENT_BYTES_MAX
    made.events[1].binary_data += b"x"
    assert refused_field(made.SerializeToString()) == "events[1]"


def test_the_largest_number_of_events_and_topics() -> None:
    data = SHOP + b"".join(
        field(15, field(1, b"i") + field(2, b"s") + field(3, b"1.0") + field(4, b"t%d" % i)) for i in range(EVENTS_MAX)
    )
    found = scan_publish(data, stream_request=False)
    assert found.topic_ids.tolist() == list(range(EVENTS_MAX))
    assert found.topics[-1] == f"t{EVENTS_MAX - 1}"
    assert refused_field(data + field(15, EVENT)) == "events"


def test_only_bytes_are_scanned() -> None:
    with pytest.raises(TypeError):
        scan_publish(bytearray(SHOP), stream_request=False)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        scan_publish(None, stream_request=False)  # type: ignore[arg-type]
