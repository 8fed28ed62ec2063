"""The key of an event: an attribute of it, as a hash."""

from __future__ import annotations

from trunkline.api.v1 import events_pb2
from trunkline.core.hashing import xxh64

from .order import NO_KEY

REQUIRED = frozenset({"id", "source", "type"})
"""Attributes that are fields of the message."""


def key_hash(body: bytes, attribute: str) -> int:
    """XXH64 of an attribute of a serialized event, as CloudEvents writes its value; NO_KEY if it has none."""
    event = events_pb2.CloudEvent.FromString(body)
    text = getattr(event, attribute) if attribute in REQUIRED else _text(event, attribute)
    return (xxh64(text.encode()) or 1) if text else NO_KEY


def _text(event: events_pb2.CloudEvent, attribute: str) -> str:
    if attribute not in event.attributes:
        return ""
    value = event.attributes[attribute]
    kind = value.WhichOneof("attr")
    if kind is None:
        return ""
    found = getattr(value, kind)
    if kind == "ce_timestamp":
        return str(found.ToJsonString())
    if kind == "ce_bytes":
        return str(found.hex())
    return str(found).lower() if kind == "ce_boolean" else str(found)
