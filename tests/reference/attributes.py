"""Texts of attributes by protobuf's own message, as CloudEvents writes them (1.0.2, 3.1)."""

from __future__ import annotations

import base64

from trunkline.api.v1 import events_pb2

FIELDS = {"id": "id", "source": "source", "type": "type", "specversion": "spec_version"}


def text_of(event: events_pb2.CloudEvent, name: str) -> str | None:
    """None when the event has no such attribute."""
    if name in FIELDS:
        found: str = getattr(event, FIELDS[name])
        return found
    if name not in event.attributes:
        return None
    value = event.attributes[name]
    match value.WhichOneof("attr"):
        case None:
            return None
        case "ce_boolean":
            return "true" if value.ce_boolean else "false"
        case "ce_bytes":
            return base64.b64encode(value.ce_bytes).decode()
        case "ce_timestamp":
            return value.ce_timestamp.ToJsonString()
        case kind:
            return str(getattr(value, kind))
