"""From the attributes of an event, as a request has them, to a CloudEvent (CloudEvents 1.0.2, 3).

Lengths, topics and keys are not looked at here: every publish is held to those by the scanner.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.cloudevent import ATTRIBUTE_NAME_BYTES_MAX
from trunkline.core.errors import InvalidArgument

from .media import media_type

Value: TypeAlias = bool | int | str
Named: TypeAlias = Callable[[str], str]
"""What an attribute is called in the request, for refusals: "ce-id", "events[3].id"."""

SPEC_VERSION: Final = "1.0"
REQUIRED: Final = ("specversion", "id", "source", "type")
_TEXTS: Final = frozenset({*REQUIRED, "datacontenttype", "dataschema", "subject", "time"})
"""Attributes that CloudEvents itself defines; each is text, and not empty."""
_NAME: Final = re.compile(f"[a-z0-9]{{1,{ATTRIBUTE_NAME_BYTES_MAX}}}")
_PLANE_ENDS: Final = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_FORBIDDEN: Final = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_PLANE_ENDS}]")
"""Control characters, surrogates, noncharacters (CloudEvents 1.0.2, 3.1.1)."""
_HOURS_AND_MINUTES: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_HOURS_AND_MINUTES}:[0-9]{{2}}(?:\.[0-9]{{1,9}})?(?:Z|[+-]{_HOURS_AND_MINUTES})",
    re.I,
)
_INTEGERS: Final = range(-(2**31), 2**31)


def check_name(name: str, field: str) -> None:
    """InvalidArgument unless an attribute may have this name. CloudEvents forbids `data`, which stands for the payload."""
    if not _NAME.fullmatch(name):
        rule = f"attribute names are of 1 to {ATTRIBUTE_NAME_BYTES_MAX} lower-case letters and digits"
        raise InvalidArgument.of(field, rule, name)
    if name == "data":
        raise InvalidArgument.of(field, "no attribute has this name", name)


def make_event(attributes: Mapping[str, Value], named: Named) -> CloudEvent:
    """An event without data. InvalidArgument names the attribute that is missing or wrong."""
    for name in REQUIRED:
        if name not in attributes:
            raise InvalidArgument.of(named(name), "required", "nothing")
    for name, value in attributes.items():
        _check_value(name, value, named)
    if attributes["specversion"] != SPEC_VERSION:
        raise InvalidArgument.of(named("specversion"), f"{SPEC_VERSION!r}", attributes["specversion"])
    id, source, type = (str(attributes[name]) for name in REQUIRED[1:])
    event = CloudEvent(id=id, source=source, spec_version=SPEC_VERSION, type=type)
    for name, value in attributes.items():
        if name not in REQUIRED:
            _set(event.attributes[name], name, value, named)
    return event


def _check_value(name: str, value: Value, named: Named) -> None:
    if isinstance(value, str):
        if _FORBIDDEN.search(value):
            rule = "no control characters, surrogates or noncharacters"
            raise InvalidArgument.of(named(name), rule, value)
        if not value and name in _TEXTS:
            raise InvalidArgument.of(named(name), "required" if name in REQUIRED else "not empty", value)
    elif name in _TEXTS:
        raise InvalidArgument.of(named(name), "a string", value)
    elif value not in _INTEGERS:
        raise InvalidArgument.of(named(name), "an integer of 32 bits", value)


def _set(message: CloudEvent.CloudEventAttributeValue, name: str, value: Value, named: Named) -> None:
    """Text stays text, but for `time`: other readers of CloudEvents' protobuf format take it as a timestamp only."""
    if isinstance(value, bool):
        message.ce_boolean = value
    elif isinstance(value, int):
        message.ce_integer = value
    elif name == "time":
        _set_time(message, value, named)
    else:
        if name == "datacontenttype" and media_type(value) is None:
            raise InvalidArgument.of(named(name), "a media type (RFC 2046)", value)
        message.ce_string = value


def _set_time(message: CloudEvent.CloudEventAttributeValue, text: str, named: Named) -> None:
    """Leap seconds have no place in protobuf's Timestamp."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        message.ce_timestamp.FromJsonString(text.upper())
    except (ValueError, OverflowError):
        rule = "a time of RFC 3339 with a zone, years 1 to 9999, at most nanoseconds, no leap second"
        raise InvalidArgument.of(named("time"), rule, text) from None
