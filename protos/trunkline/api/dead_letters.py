"""What a dead letter is: the event that could not be handled, under a name of its own, with what is known of its end."""

from __future__ import annotations

from typing import Final, NamedTuple

from . import convert
from .v1 import events_pb2

REASON_BYTES_MAX: Final = 1_024


class Subscribed(NamedTuple):
    """The subscription that could not handle it."""

    namespace: str
    stream: str
    subscription: str
    created_revision: int


def dead_letter(
    event: events_pb2.CloudEvent,
    by: Subscribed,
    *,
    incarnation: int,
    offset: int,
    attempts: int,
    reason: str,
    time_ns: int,
    again_ms: int = 0,
) -> events_pb2.CloudEvent:
    """Make an event its dead letter. `incarnation` is the one in which the stream took the event, `time_ns` when it was
    given up, `again_ms` when somebody had it delivered again though it was done (since the epoch; 0 if nobody did).

    Its topic, key, data and other attributes are the event's. Source and id are made of the subscription and the event's
    position, so that it is the same dead letter however often it is published; an event that was delivered again on
    request and failed once more gets another one.
    """
    said = {
        "dlsubscription": by.subscription,
        "dlstream": by.stream,
        "dlincarnation": str(incarnation),
        "dloffset": str(offset),
        "dlreason": reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"),
        "dlsource": event.source,
        "dlid": event.id,
    }
    for name, text in said.items():
        event.attributes[name].ce_string = text
    event.attributes["dlattempts"].ce_integer = attempts
    event.attributes["dltime"].ce_timestamp.CopyFrom(convert.time_ns_to(time_ns))
    event.source = f"/trunkline/{by.namespace}/{by.stream}/{by.subscription}"
    again = f"-{again_ms}" if again_ms else ""
    event.id = f"{by.created_revision}-{incarnation:x}-{offset}{again}"
    if "expirytime" in event.attributes:  # what failed is to be looked at, however late
        event.attributes["dlexpirytime"].CopyFrom(event.attributes["expirytime"])
        del event.attributes["expirytime"]
    return event
