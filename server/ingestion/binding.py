"""The CloudEvents HTTP binding 1.0.2: from a request's headers and body to events.

Not the `cloudevents` package, whose reader (2.2) is laxer than the binding: invalid UTF-8 behind percent signs is replaced,
quoted header values stay quoted, the last of two headers or members of one name counts, an unknown `specversion` is read as
1.0, JSON data is parsed and so not kept as it was written, and there is no batched mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_to_bytes

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.errors import InvalidArgument

from .attributes import Value, check_name, make_event
from .json_format import CONTENT_TYPE, read_batch, read_event
from .media import MediaType, media_type
from .refused import Refused

Headers = Sequence[tuple[bytes, bytes]]
"""Names and values as they came."""

PREFIX: Final = "ce-"
CONTENT_TYPE_HEADER: Final = "content-type"
_CLOUDEVENTS: Final = "application/cloudevents"
_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]*")
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\(.)")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Mode(StrEnum):
    """How a request holds events (HTTP binding, 1.3)."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCHED = "batched"


_FORMATS: Final = {f"{_CLOUDEVENTS}+json": Mode.STRUCTURED, f"{_CLOUDEVENTS}-batch+json": Mode.BATCHED}


def mode_of(headers: Headers) -> Mode:
    """The request's mode, by its content type. Refused (415) for an event format other than JSON in UTF-8."""
    declared = _content_type(headers)
    if declared is None or not declared.name.startswith(_CLOUDEVENTS):
        return Mode.BINARY
    mode = _FORMATS.get(declared.name)
    if mode is None:
        rule = "an event format of " + " or ".join(_FORMATS)
        raise Refused(415, InvalidArgument.of(CONTENT_TYPE_HEADER, rule, declared.name))
    if not declared.is_unicode:
        raise Refused(415, InvalidArgument.of(CONTENT_TYPE_HEADER, "the charset utf-8", declared.charset))
    return mode


def read_events(mode: Mode, headers: Headers, body: bytes) -> Iterator[CloudEvent]:
    """The request's events, one by one; none is to be used before all were read. InvalidArgument names what is wrong.

    Structured and batched requests may repeat attributes as headers; what the body says counts (HTTP binding, 3.2.3).
    """
    if mode is Mode.BATCHED:
        yield from read_batch(body)
    else:
        yield read_event(body) if mode is Mode.STRUCTURED else _binary_event(headers, body)


def _binary_event(headers: Headers, body: bytes) -> CloudEvent:
    attributes = _attributes(headers)
    if not attributes:
        rule = f"required: without {PREFIX} headers it takes the content type {' or '.join(_FORMATS)}"
        raise InvalidArgument.of(f"{PREFIX}specversion", rule, "nothing")
    declared = _content_type(headers)
    if declared is not None:
        attributes[CONTENT_TYPE] = _one(headers, CONTENT_TYPE_HEADER).decode("ascii")
    event = make_event(attributes, _header_of)
    if body:  # an empty one stands for an event without data: HTTP does not tell them apart
        _set_data(event, body, declared)
    return event


def _attributes(headers: Headers) -> dict[str, Value]:
    """All but `datacontenttype`, which has a header of its own (HTTP binding, 3.1)."""
    attributes: dict[str, Value] = {}
    for raw_name, raw_value in headers:
        field = raw_name.decode("latin-1").lower()
        if not field.startswith(PREFIX):
            continue
        name = field.removeprefix(PREFIX)
        check_name(name, field)
        if name == CONTENT_TYPE:
            raise InvalidArgument.of(field, f"stands in {CONTENT_TYPE_HEADER}", raw_value)
        if name in attributes:
            raise InvalidArgument.of(field, "must stand once", "it twice")
        attributes[name] = _decoded(raw_value, field)
    return attributes


def _decoded(raw: bytes, field: str) -> str:
    """A header's value: unquoted, then percent-decoded once (HTTP binding, 3.1.3.2)."""
    value = raw.strip(b" \t")
    if not _PRINTABLE.fullmatch(value):
        raise InvalidArgument.of(field, "printable ASCII, and other characters percent-encoded", raw)
    if b'"' in value:
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:  # readers differ on what a quote elsewhere means
            raise InvalidArgument.of(field, "double quotes around all of it, or percent-encoded", raw)
        value = _ESCAPE.sub(rb"\1", quoted[1])
    if _BAD_ESCAPE.search(value):
        raise InvalidArgument.of(field, "two hexadecimal digits behind each percent sign", raw)
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidArgument.of(field, "UTF-8 behind percent signs", raw) from None


def _set_data(event: CloudEvent, body: bytes, declared: MediaType | None) -> None:
    """Text as text if it is declared and really is some, so that it is delivered as if gRPC had brought it; else bytes."""
    if declared is not None and declared.is_text:
        try:
            event.text_data = body.decode()
            return
        except UnicodeDecodeError:
            pass
    event.binary_data = body


def _content_type(headers: Headers) -> MediaType | None:
    """What the body is declared to be; None if nothing is said. InvalidArgument."""
    text = _one(headers, CONTENT_TYPE_HEADER)
    if not text:
        return None
    declared = media_type(text.decode("latin-1"))
    if declared is None:
        raise InvalidArgument.of(CONTENT_TYPE_HEADER, "a media type (RFC 2046)", text)
    return declared


def _one(headers: Headers, name: str) -> bytes:
    """The value of a header that may stand once; empty without it. InvalidArgument."""
    values = [value.strip(b" \t") for raw_name, value in headers if raw_name.decode("latin-1").lower() == name]
    if len(values) > 1:
        raise InvalidArgument.of(name, "must stand once", "it twice")
    return values[0] if values else b""


def _header_of(name: str) -> str:
    return CONTENT_TYPE_HEADER if name == CONTENT_TYPE else f"{PREFIX}{name}"
