"""What a dead letter is: the event that could not be handled, under a name of its own, with what is known of its end."""

from __future__ import annotations

from typing import Final

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.core.wire import Scan, scan_publish

from .progress import SetAside

REASON_BYTES_MAX: Final = 1_024


def dead_letter(
    body: bytes, aside: SetAside, *, key: str, created_revision: int, incarnation: int
) -> events_pb2.CloudEvent:
    """The dead letter of a stored event. `incarnation` is the one in which the stream took the event.

    Its topic, key, data and other attributes are the event's. Source and id are made of the subscription and the event's
    position, so that it is the same dead letter however often it is published; an event that was delivered again on
    request and failed once more gets another one.
    """
    event = events_pb2.CloudEvent.FromString(body)
    _, namespace, stream, subscription = key.split("/", 3)
    said = {
        "dlsubscription": subscription,
        "dlstream": stream,
        "dlincarnation": str(incarnation),
        "dloffset": str(aside.offset),
        "dlreason": aside.reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"),
        "dlsource": event.source,
        "dlid": event.id,
    }
    for name, text in said.items():
        event.attributes[name].ce_string = text
    event.attributes["dlattempts"].ce_integer = aside.attempts
    event.attributes["dltime"].ce_timestamp.CopyFrom(convert.time_ns_to(aside.time_ns))
    event.source = f"/trunkline/{namespace}/{stream}/{subscription}"
    again = f"-{aside.again_ms}" if aside.again_ms else ""
    event.id = f"{created_revision}-{incarnation:x}-{aside.offset}{again}"
    if "expirytime" in event.attributes:  # what failed is to be looked at, however late
        event.attributes["dlexpirytime"].CopyFrom(event.attributes["expirytime"])
        del event.attributes["expirytime"]
    return event


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
