"""What services see of control: CloudEvents derived from folded records. Pure; nothing of it is stored."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf import json_format

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.model import RegisteredInstance
from trunkline.core.records import Record
from trunkline.server.journal.batch import frame_head
from trunkline.server.registry.changes import RegistryChange

from .event_block import EventBlock


class DerivedEvent(NamedTuple):
    """One event of a namespace; its offset is the revision."""

    revision: int
    time_ns: int
    topic: str
    body: bytes


def of_instance(change: RegistryChange, incarnation: int) -> DerivedEvent:
    """An instance changed."""
    data = {
        "revision": change.revision,
        "namespace": change.namespace,
        "service": change.service,
        "instance": change.instance_id,
        "what": change.what,
        "before": _shown(change.before),
        "after": _shown(change.after),
        "author": change.author,
        "reason": change.reason,
    }
    topic = "trunkline.instance." + change.what.replace(" ", "_")
    subject = f"{change.service}/{change.instance_id}"
    return _event(change.namespace, topic, subject, change.revision, change.time_ns, incarnation, data)


def of_record(record: Record, incarnation: int) -> DerivedEvent:
    """A stream, a subscription, a schedule or a policy came, changed or went. A policy is named by its service; that of a
    namespace has no name."""
    _, namespace, subject = record.key.split("/", 2)
    data = {
        "revision": record.offset,
        "namespace": namespace,
        "name": subject,
        "author": record.author,
        "reason": record.reason,
    }
    return _event(namespace, f"trunkline.{record.topic}", subject, record.offset, record.time_ns, incarnation, data)


def _shown(registered: RegisteredInstance | None) -> Any:
    if registered is None:
        return None
    return json_format.MessageToDict(convert.registered_to(registered), preserving_proto_field_name=True)


def _event(
    namespace: str, topic: str, subject: str, revision: int, time_ns: int, incarnation: int, data: dict[str, Any]
) -> DerivedEvent:
    event = events_pb2.CloudEvent(
        id=f"{incarnation:016x}-{revision}",
        source=f"/trunkline/{namespace}",
        spec_version="1.0",
        type=topic,
        text_data=json.dumps(data, separators=(",", ":"), sort_keys=True),
    )
    if subject:  # CloudEvents has no empty ones
        event.attributes["subject"].ce_string = subject
        event.attributes["partitionkey"].ce_string = subject
    event.attributes["datacontenttype"].ce_string = "application/json"
    event.attributes["time"].ce_timestamp.CopyFrom(convert.time_ns_to(time_ns))
    return DerivedEvent(revision, time_ns, topic, event.SerializeToString(deterministic=True))


class ChangeBlock:
    """Derived events of one time. Covers offsets up to `end`; those without an event are other namespaces' business."""

    def __init__(self, events: Sequence[DerivedEvent], *, end: int) -> None:
        self.offsets = [event.revision for event in events]
        self.end = end
        self.count = len(events)
        self.time_ns = events[0].time_ns if events else 0
        self.topics = list(dict.fromkeys(event.topic for event in events))
        self.key_hashes = None
        self.topic_ids = [self.topics.index(event.topic) for event in events]
        self.ends = array("I")
        payload = bytearray()
        for event in events:
            payload += frame_head(len(event.body)) + event.body
            self.ends.append(len(payload))
        self.payload = bytes(payload)


def wrap_changes(block: ChangeBlock, start: int) -> EventBlock:
    """Derived events for the dispatcher."""
    return EventBlock(block, block.offsets, start=start, end=block.end)


def in_blocks(events: Sequence[DerivedEvent], *, end: int) -> list[ChangeBlock]:
    """Events in blocks of one time each; together they cover everything up to `end`."""
    blocks: list[ChangeBlock] = []
    first = 0
    for index in range(1, len(events) + 1):
        if index == len(events):
            blocks.append(ChangeBlock(events[first:], end=end))
        elif events[index].time_ns != events[first].time_ns:
            blocks.append(ChangeBlock(events[first:index], end=events[index].revision))
            first = index
    return blocks
