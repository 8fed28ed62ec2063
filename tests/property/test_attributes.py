"""Texts of attributes are those that protobuf's own messages give."""

from __future__ import annotations

import base64
from array import array

import hypothesis.strategies as st
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given

from reference.attributes import text_of
from trunkline.api.v1 import events_pb2
from trunkline.core.attributes import attribute_texts

Value = events_pb2.CloudEvent.CloudEventAttributeValue
NAMES = ("id", "source", "type", "specversion", "a", "b", "time", "absent")
TIMES = st.builds(
    lambda seconds, nanos: Timestamp(seconds=seconds, nanos=nanos),
    st.integers(-62135596800, 253402300799),
    st.sampled_from([0, 1, 1_000, 120_000_000, 999_999_999]),
)
VALUES = st.one_of(
    st.builds(Value, ce_string=st.text(max_size=5)),
    st.builds(Value, ce_boolean=st.booleans()),
    st.builds(Value, ce_integer=st.integers(-(2**31), 2**31 - 1)),
    st.builds(Value, ce_bytes=st.binary(max_size=5)),
    st.builds(Value, ce_uri=st.text(max_size=5)),
    st.builds(Value, ce_uri_ref=st.text(max_size=5)),
    st.builds(Value, ce_timestamp=TIMES),
    st.just(Value()),
)
EVENTS = st.builds(
    events_pb2.CloudEvent,
    id=st.text(min_size=1, max_size=3),
    source=st.text(min_size=1, max_size=3),
    spec_version=st.just("1.0"),
    type=st.text(min_size=1, max_size=3),
    attributes=st.dictionaries(st.sampled_from(["a", "b", "time", "other"]), VALUES),
    text_data=st.text(max_size=3),
)


def framed(bodies: list[bytes]) -> tuple[bytes, array[int]]:
    payload, ends = b"", array("I")
    for body in bodies:
        assert len(body) < 1 << 14
        size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
        payload += b"\x7a" + size + body
        ends.append(len(payload))
    return payload, ends


@given(st.lists(EVENTS, min_size=1, max_size=4), st.lists(st.sampled_from(NAMES), max_size=6), st.data())
def test_texts_are_those_of_the_message(
    events: list[events_pb2.CloudEvent], names: list[str], data: st.DataObject
) -> None:
    payload, ends = framed([event.SerializeToString() for event in events])
    indexes = data.draw(st.lists(st.integers(0, len(events) - 1)))
    found = attribute_texts(payload, ends, indexes, tuple(names))
    assert found == [tuple(text_of(events[index], name) for name in names) for index in indexes]


def test_canonical_texts() -> None:
    event = events_pb2.CloudEvent(id="1", source="/s", spec_version="1.0", type="t")
    event.attributes["yes"].ce_boolean = True
    event.attributes["no"].ce_boolean = False
    event.attributes["n"].ce_integer = -7
    event.attributes["raw"].ce_bytes = b"\x00\xff"
    event.attributes["when"].ce_timestamp.FromJsonString("2026-01-02T03:04:05.6Z")
    names = ("yes", "no", "n", "raw", "when")
    [texts] = attribute_texts(*framed([event.SerializeToString()]), [0], names)
    assert texts == ("true", "false", "-7", base64.b64encode(b"\x00\xff").decode(), "2026-01-02T03:04:05.600Z")


@given(st.binary(max_size=40), st.lists(st.integers(0, 50), max_size=3), st.lists(st.integers(-1, 3), max_size=3))
def test_any_bytes_are_read_or_refused(payload: bytes, ends: list[int], indexes: list[int]) -> None:
    try:
        found = attribute_texts(payload, array("I", ends), indexes, NAMES)
    except (ValueError, IndexError):  # a UnicodeDecodeError is a ValueError
        return
    assert len(found) == len(indexes)


def test_too_many_names() -> None:
    with pytest.raises(ValueError, match="256"):
        attribute_texts(b"", array("I"), [], ("a",) * 257)
