"""Events with keys, and a plain model of what compaction by key may leave of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from trunkline.api.v1 import events_pb2
from trunkline.core.wire import scan_publish
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.log import Log


class Keyed(NamedTuple):
    """An event: its number (which is its id), its key ("" for none), whether it is a tombstone."""

    number: int
    key: str
    ends: bool = False

    def message(self, size: int = 0) -> events_pb2.CloudEvent:
        """A CloudEvent."""
        event = events_pb2.CloudEvent(id=str(self.number), source="/keyed", spec_version="1.0", type="price.changed")
        if self.key:
            event.attributes["partitionkey"].ce_string = self.key
        if self.ends:
            event.attributes["tombstone"].ce_boolean = True
        else:
            event.text_data = f"{self.number} " + "x" * size
        return event

    @staticmethod
    def of(body: bytes) -> Keyed:
        """What a stored event is."""
        event = events_pb2.CloudEvent.FromString(body)
        key = event.attributes["partitionkey"].ce_string if "partitionkey" in event.attributes else ""
        return Keyed(int(event.id), key, "tombstone" in event.attributes)


def batch_of(events: Iterable[Keyed], size: int = 0) -> Batch:
    """As a publish brings them into the journal."""
    request = events_pb2.PublishRequest(namespace="shop", events=[event.message(size) for event in events])
    return Batch.of_scan(scan_publish(request.SerializeToString(), stream_request=False))


async def read_events(log: Log, *, max_bytes: int = 1 << 16) -> dict[int, Keyed]:
    """Everything that the log holds, by offset; asserts that it comes in order."""
    found: dict[int, Keyed] = {}
    at = log.first_offset
    while blocks := await log.read(at, max_bytes=max_bytes):
        for block in blocks:
            assert block.offsets[0] == block.base_offset
            assert block.offsets[-1] + 1 == block.end_offset
            for index, offset in enumerate(block.offsets):
                assert offset >= at
                at = offset + 1
                assert block.index_of(offset) == index
                found[offset] = Keyed.of(bytes(block.body(index)))
        at = blocks[-1].end_offset
    return found


@dataclass
class KeyModel:
    """What was published, by offset, and what was seen to have gone."""

    events: dict[int, Keyed] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def latest(self) -> dict[str, int]:
        """By key the offset of its last event."""
        return {event.key: offset for offset, event in sorted(self.events.items()) if event.key}

    def broken(self, found: dict[int, Keyed], *, from_offset: int = 0) -> list[str]:
        """What a reader of everything from an offset on should not have seen, or not have missed. Takes down what has gone."""
        problems = [
            f"{offset} is {event}, was {self.events.get(offset)}"
            for offset, event in found.items()
            if self.events.get(offset) != event
        ]
        problems += [f"{offset} came back" for offset in sorted(self.gone & found.keys())]
        seen = {event.key: offset for offset, event in sorted(found.items()) if event.key}
        for key, offset in self.latest().items():
            if offset >= from_offset and seen.get(key) != offset and not (self.events[offset].ends and key not in seen):
                problems.append(f"the last of {key} is {offset}, seen was {seen.get(key)}")
        keyless = {o for o, event in self.events.items() if not event.key and o >= from_offset}
        problems += [f"{offset} has no key and is gone" for offset in sorted(keyless - found.keys())]
        self.gone |= {offset for offset in self.events if offset >= from_offset} - found.keys()
        return problems
