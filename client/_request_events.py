"""Requests and replies as events: attributes on the wire, and what they mean. Without I/O or clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2

from trunkline.api.status import error_from, status_to
from trunkline.core.errors import InvalidArgument, RequestFailed, TrunklineError

from ._event import Attribute, Event

CORRELATION = "correlationid"
"""CloudEvents' extension of this name: the same in a request and its reply."""
REPLY_TOPIC = "replytopic"
"""Of a request: the topic of its reply, on the request's stream."""
EXPIRY = "expirytime"
"""CloudEvents' extension of this name: when nobody waits for the reply any more. The control plane does not deliver a request
that is past it."""
ERROR_CODE = "errorcode"
"""Of a reply that is an error: its code. The data is a google.rpc.Status."""
OWN = frozenset({CORRELATION, REPLY_TOPIC, EXPIRY, ERROR_CODE})
FAILED_TYPE = "trunkline.request.failed"
REPLY_WORDS = "reply."
"""Begins every reply topic: who asks must not have others publish where it may not publish itself."""


class Wish(NamedTuple):
    """What the sender of a request wants."""

    correlation: str
    topic: str
    """Of the reply."""
    expires_ns: int | None
    """Nanoseconds since the epoch; None: it waits for ever."""


def request_event(event: Event, wish: Wish) -> Event:
    """The event as a request. InvalidArgument when it says itself what a request says."""
    attributes: dict[str, Attribute] = {CORRELATION: wish.correlation, REPLY_TOPIC: wish.topic}
    if wish.expires_ns is not None:
        attributes[EXPIRY] = datetime.fromtimestamp(wish.expires_ns / 1e9, UTC)
    return replace(event, attributes={**_without_own(event.attributes, "event"), **attributes})


def wish_of(event: Event) -> Wish | None:
    """What a delivered event asks for; None when it is no request."""
    correlation, topic, expiry = (event.attributes.get(name) for name in (CORRELATION, REPLY_TOPIC, EXPIRY))
    if not isinstance(correlation, str) or not isinstance(topic, str):
        return None
    if not correlation or not topic.startswith(REPLY_WORDS):
        return None
    return Wish(correlation, topic, _time_ns_of(expiry))


def reply_event(reply: Event, wish: Wish) -> Event:
    """The event as a reply, on its topic. InvalidArgument when it has a topic of its own."""
    if reply.topic:
        raise InvalidArgument.of("reply.topic", "the request's, so none", reply.topic)
    return replace(
        reply,
        topic=wish.topic,
        attributes={**_without_own(reply.attributes, "reply"), CORRELATION: wish.correlation},
    )


def failure_event(error: Exception, wish: Wish) -> Event:
    """The reply that raises at the sender: our own errors as they are, all others as RequestFailed."""
    known = error if isinstance(error, TrunklineError) else RequestFailed(f"{type(error).__name__}: {error}")
    attributes: dict[str, Attribute] = {CORRELATION: wish.correlation, ERROR_CODE: known.code}
    return Event(type=FAILED_TYPE, topic=wish.topic, data=status_to(known), attributes=attributes)


def error_of_reply(reply: Event) -> TrunklineError | None:
    """What a reply raises; None when it is a good one."""
    if ERROR_CODE not in reply.attributes:
        return None
    status = status_pb2.Status()
    if not (isinstance(reply.data, AnyMessage) and reply.data.Unpack(status)):
        return RequestFailed(f"{reply.attributes[ERROR_CODE]!s}: the reply does not say more")
    return error_from("UNKNOWN", status.message, status.SerializeToString())


def _time_ns_of(expiry: Attribute | None) -> int | None:
    """A timestamp, or text in RFC 3339, as the server reads it; None for anything else."""
    if isinstance(expiry, str):
        try:
            expiry = datetime.fromisoformat(expiry)
        except ValueError:
            return None
    return int(expiry.timestamp() * 1e9) if isinstance(expiry, datetime) and expiry.tzinfo is not None else None


def _without_own(attributes: Mapping[str, Attribute], what: str) -> Mapping[str, Attribute]:
    if own := OWN.intersection(attributes):
        raise InvalidArgument.of(f"{what}.attributes", "none of a request's own", ", ".join(sorted(own)))
    return attributes
