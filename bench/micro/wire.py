"""Scanning publish requests, beside protobuf's parser with a Python loop over the messages."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from bench.micro.timing import FULL, QUICK, Loop, each, row
from trunkline.api.v1 import events_pb2
from trunkline.core.wire import event_identity, scan_publish

EVENTS = 1_000
EVENT_BYTES = 200
TOPICS = 16
PEER = "protobuf FromString and a loop over the events"

Row = dict[str, Any]


def request(count: int) -> bytes:
    """A serialized request of events of EVENT_BYTES, keyed, over a few topics."""
    made = events_pb2.PublishRequest(namespace="shop")
    for number in range(count):
        event = made.events.add(id=f"{number:032x}", source="/shop/orders", spec_version="1.0")
        event.type = f"orders.created.{number % TOPICS:02}"
        event.attributes["partitionkey"].ce_string = f"customer-{number % 50:02}"
        event.binary_data = bytes(EVENT_BYTES - event.ByteSize() - 2)
        assert event.ByteSize() == EVENT_BYTES
    return made.SerializeToString()


def per_event(call: Callable[[], object], count: int) -> Loop:
    """A loop whose unit is one event of the `count` that each call works on."""

    def loop(n: int) -> int:
        calls = max(1, n // count)
        begin = perf_counter_ns()
        for _ in range(calls):
            call()
        return (perf_counter_ns() - begin) * n // (calls * count)

    return loop


def by_messages(data: bytes) -> list[tuple[str, str, str, str]]:
    """What a server without a scanner has to look at."""
    return [
        (event.source, event.id, event.type, event.attributes["partitionkey"].ce_string)
        for event in events_pb2.PublishRequest.FromString(data).events
    ]


def rows(quick: bool) -> list[Row]:
    """All results, in nanoseconds an event."""
    plan = QUICK if quick else FULL
    found = []
    for count in (1, EVENTS):
        data = request(count)
        found.append(
            row(
                "wire",
                f"scan of {count:,} x {EVENT_BYTES} B, an event",
                plan,
                per_event(lambda data=data: scan_publish(data, stream_request=False), count),  # type: ignore[misc]
                PEER,
                per_event(lambda data=data: by_messages(data), count),  # type: ignore[misc]
                goal_ns=300 if count > 1 else None,
            )
        )
    body = bytes(scan_publish(request(1), stream_request=False).payload)[3:]
    parse = events_pb2.CloudEvent.FromString
    found.append(
        row(
            "wire",
            "source and id of one event",
            plan,
            each(lambda: event_identity(body)),
            "protobuf FromString",
            each(lambda: parse(body)),
        )
    )
    return found
