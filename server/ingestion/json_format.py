"""Events in CloudEvents' JSON format 1.0.2, alone or in a batch."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.cloudevent import ATTRIBUTES_MAX
from trunkline.core.errors import InvalidArgument
from trunkline.core.wire import EVENTS_MAX

from .attributes import REQUIRED, Named, Value, check_name, make_event
from .json_text import JsonText, Member
from .media import JSON, media_type

DATA: Final = "data"
DATA_BASE64: Final = "data_base64"
CONTENT_TYPE: Final = "datacontenttype"
MEMBERS_MAX: Final = ATTRIBUTES_MAX + len(REQUIRED) + 2


def read_event(body: bytes) -> CloudEvent:
    """The event of a structured request. InvalidArgument."""
    text = JsonText(body)
    event, end = _read(text, text.behind_space(0), 0)
    text.expect_end(end)
    return event


def read_batch(body: bytes) -> Iterator[CloudEvent]:
    """The events of a batched request, one by one, so that whoever asks for them can do something else in between. None is
    to be used before all were read. InvalidArgument."""
    text = JsonText(body)
    at = text.expect(text.behind_space(0), "[", "an array of events")
    index = 0
    while text.char(at) != "]":
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

    members, end = text.members(at, MEMBERS_MAX)
    data, encoded = members.pop(DATA, None), members.pop(DATA_BASE64, None)
    attributes = _attributes(members, index, named)
    has_text = data is not None
    if has_text and CONTENT_TYPE not in attributes:
        attributes[CONTENT_TYPE] = JSON.name  # what is meant by saying nothing (JSON format, 3.1.2), said
    event = make_event(attributes, named)
    if encoded is not None and encoded.value is not None:
        if has_text:
            raise InvalidArgument.of(named(DATA_BASE64), f"not beside {DATA}", "both")
        event.binary_data = _decoded(encoded.value, named)
    elif data is not None:
        event.text_data = _text(text, data, attributes[CONTENT_TYPE], named)
    return event, end


def _attributes(members: dict[str, Member], index: int, named: Named) -> dict[str, Value]:
    """Members that are attributes; null stands for none (JSON format, 2.2)."""
    attributes: dict[str, Value] = {}
    for name, member in members.items():
        check_name(name, f"events[{index}]")
        value = member.value
        if value is None:
            continue
        if not isinstance(value, bool | int | str):
            kind = {float: "another number", list: "an array", dict: "an object"}[type(value)]
            raise InvalidArgument.of(named(name), "a string, an integer or a boolean", kind)
        attributes[name] = value
    return attributes


def _text(text: JsonText, data: Member, content_type: Value, named: Named) -> str:
    """The data: JSON as it was written, other text as the string that holds it."""
    declared = media_type(str(content_type))
    if declared is not None and declared.is_json:
        return text.text[data.begin : data.end]
    if not isinstance(data.value, str):
        raise InvalidArgument.of(named(DATA), f"a string, unless {CONTENT_TYPE} is JSON", type(data.value).__name__)
    try:
        data.value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument.of(named(DATA), "no lone surrogates", f"one at {error.start}") from None
    return data.value


def _decoded(value: object, named: Named) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise InvalidArgument.of(named(DATA_BASE64), "a string in Base64 (RFC 4648, 4)", value)
