"""Serialized publish requests, made quickly: one is encoded, then its batch number is written over."""

from __future__ import annotations

from trunkline.api.v1 import events_pb2

EVENT_BYTES = 200
TOPICS = 16
MARK = b"<bench-was-here>"
"""Stands once in each event's data, with NUMBER behind it: a reader that counts it counts events, and knows whose."""
NUMBER = b"@batch-number-16"
"""Stands in each id and behind each mark, and as long, for the number of the batch."""


class Batches:
    """Requests of `count` events of 200 bytes each, all ids different; `at(n)` is the n-th."""

    def __init__(self, count: int, *, namespace: str, stream: str = "", source: str = "/bench", keys: int = 50) -> None:
        made = events_pb2.PublishRequest(namespace=namespace, stream=stream)
        for number in range(count):
            event = made.events.add(id=f"{NUMBER.decode()}{number:04x}", source=source, spec_version="1.0")
            event.type = f"orders.created.{number % TOPICS:02}"
            event.attributes["partitionkey"].ce_string = f"customer-{number % keys:02}"
            event.binary_data = (MARK + NUMBER).ljust(EVENT_BYTES - event.ByteSize() - 2, b".")
            assert event.ByteSize() == EVENT_BYTES
        self.count = count
        self.template = made.SerializeToString()
        """A request that bears NUMBER."""
        assert self.template.count(NUMBER) == 2 * count

    def at(self, number: int) -> bytes:
        """A request whose ids no other number has."""
        return self.template.replace(NUMBER, b"%016x" % number)
