"""No field of a request is without a bound: a new one fails here until it has a rule or stands in the list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor

from trunkline.api.rules import OPAQUE, checker, rules_of
from trunkline.api.v1 import (
    admin_pb2,
    discovery_pb2,
    events_pb2,
    registry_pb2,
    releases_pb2,
    schedules_pb2,
    traffic_pb2,
)

UNBOUNDED_BY_RULES = {
    # Bounded where it is read: server/events/settings.py.
    "google.protobuf.FieldMask.paths",
    # Bounded by the size of the event, which the scan of a publish looks at.
    "trunkline.api.v1.CloudEvent.binary_data",
    "trunkline.api.v1.CloudEvent.text_data",
    "trunkline.api.v1.CloudEvent.AttributesEntry.key",
}
WELL_KNOWN = {"google.protobuf.Duration", "google.protobuf.Timestamp"}
TEXTS = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}


def services() -> list[ServiceDescriptor]:
    files = (registry_pb2, discovery_pb2, events_pb2, schedules_pb2, traffic_pb2, releases_pb2, admin_pb2)
    return [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]


def reachable(descriptor: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    if descriptor.full_name not in seen | dict.fromkeys(OPAQUE | WELL_KNOWN, descriptor):
        seen[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                reachable(field.message_type, seen)
    return seen


def request_fields() -> Iterator[FieldDescriptor]:
    seen: dict[str, Descriptor] = {}
    for service in services():
        for method in service.methods:
            reachable(method.input_type, seen)
    for descriptor in seen.values():
        if not descriptor.GetOptions().map_entry:
            yield from descriptor.fields


def unbounded(field: FieldDescriptor) -> list[str]:
    """Names of what has no limit in a field."""
    rules, missing = rules_of(field), []
    if field.is_repeated and not rules.max_items:
        missing.append(field.full_name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        if entry["key"].type in TEXTS and not rules.item_format:
            missing.append(entry["key"].full_name)
        if entry["value"].type in TEXTS and not rules.item_max_bytes:
            missing.append(entry["value"].full_name)
    elif field.type in TEXTS:
        form, longest = (
            (rules.item_format, rules.item_max_bytes) if field.is_repeated else (rules.format, rules.max_bytes)
        )
        if not form and not longest:
            missing.append(field.full_name)
    return missing


def test_every_field_of_every_request_is_bounded() -> None:
    missing = {name for field in request_fields() for name in unbounded(field)}
    assert missing == UNBOUNDED_BY_RULES


def test_the_walk_sees_the_requests() -> None:
    names = {field.full_name for field in request_fields()}
    assert len(names) > 130
    assert "trunkline.api.v1.Endpoint.host" in names
    assert "trunkline.api.v1.CloudEvent.id" in names


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_every_request_type_compiles(service: ServiceDescriptor) -> None:
    for method in service.methods:
        assert callable(checker(method.input_type))
