"""Events as users write and read them; CloudEvents 1.0 on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeAlias

from google.protobuf.message import Message

from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.errors import InvalidArgument

SPEC_VERSION = "1.0"
EVENT_ID_BYTES = 16
JSON_TYPE = "application/json"

Attribute: TypeAlias = bool | int | str | bytes | datetime
"""The types of CloudEvents attributes; an int has 32 bits, a datetime a time zone."""

NO_ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({})
_OWN_NAMES = frozenset({"topic", "partitionkey", "subject"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A CloudEvent. `(source, id)` names it: publishing it twice within the stream's dedupe window keeps it once."""

    type: str
    """What happened: "order.placed". It is the event's topic, too, unless `topic` says another."""
    data: bytes | str | Message | None = None
    """The payload; `Event.json` makes one from a JSON value."""
    id: str = ""
    """Empty: a random one is chosen when the event is published."""
    source: str = ""
    """Who says it; empty: the connection's client name."""
    subject: str = ""
    """What it is about, in the source's own words."""
    key: str = ""
    """Events of one key belong together (CloudEvents' partitionkey)."""
    topic: str = ""
    """Dotted words that filters match."""
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: NO_ATTRIBUTES, hash=False)
    """Further attributes: "datacontenttype", "traceparent", your own."""

    def __post_init__(self) -> None:
        own = _OWN_NAMES.intersection(self.attributes)
        if own:
            raise InvalidArgument.of("event.attributes", "use the field of this name", ", ".join(sorted(own)))

    @classmethod
    def json(cls, *, type: str, data: Any, **fields: Any) -> Event:
        """An event whose data is a JSON value. TypeError when it cannot be written as JSON."""
        attributes = {"datacontenttype": JSON_TYPE, **fields.pop("attributes", {})}
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return cls(type=type, data=text, attributes=attributes, **fields)

    def json_data(self) -> Any:
        """The data read as JSON. ValueError when it is none."""
        if isinstance(self.data, Message) or self.data is None:
            raise ValueError(f"the data of event {self.id} is not text")
        return json.loads(self.data)

    def named(self, *, source: str, entropy: Callable[[int], bytes]) -> Event:
        """The same event with source and id filled in."""
        if self.id and self.source:
            return self
        return replace(self, id=self.id or entropy(EVENT_ID_BYTES).hex(), source=self.source or source)


def event_to(event: Event) -> CloudEvent:
    """The message of a named event."""
    message = CloudEvent(id=event.id, source=event.source, spec_version=SPEC_VERSION, type=event.type)
    for name, text in (("topic", event.topic), ("partitionkey", event.key), ("subject", event.subject)):
        if text:
            message.attributes[name].ce_string = text
    for name, value in event.attributes.items():
        _set_attribute(message.attributes[name], name, value)
    match event.data:
        case bytes():
            message.binary_data = event.data
        case str():
            message.text_data = event.data
        case Message():
            message.proto_data.Pack(event.data)
    return message


def event_from(message: CloudEvent) -> Event:
    """What a message says. Data packed as a message comes as google.protobuf.Any."""
    topic = key = subject = ""
    others: dict[str, Attribute] | None = None
    said = message.attributes
    for name in said:  # items() of such a map is a slow detour
        value = _attribute_from(said[name])
        if name == "partitionkey":
            key = str(value)
        elif name == "topic":
            topic = str(value)
        elif name == "subject":
            subject = str(value)
        else:
            others = others or {}
            others[name] = value
    which = message.WhichOneof("data")
    event = _new_event(Event)
    _set_id(event, message.id)
    _set_source(event, message.source)
    _set_type(event, message.type)
    _set_data(event, getattr(message, which) if which else None)
    _set_topic(event, topic)
    _set_key(event, key)
    _set_subject(event, subject)
    _set_attributes(event, MappingProxyType(others) if others else NO_ATTRIBUTES)
    return event


# Every delivery makes an event, and none of its fields' names is among its attributes. The constructor of a frozen
# dataclass looks each field up by its name to set it, half of what reading a delivery took: these are the fields.
_new_event = object.__new__
_set_id, _set_source, _set_type, _set_data, _set_topic, _set_key, _set_subject, _set_attributes = (
    vars(Event)[name].__set__ for name in ("id", "source", "type", "data", "topic", "key", "subject", "attributes")
)


def _set_attribute(message: CloudEvent.CloudEventAttributeValue, name: str, value: Attribute) -> None:
    match value:
        case bool():
            message.ce_boolean = value
        case int():
            if not -(2**31) <= value < 2**31:
                raise InvalidArgument.of(f"event.attributes[{name}]", "an integer of 32 bits", value)
            message.ce_integer = value
        case str():
            message.ce_string = value
        case bytes():
            message.ce_bytes = value
        case datetime():
            if value.tzinfo is None:
                raise InvalidArgument.of(f"event.attributes[{name}]", "a time with its zone", value)
            message.ce_timestamp.FromDatetime(value)
        case _:
            raise InvalidArgument.of(f"event.attributes[{name}]", "bool, int, str, bytes or datetime", value)


def _attribute_from(value: CloudEvent.CloudEventAttributeValue) -> Attribute:
    which = value.WhichOneof("attr")
    if which == "ce_string":
        return value.ce_string
    if which is None:
        return ""
    if which == "ce_timestamp":
        return value.ce_timestamp.ToDatetime(tzinfo=UTC)
    said: Attribute = getattr(value, which)
    return said
