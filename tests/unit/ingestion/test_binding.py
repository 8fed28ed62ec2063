"""What a request's headers and body must be, case by case; the field that a refusal names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.errors import InvalidArgument, Violation
from trunkline.core.wire import EVENTS_MAX
from trunkline.server.ingestion.binding import Headers, Mode, mode_of, read_events
from trunkline.server.ingestion.refused import Refused

EVENT = {"specversion": "1.0", "id": "7", "source": "/curl", "type": "order.placed"}


def headers(content_type: str | None = None, **attributes: str | bytes | None) -> Headers:
    """Those of the binary mode; None leaves one away."""
    found = [(b"content-type", content_type.encode())] if content_type is not None else []
    for name, value in {**EVENT, **attributes}.items():
        if value is not None:
            found.append((f"ce-{name}".encode(), value if isinstance(value, bytes) else value.encode()))
    return found


def read(headers: Headers, body: bytes = b"") -> list[CloudEvent]:
    return list(read_events(mode_of(headers), headers, body))


def structured(**members: Any) -> CloudEvent:
    [event] = read([(b"Content-Type", b"application/cloudevents+json")], json.dumps({**EVENT, **members}).encode())
    return event


def batched(text: str | bytes) -> list[CloudEvent]:
    body = text if isinstance(text, bytes) else text.encode()
    return read([(b"Content-Type", b"application/cloudevents-batch+json")], body)


def refusal(call: Any, *arguments: Any, **options: Any) -> Violation:
    with pytest.raises(InvalidArgument) as caught:
        call(*arguments, **options)
    [violation] = caught.value.violations
    return violation


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        (None, Mode.BINARY),
        ("application/json", Mode.BINARY),
        ("application/x-www-form-urlencoded", Mode.BINARY),
        ("application/cloudevents+json", Mode.STRUCTURED),
        ('Application/CloudEvents+JSON ;charset="UTF-8"', Mode.STRUCTURED),
        ("application/cloudevents-batch+json; charset=utf-8", Mode.BATCHED),
    ],
)
def test_the_content_type_says_the_mode(content_type: str | None, mode: Mode) -> None:
    assert mode_of(headers(content_type)) is mode


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents",
        "application/cloudevents-batch",
        "application/cloudevents+avro",
        "application/cloudevents+jsonx",
        "application/cloudevents+json; charset=iso-8859-1",
    ],
)
def test_other_event_formats_are_refused(content_type: str) -> None:
    with pytest.raises(Refused) as caught:
        mode_of(headers(content_type))
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b'{"a": 1}', {"text_data": '{"a": 1}'}),
        ("application/vnd.shop+json", b"[]", {"text_data": "[]"}),
        ("text/plain", "grün".encode(), {"text_data": "grün"}),
        ("text/plain; charset=iso-8859-1", "grün".encode(), {"binary_data": "grün".encode()}),
        ("application/json", b"\xff", {"binary_data": b"\xff"}),  # opaque to us: it is kept as it came
        ("application/octet-stream", b"abc", {"binary_data": b"abc"}),
        (None, b"abc", {"binary_data": b"abc"}),
        ("application/json", b"", {}),
    ],
)
def test_data_of_the_binary_mode(content_type: str | None, body: bytes, expected: dict[str, Any]) -> None:
    [event] = read(headers(content_type), body)
    wanted = CloudEvent(id="7", source="/curl", spec_version="1.0", type="order.placed", **expected)
    if content_type is not None:
        wanted.attributes["datacontenttype"].ce_string = content_type
    assert event == wanted


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ("%41%2541", "A%41"),
        ('"quoted \\"words\\" \\\\ %E2%82%AC"', 'quoted "words" \\ €'),
        ('""%20', None),
        ("plain words", "plain words"),
        ("  around \t", "around"),
        ("a+b", "a+b"),
        ("%C0%A0", None),
        ("%ED%A0%80", None),
        ("%", None),
        ("%4", None),
        ("%zz", None),
        ('half "quoted"', None),
        ('"open', None),
        ('"a" "b"', None),
        ("grün", None),
        ("tab\tinside", None),
        ("line%0D%0Ace-id: 8", None),
        ("%00", None),
        ("%7F", None),
        ("%C2%85", None),
        ("%EF%BF%BE", None),
        ("%F0%9F%BF%BF", None),
        ("", None),
    ],
)
def test_header_values(value: str, read_as: str | None) -> None:
    if read_as is None:
        assert refusal(read, headers(subject=value)).field == "ce-subject"
    else:
        assert read(headers(subject=value))[0].attributes["subject"].ce_string == read_as


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (headers(id=None), "ce-id"),
        (headers(source=None), "ce-source"),
        (headers(type=None), "ce-type"),
        (headers(specversion=None), "ce-specversion"),
        (headers(id=""), "ce-id"),
        (headers(specversion="0.3"), "ce-specversion"),
        (headers(specversion="1.0.2"), "ce-specversion"),
        (headers(time="yesterday"), "ce-time"),
        (headers(datacontenttype="text/plain"), "ce-datacontenttype"),
        (headers(data="x"), "ce-data"),
        ([*headers(), (b"CE-ID", b"8")], "ce-id"),
        ([*headers(), (b"ce-", b"8")], "ce-"),
        ([*headers(), (b"ce-my-own", b"8")], "ce-my-own"),
        ([*headers(), (b"ce-" + b"x" * 21, b"8")], "ce-" + "x" * 21),
        ([*headers("text/plain"), (b"Content-Type", b"text/plain")], "content-type"),
        (headers("json"), "content-type"),
        (headers("text/plain; grün"), "content-type"),
        ([(b"content-type", b"application/json")], "ce-specversion"),
        ([], "ce-specversion"),
    ],
    ids=str,
)
def test_headers_that_are_refused(given: Headers, field: str) -> None:
    assert refusal(read, given, b"{}").field == field


def test_names_of_headers_have_no_case() -> None:
    [event] = read([(name.upper(), value) for name, value in headers("text/plain", mykey="K")])
    assert event.attributes["mykey"].ce_string == "K"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2018-04-05T17:31:00Z", "2018-04-05T17:31:00Z"),
        ("2018-04-05t17:31:00.120z", "2018-04-05T17:31:00.120Z"),
        ("2018-04-05T19:31:00+02:00", "2018-04-05T17:31:00Z"),
        ("2018-04-05T17:31:00.123456789Z", "2018-04-05T17:31:00.123456789Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("2018-04-05T17:31:00", None),
        ("2018-04-05 17:31:00Z", None),
        ("2018-4-5T17:31:00Z", None),
        ("2018-02-30T17:31:00Z", None),
        ("2018-04-05T24:00:00Z", None),
        ("2016-12-31T23:59:60Z", None),
        ("2018-04-05T17:31:00.1234567890Z", None),
        ("2018-04-05T17:31:00+24:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:59:59-01:00", None),
        ("0000-01-01T00:00:00Z", None),
        ("٢٠١٨-04-05T17:31:00Z", None),
    ],
)
def test_time_is_a_timestamp(text: str, shown: str | None) -> None:
    if shown is None:
        assert refusal(structured, time=text).field == "events[0].time"
    else:
        assert structured(time=text).attributes["time"].ce_timestamp.ToJsonString() == shown


def test_json_keeps_the_types_of_attributes_and_null_stands_for_none() -> None:
    event = structured(yes=True, count=-(2**31), word="1", nothing=None, subject=None)
    assert set(event.attributes) == {"yes", "count", "word"}
    assert event.attributes["yes"].ce_boolean
    assert event.attributes["count"].ce_integer == -(2**31)
    assert event.attributes["word"].ce_string == "1"


@pytest.mark.parametrize(
    ("data", "kept"),
    [('{"b":1,  "a":2.50, "a": 1e400}', None), ("null", None), ('"text"', None), ("[1,\n2]", None), ("-0", None)],
)
def test_json_data_is_kept_as_it_was_written(data: str, kept: None) -> None:
    [event] = batched(f'[{json.dumps(EVENT)[:-1]}, "data": {data} }}]')
    assert event.text_data == data
    assert event.attributes["datacontenttype"].ce_string == "application/json"


def test_other_data_of_json() -> None:
    assert structured(datacontenttype="text/xml", data="<a/>").text_data == "<a/>"
    binary = structured(data_base64="AP8=")
    assert (binary.binary_data, "datacontenttype" in binary.attributes) == (b"\x00\xff", False)
    assert structured(data_base64=None).WhichOneof("data") is None
    assert structured(data_base64="").WhichOneof("data") == "binary_data"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"id": None}, "events[0].id"),
        ({"id": ""}, "events[0].id"),
        ({"id": 7}, "events[0].id"),
        ({"source": ["/curl"]}, "events[0].source"),
        ({"specversion": 1.0}, "events[0].specversion"),
        ({"specversion": "0.3"}, "events[0].specversion"),
        ({"subject": 7}, "events[0].subject"),
        ({"dataschema": ""}, "events[0].dataschema"),
        ({"time": 1_500_000_000}, "events[0].time"),
        ({"datacontenttype": "json"}, "events[0].datacontenttype"),
        ({"own": 1.5}, "events[0].own"),
        ({"own": 2**31}, "events[0].own"),
        ({"own": {}}, "events[0].own"),
        ({"own": "a\nb"}, "events[0].own"),
        ({"own": "\ud800"}, "events[0].own"),
        ({"Own": "x"}, "events[0]"),
        ({"\ud800": "x"}, "events[0]"),
        ({"": "x"}, "events[0]"),
        ({"data": "x", "data_base64": "AA=="}, "events[0].data_base64"),
        ({"data_base64": "A"}, "events[0].data_base64"),
        ({"data_base64": "AA_="}, "events[0].data_base64"),
        ({"data_base64": "é"}, "events[0].data_base64"),
        ({"data_base64": 7}, "events[0].data_base64"),
        ({"datacontenttype": "text/plain", "data": {"a": 1}}, "events[0].data"),
        ({"datacontenttype": "text/plain", "data": "\ud800"}, "events[0].data"),
        ({f"x{n}": "" for n in range(70)}, "body"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_members_that_are_refused(members: dict[str, Any], field: str) -> None:
    assert refusal(structured, **members).field == field


ONE = json.dumps(EVENT)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "null",
        f'[{ONE[:-1]}, "datacontenttype": "text/plain", "data": "{"a" * 6_300_000}"}}]',
        f'[{ONE[:-1]}, "data": [{"[]," * 2_100_000}[]]}}]',
        "[",
        "[1]",
        "[[]]",
        f"[{ONE}",
        f"[{ONE},]",
        f"[,{ONE}]",
        f"[{ONE} {ONE}]",
        f"[{ONE}]]",
        f"[{ONE}]\x00",
        "\ufeff[]",
        f"[{ONE[:-1]},}}]",
        f"[{ONE[:-1]}, own: 1}}]",
        f"[{ONE[:-1]}, 'own': 1}}]",
        f'[{ONE[:-1]}, "own" 1}}]',
        f'[{ONE[:-1]}, "data": NaN}}]',
        f'[{ONE[:-1]}, "data": -Infinity}}]',
        f'[{ONE[:-1]}, "data": [NaN]}}]',
        f'[{ONE[:-1]}, "data": [1,]}}]',
        f'[{ONE[:-1]}, "data": "\n"}}]',
        f'[{ONE[:-1]}, "data": 01}}]',
        f'[{ONE[:-1]}, "data": "\\x"}}]',
        f'[{ONE[:-1]}, "data": {"[" * 100_000}',
        f'[{ONE[:-1]}, "data": {"[" * 600_000}{"]" * 600_000}}}]',
        b"[\xff]",
        b'[{"id": "\xed\xa0\x80"}]',
    ],
    ids=lambda body: repr(body)[:60],
)
def test_bodies_that_are_no_batch(body: str | bytes) -> None:
    assert refusal(batched, body).field == "body"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('"id": "8"', "id"),
        ('"i\\u0064": "7"', "id"),
        ('"own": null, "own": "x"', "own"),
        ('"data": 1, "data": 1', "data"),
        (f'"data": [{"0," * 600_000}0]', "data"),
    ],
    ids=lambda value: value[:40],
)
def test_members_that_stand_twice_or_are_too_long(more: str, field: str) -> None:
    assert refusal(batched, f"[{ONE[:-1]}, {more}}}]").field == f"events[0].{field}"


def test_a_batch_is_read_whole_or_not_at_all() -> None:
    assert batched(" [ ] ") == []
    assert [event.id for event in batched(f"[{ONE} , {ONE.replace('7', '8')}]")] == ["7", "8"]
    assert refusal(batched, f'[{ONE}, {{"id": "8"}}]').field == "events[1].specversion"
    assert len(batched(f"[{','.join([ONE] * EVENTS_MAX)}]")) == EVENTS_MAX
    assert refusal(batched, f"[{','.join([ONE] * (EVENTS_MAX + 1))}]").field == "events"


def test_headers_beside_a_body_that_says_everything_count_for_nothing() -> None:
    given = [(b"Content-Type", b"application/cloudevents+json"), (b"ce-id", b"other")]
    assert read(given, ONE.encode())[0].id == "7"
