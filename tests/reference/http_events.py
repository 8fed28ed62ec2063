"""CloudEvents as HTTP requests, written as the HTTP binding 1.0.2 and the JSON format 1.0.2 say: what the server reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from trunkline.api.v1.events_pb2 import CloudEvent

Headers = Sequence[tuple[bytes, bytes]]
SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""Printable ASCII but space, double quote and percent sign."""
STRUCTURED = (b"Content-Type", b"application/cloudevents+json; charset=UTF-8")
BATCHED = (b"Content-Type", b"application/cloudevents-batch+json; charset=UTF-8")


def escaped(text: str) -> bytes:
    """A header's value, percent-encoded where it must be."""
    return quote(text, safe=SAFE).encode()


def quoted(text: str) -> bytes:
    """The same in double quotes, as before percent signs stood for quotes and spaces."""
    inner = quote(text, safe=SAFE + ' "').replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'.encode()


def binary(event: CloudEvent) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the binary mode."""
    attributes = attributes_of(event)
    headers = []
    content_type = attributes.pop("datacontenttype", None)
    if content_type is not None:
        headers.append((b"Content-Type", content_type.encode()))
    headers += [(f"ce-{name}".encode(), escaped(_canonical(value))) for name, value in attributes.items()]
    return headers, event.binary_data or event.text_data.encode()


def structured(event: CloudEvent) -> dict[str, Any]:
    """The JSON object of an event, but for JSON data, which goes in as it was written: see `with_data`."""
    told = attributes_of(event)
    if event.WhichOneof("data") == "binary_data":
        told["data_base64"] = base64.b64encode(event.binary_data).decode()
    elif event.WhichOneof("data") == "text_data" and not is_json(event):
        told["data"] = event.text_data
    return told


def with_data(event: CloudEvent, encoded: str) -> str:
    """The object's text with JSON data."""
    if event.WhichOneof("data") == "text_data" and is_json(event):
        return f'{encoded[:-1]}, "data": {event.text_data}}}'
    return encoded


def written(event: CloudEvent, **options: Any) -> str:
    """The JSON text of an event; `options` are those of json.dumps."""
    return with_data(event, json.dumps(structured(event), **options))


def is_json(event: CloudEvent) -> bool:
    """Whether its data is declared to be JSON."""
    name = event.attributes["datacontenttype"].ce_string if "datacontenttype" in event.attributes else "/json"
    name = name.partition(";")[0].strip().lower()
    return name.endswith(("/json", "+json"))


def attributes_of(event: CloudEvent) -> dict[str, Any]:
    """Every attribute, by its name in CloudEvents."""
    told: dict[str, Any] = {"specversion": event.spec_version, "id": event.id, "source": event.source}
    told["type"] = event.type
    for name, value in event.attributes.items():
        kind = value.WhichOneof("attr")
        assert kind is not None
        told[name] = value.ce_timestamp.ToJsonString() if kind == "ce_timestamp" else getattr(value, kind)
    return told


def _canonical(value: Any) -> str:
    """A value's canonical string (CloudEvents 1.0.2, 3.1.1)."""
    return str(value).lower() if isinstance(value, bool) else str(value)
