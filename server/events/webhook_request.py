"""An event as an HTTP request. Pure.

CloudEvents HTTP protocol binding 1.0.2 and JSON event format 1.0.2; signed by Standard Webhooks 1.0.0, whose `webhook-id`
stays the same over all attempts, so that it serves as an idempotency key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string
from collections.abc import Iterator
from typing import NamedTuple, NoReturn
from urllib.parse import quote

from trunkline.api.v1 import events_pb2

from .webhook_settings import WebhookSettings

USER_AGENT = "trunkline-webhooks"
STRUCTURED_TYPE = "application/cloudevents+json; charset=utf-8"
PACKED_TYPE = "application/protobuf"
_HEADER_SAFE = string.printable[:94].replace("%", "").replace('"', "")
"""U+0021 to U+007E but for the two that the binding has percent-encoded (3.1.3.2)."""
_RESERVED = frozenset(("specversion", "id", "source", "type", "data"))
"""No attribute that a publisher adds stands for one of these."""
_Value = events_pb2.CloudEvent.CloudEventAttributeValue


class Request(NamedTuple):
    """What is sent with POST."""

    headers: dict[str, str]
    body: bytes


def request_of(
    event: events_pb2.CloudEvent, webhook: WebhookSettings, *, subscription: str, attempt: int, time_ns: int
) -> Request:
    """The request of one attempt, made at `time_ns` since the epoch."""
    headers, body = _structured(event) if webhook.structured else _binary(event)
    name = webhook_id(event)
    timestamp = time_ns // 1_000_000_000
    headers |= {
        "User-Agent": USER_AGENT,
        "trunkline-attempt": str(attempt),
        "trunkline-subscription": subscription,
        "webhook-id": name,
        "webhook-timestamp": str(timestamp),
    }
    if webhook.secret:
        headers["webhook-signature"] = signature(webhook.secret, name, timestamp, body)
    return Request(headers, body)


def webhook_id(event: events_pb2.CloudEvent) -> str:
    """Names the event as (source, id) does, in characters that a signature's content may hold."""
    named = f"{event.source}\0{event.id}".encode()
    return "msg_" + hashlib.sha256(named).hexdigest()[:32]


def signature(secret: bytes, name: str, timestamp_s: int, body: bytes) -> str:
    """Standard Webhooks' symmetric signature, `v1`."""
    signed = b"%s.%d.%s" % (name.encode(), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def _binary(event: events_pb2.CloudEvent) -> tuple[dict[str, str], bytes]:
    attributes = {name: _text(value) for name, value in _attributes(event)}
    content_type = attributes.pop("datacontenttype", "")
    headers = {f"ce-{name}": _encoded(value) for name, value in attributes.items()}
    if content_type:
        # As it stands (3.1.1), unless no header could hold that.
        fits = content_type.isascii() and content_type.isprintable()
        headers["Content-Type"] = content_type if fits else _encoded(content_type)
    return headers, _data(event)


def _structured(event: events_pb2.CloudEvent) -> tuple[dict[str, str], bytes]:
    shown = {name: _json_value(value) for name, value in _attributes(event)}
    data = ""
    match event.WhichOneof("data"):
        case "text_data":
            data = ',"data":' + _json_data(event.text_data, str(shown.get("datacontenttype", "")))
        case "binary_data" | "proto_data":
            shown["data_base64"] = base64.b64encode(_data(event)).decode()
    return {"Content-Type": STRUCTURED_TYPE}, f"{_json(shown)[:-1]}{data}}}".encode()


def _attributes(event: events_pb2.CloudEvent) -> Iterator[tuple[str, str | _Value]]:
    yield from (("specversion", event.spec_version), ("id", event.id), ("source", event.source), ("type", event.type))
    yield from ((name, value) for name, value in event.attributes.items() if name not in _RESERVED)
    if event.WhichOneof("data") == "proto_data":
        if "datacontenttype" not in event.attributes:
            yield "datacontenttype", PACKED_TYPE
        if "dataschema" not in event.attributes:
            yield "dataschema", event.proto_data.type_url


def _data(event: events_pb2.CloudEvent) -> bytes:
    match event.WhichOneof("data"):
        case "text_data":
            return event.text_data.encode()
        case "binary_data":
            return event.binary_data
        case "proto_data":
            return event.proto_data.value
    return b""


def _json_data(text: str, content_type: str) -> str:
    """JSON stands as it is, byte for byte; other text as a string (JSON event format, 3.1.1)."""
    kind = content_type.partition(";")[0].strip().lower()
    is_json = (not kind or kind.endswith(("/json", "+json"))) and _is_json(text)
    return text if is_json else _json(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False  # what says that it is JSON and is not goes out as text, so that nothing is lost
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json_value(value: str | _Value) -> str | bool | int:
    if isinstance(value, str):
        return value
    match value.WhichOneof("attr"):
        case "ce_boolean":
            return value.ce_boolean
        case "ce_integer":
            return value.ce_integer
    return _text(value)


def _text(value: str | _Value) -> str:
    """An attribute's canonical text (CloudEvents 1.0.2, 3.1)."""
    if isinstance(value, str):
        return value
    match value.WhichOneof("attr"):
        case "ce_boolean":
            return "true" if value.ce_boolean else "false"
        case "ce_integer":
            return str(value.ce_integer)
        case "ce_bytes":
            return base64.b64encode(value.ce_bytes).decode()
        case "ce_uri":
            return value.ce_uri
        case "ce_uri_ref":
            return value.ce_uri_ref
        case "ce_timestamp":
            return value.ce_timestamp.ToJsonString()
    return value.ce_string


def _encoded(text: str) -> str:
    return quote(text, safe=_HEADER_SAFE)
