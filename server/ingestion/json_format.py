"""Events in CloudEvents' JSON format 1.0.2, alone or in a batch.

Of a body only attributes are read into values. Data is looked at where it stands and kept as it was written: parsed and
written again, numbers, names that stand twice and the order of members would come out as something else.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Final

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.cloudevent import ATTRIBUTES_MAX, EVENT_BYTES_MAX
from trunkline.core.errors import InvalidArgument
from trunkline.core.jsontext import JsonText
from trunkline.core.wire import EVENTS_MAX

from .attributes import REQUIRED, Named, Value, check_name, make_event
from .media import JSON, media_type

BODY: Final = "body"
DATA: Final = "data"
DATA_BASE64: Final = "data_base64"
CONTENT_TYPE: Final = "datacontenttype"
MEMBERS_MAX: Final = ATTRIBUTES_MAX + len(REQUIRED) + 2
ESCAPED_BYTES_MAX: Final = 6
"""Of one byte in a string of JSON: \\u0041."""
VALUE_BYTES_MAX: Final = ESCAPED_BYTES_MAX * EVENT_BYTES_MAX + 2
"""A longer one holds more than an event has room for."""
_NULL: Final = b"null"
_INTEGER: Final = re.compile(rb"-?[0-9]{1,10}")
_KINDS: Final = {b"{": "an object", b"[": "an array"}

Members = dict[str, bytes]
"""Values by name, each as it stands in the body."""


def read_event(body: bytes) -> CloudEvent:
    """The event of a structured request. InvalidArgument."""
    text = JsonText(body, BODY)
    event, end = _read(text, text.behind_space(0), 0)
    text.expect_end(end)
    return event


def read_batch(body: bytes) -> Iterator[CloudEvent]:
    """The events of a batched request, one by one, so that whoever asks for them can do something else in between. None is
    to be used before all were read. InvalidArgument."""
    text = JsonText(body, BODY)
    at = text.expect(text.behind_space(0), "[", "an array of events")
    index = 0
    while not text.stands(at, "]"):
        if index:
            at = text.expect(at, ",", "a comma or the array's end")
        if index == EVENTS_MAX:
            raise InvalidArgument.of("events", f"at most {EVENTS_MAX}", "more")
        event, end = _read(text, at, index)
        yield event
        at = text.behind_space(end)
        index += 1
    text.expect_end(at + 1)


def _read(text: JsonText, at: int, index: int) -> tuple[CloudEvent, int]:
    """One event, and where it ends; `index` is for refusals."""

    def named(name: str) -> str:
        return f"events[{index}].{name}"

    members, end = _members(text, at, index)
    data, encoded = members.pop(DATA, None), members.pop(DATA_BASE64, _NULL)
    attributes = {name: _value(raw, name, named) for name, raw in members.items() if raw != _NULL}
    if data is not None and CONTENT_TYPE not in attributes:
        attributes[CONTENT_TYPE] = JSON.name  # what is meant by saying nothing (JSON format, 3.1.2), said
    event = make_event(attributes, named)
    if data is not None:
        if encoded != _NULL:
            raise InvalidArgument.of(named(DATA_BASE64), f"not beside {DATA}", "both")
        event.text_data = _text(data, str(attributes[CONTENT_TYPE]), named)
    elif encoded != _NULL:
        event.binary_data = _decoded(encoded, named)
    return event, end


def _members(text: JsonText, at: int, index: int) -> tuple[Members, int]:
    """An event's members, and where it ends. Each name stands once: readers differ on which of two would count."""
    found: Members = {}
    spans, end = text.members(at, MEMBERS_MAX, VALUE_BYTES_MAX)
    for raw_name, begin, behind in spans:
        name = _string(b'"%b"' % raw_name)
        if name not in (DATA, DATA_BASE64):
            check_name(name, f"events[{index}]")
        if name in found:
            raise InvalidArgument.of(f"events[{index}].{name}", "must stand once", "it twice")
        found[name] = text.text[begin:behind]
    return found, end


def _value(raw: bytes, name: str, named: Named) -> Value:
    """An attribute's value; null was left out (JSON format, 2.2)."""
    if raw[:1] == b'"':
        return _string(raw)
    if raw in (b"true", b"false"):
        return raw == b"true"
    if _INTEGER.fullmatch(raw):
        return int(raw)
    raise InvalidArgument.of(
        named(name), "a string, an integer of 32 bits or a boolean", _KINDS.get(raw[:1], "another number")
    )


def _string(raw: bytes) -> str:
    """The text that a string of JSON stands for; it may hold lone surrogates."""
    if b"\\" not in raw:
        return raw[1:-1].decode()
    text: str = json.loads(raw)
    return text


def _text(raw: bytes, content_type: str, named: Named) -> str:
    """The data: JSON as it was written, other text as the string that holds it."""
    declared = media_type(content_type)
    if declared is not None and declared.is_json:
        if len(raw) > EVENT_BYTES_MAX:
            raise InvalidArgument.of(named(DATA), f"at most {EVENT_BYTES_MAX} bytes", len(raw))
        return raw.decode()
    if raw[:1] != b'"':
        raise InvalidArgument.of(named(DATA), f"a string, unless {CONTENT_TYPE} is JSON", _KINDS.get(raw[:1], raw))
    text = _string(raw)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument.of(named(DATA), "no lone surrogates", f"one at {error.start}") from None
    return text


def _decoded(raw: bytes, named: Named) -> bytes:
    try:
        if raw[:1] == b'"':
            return base64.b64decode(_string(raw), validate=True)
    except ValueError:
        pass
    raise InvalidArgument.of(named(DATA_BASE64), "a string in Base64 (RFC 4648, 4)", raw)
