"""Whatever an SDK would send, over HTTP it arrives the same in every mode; whatever else comes is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reference import http_events
from reference.http_events import BATCHED, STRUCTURED
from trunkline.api.v1.events_pb2 import CloudEvent, PublishRequest
from trunkline.client import Event
from trunkline.client._event import event_to
from trunkline.core.errors import InvalidArgument
from trunkline.core.wire import scan_publish
from trunkline.server.ingestion.binding import Headers, Mode, mode_of, read_events
from trunkline.server.ingestion.refused import Refused

NONCHARACTERS = [chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)]
CHARACTERS = st.characters(
    exclude_categories=("Cc", "Cs"), exclude_characters=[*NONCHARACTERS, *map(chr, range(0xFDD0, 0xFDF0))]
)
TEXT = st.text(CHARACTERS, max_size=8) | st.text('14a% "\\é😀', max_size=8)
"""The second are mostly those that have to be written in another way."""
WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20).map(lambda name: f"x{name}"[:20])
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
JSON_TEXTS = st.builds(
    json.dumps, JSON, ensure_ascii=st.booleans(), indent=st.none() | st.integers(0, 3)
) | st.sampled_from(["1.10", "1e400", "-0", '{"a":1,"a":2}', '"\\ud800"', "12345678901234567890.5"])


def _is_writable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


DATA: st.SearchStrategy[tuple[str | None, str | bytes | None]] = st.one_of(
    st.tuples(st.none() | st.sampled_from(["text/xml", "application/json"]), st.none()),
    st.tuples(
        st.sampled_from(["application/json", "Application/Vnd.Shop+JSON; charset=utf-8"]),
        JSON_TEXTS.filter(_is_writable),
    ),
    st.tuples(st.sampled_from(["text/plain", "text/xml;charset=UTF-8"]), st.text(min_size=1).filter(_is_writable)),
    st.tuples(st.sampled_from(["application/octet-stream", "image/png", None]), st.binary(min_size=1)),
)


@st.composite
def events(draw: st.DrawFn, *, typed: bool) -> CloudEvent:
    """What the SDK makes of an event; `typed`: with attributes that are no strings."""
    values: st.SearchStrategy[Any] = TEXT
    if typed:
        values = values | st.booleans() | st.integers(-(2**31), 2**31 - 1)
    attributes = draw(st.dictionaries(NAMES, values, max_size=5))
    content_type, data = draw(DATA | st.tuples(st.none(), JSON_TEXTS.filter(_is_writable)) if typed else DATA)
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    if draw(st.booleans()):
        attributes["time"] = draw(TIMES)
    return event_to(
        Event(
            id=draw(TEXT.filter(bool)),
            source=draw(TEXT.filter(bool)),
            type=".".join(draw(st.lists(WORDS, min_size=1, max_size=3))),
            subject=draw(TEXT),
            key=draw(TEXT),
            data=data,
            attributes=attributes,
        )
    )


def read(headers: Headers, body: bytes) -> list[CloudEvent]:
    return list(read_events(mode_of(headers), headers, body))


def implied(event: CloudEvent) -> CloudEvent:
    """As it is delivered: JSON that was not called so is called so."""
    if event.WhichOneof("data") == "text_data" and "datacontenttype" not in event.attributes:
        event.attributes["datacontenttype"].ce_string = "application/json"
    return event


@given(event=events(typed=False), data=st.data())
def test_binary(event: CloudEvent, data: st.DataObject) -> None:
    headers, body = http_events.binary(event)
    for index, (name, value) in enumerate(headers):
        if name == b"ce-subject" and data.draw(st.booleans()):
            headers[index] = name, http_events.quoted(event.attributes["subject"].ce_string)
        elif data.draw(st.booleans()):
            headers[index] = name.upper(), b" %s\t" % value
    headers = data.draw(st.permutations([(b"Host", b"trunkline"), (b"Cache-Control", b"no-cache"), *headers]))
    assert mode_of(headers) is Mode.BINARY
    assert read(headers, body) == [event]


@given(event=events(typed=False), text=TEXT.filter(bool))
def test_what_need_not_be_percent_encoded_may_be(event: CloudEvent, text: str) -> None:
    event.attributes["subject"].ce_string = text
    headers, body = http_events.binary(event)
    encoded = "".join(f"%{byte:02x}" for byte in text.encode()).encode()
    headers = [(name, encoded if name == b"ce-subject" else value) for name, value in headers]
    assert read(headers, body) == [event]


@given(event=events(typed=True), ascii=st.booleans(), indent=st.none() | st.integers(0, 2), nulls=st.booleans())
def test_structured(event: CloudEvent, ascii: bool, indent: int | None, nulls: bool) -> None:
    text = http_events.written(event, ensure_ascii=ascii, indent=indent)
    if nulls:
        text = text.replace(
            "{", '{"traceparent": null, "data_base64": null,' if '"data_base64"' not in text else "{", 1
        )
    assert read([STRUCTURED], f" {text}\r\n".encode()) == [implied(event)]


@given(batch=st.lists(events(typed=True), max_size=3))
def test_batched(batch: list[CloudEvent]) -> None:
    text = f"[{' , '.join(map(http_events.written, batch))} ]"
    assert read([BATCHED], text.encode()) == list(map(implied, batch))


@given(batch=st.lists(events(typed=True), min_size=1, max_size=3), data=st.data())
def test_a_body_that_was_damaged_is_refused_or_holds_events(batch: list[CloudEvent], data: st.DataObject) -> None:
    """Nothing but a refusal that names something comes out of it, and what is read is no less checked than gRPC's."""
    body = bytearray(f"[{','.join(map(http_events.written, batch))}]".encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        piece = data.draw(
            st.sampled_from([b'"', b"{", b"]", b",", b"\\", b"\xff", b"\x00", b"NaN", b"\\ud800", b"1", b""])
        )
        body[at : at + data.draw(st.integers(0, 2))] = piece
    try:
        found = read([BATCHED], bytes(body))
        request = PublishRequest(namespace="shop", events=found).SerializeToString()
        scanned = scan_publish(request, stream_request=False).count if found else 0
    except InvalidArgument:
        return
    assert scanned == len(found)


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"ce-id", b"CE-Source", b"ce-type", b"ce-specversion", b"ce-x", b"ce-", b"content-type"])
            | st.binary(max_size=8).map(lambda name: b"ce-" + name),
            st.sampled_from([b"1.0", b"a", b'"', b'"a\\"', b"%", b"%4", b"%C0%A0", b"application/cloudevents+json"])
            | st.binary(max_size=8),
        ),
        max_size=8,
    ),
    body=st.binary(max_size=20),
)
def test_headers_of_any_kind_are_refused_or_read(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    try:
        [event] = read(headers, body)
    except (InvalidArgument, Refused):
        return
    assert event.id
    assert event.spec_version == "1.0"
