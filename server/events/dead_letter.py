"""Dead letters of what a subscription has set aside, and whether they can be published."""

from __future__ import annotations

from trunkline.api import dead_letters
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.core.wire import Scan, scan_publish

from .progress import SetAside


def dead_letter(
    body: bytes, aside: SetAside, *, key: str, created_revision: int, incarnation: int
) -> events_pb2.CloudEvent:
    """The dead letter of a stored event; see api/dead_letters.py."""
    _, namespace, stream, subscription = key.split("/", 3)
    return dead_letters.dead_letter(
        events_pb2.CloudEvent.FromString(body),
        dead_letters.Subscribed(namespace, stream, subscription, created_revision),
        incarnation=incarnation,
        offset=aside.offset,
        attempts=aside.attempts,
        reason=aside.reason,
        time_ns=aside.time_ns,
        again_ms=aside.again_ms,
    )


def scanned(letters: list[events_pb2.CloudEvent], *, namespace: str, stream: str) -> Scan:
    """As a publish of them. InvalidArgument when one of them is too large, or has too many attributes."""
    request = events_pb2.PublishRequest(namespace=namespace, stream=stream, events=letters)
    return scan_publish(request.SerializeToString(), stream_request=False)


def is_fit(letter: events_pb2.CloudEvent, *, namespace: str, stream: str) -> bool:
    """Whether it can be published: with what is added, an event may be too large, or have too many attributes."""
    try:
        scanned([letter], namespace=namespace, stream=stream)
    except InvalidArgument:
        return False
    return True
