"""Reading instances, entries of a snapshot and heads of records, beside asking protobuf for one field after the other."""

from __future__ import annotations

from typing import Any

from bench.load.world import World, instance
from bench.micro.timing import FULL, QUICK, each, row
from trunkline.api import convert
from trunkline.api.journal.v1 import admission_pb2, record_pb2, registry_pb2
from trunkline.api.v1 import common_pb2
from trunkline.core.entries import read_entries
from trunkline.core.heads import read_head, read_versions
from trunkline.core.instances import read_instance
from trunkline.core.model import Declared, Endpoint, Instance, Locality

Row = dict[str, Any]
PEER = "protobuf, one field after the other"


def instance_by_fields(message: common_pb2.Instance) -> Instance:
    """What `read_instance` makes of it."""
    return Instance(
        namespace=message.namespace,
        service=message.service,
        id=message.id,
        endpoints=tuple([Endpoint(one.host, one.port, one.protocol) for one in message.endpoints]),
        version=message.version,
        weight=message.weight,
        locality=Locality(message.locality.region, message.locality.zone, message.locality.sub_zone),
        labels=dict(message.labels),
        declared=Declared(message.declared),
    )


def entries_by_fields(piece: bytes) -> list[Any]:
    """What `read_entries` makes of it."""
    return [
        (
            instance_by_fields(entry.instance),
            entry.created_revision,
            entry.modified_revision,
            entry.registered_at_ns,
            (entry.lease.id, entry.lease.secret_hash, entry.lease.ttl_ms, entry.lease.keeper, None, 0),
            None,
            None,
        )
        for entry in registry_pb2.RegistryPiece.FromString(piece).entries
    ]


def head_by_fields(data: bytes) -> tuple[Any, ...]:
    """What `read_head` makes of it."""
    head = record_pb2.RecordHead.FromString(data)
    version = (head.version.writer, head.version.epoch, head.version.sequence)
    return head.key, head.id, head.namespace, head.schema, version, None, head.author, head.reason, head.traceparent


def versions_by_fields(piece: bytes) -> list[Any]:
    """What `read_versions` makes of it."""
    keys = admission_pb2.AdmissionPiece.FromString(piece).keys
    return [(one.key, one.version.writer, one.version.epoch, one.version.sequence) for one in keys]


def rows(quick: bool) -> list[Row]:
    """In nanoseconds a call."""
    message = convert.instance_to(instance(World(), 1))
    data, check = message.SerializeToString(), convert.health_check_of
    lease = registry_pb2.RegistryLease(id=1 << 63, secret_hash=bytes(32), ttl_ms=10_000, keeper=1 << 62)
    entry = registry_pb2.RegistryEntry(instance=message, created_revision=7, modified_revision=9, lease=lease)
    piece = registry_pb2.RegistryPiece(entries=[entry]).SerializeToString()
    version = record_pb2.RecordVersion(writer=1 << 62, epoch=3, sequence=70_000)
    key = f"instance/{message.namespace}/{message.service}/{message.id}"
    head = record_pb2.RecordHead(schema=1, key=key, version=version, author="bench").SerializeToString()
    versions = admission_pb2.AdmissionPiece(
        keys=[admission_pb2.AdmissionPiece.KeyVersion(key=key, version=version)]
    ).SerializeToString()
    assert read_instance(data, check) == instance_by_fields(message)
    assert read_entries(piece, check)[0] == entries_by_fields(piece)
    assert read_head(head) == head_by_fields(head)
    assert read_versions(versions)[0] == versions_by_fields(versions)
    plan = QUICK if quick else FULL
    compared = (
        ("an instance", lambda: convert.instance_from(message), lambda: instance_by_fields(message)),
        ("an entry of a snapshot", lambda: read_entries(piece, check), lambda: entries_by_fields(piece)),
        ("a record's head", lambda: read_head(head), lambda: head_by_fields(head)),
        ("a key's version", lambda: read_versions(versions), lambda: versions_by_fields(versions)),
    )
    return [row("wire", f"reading {what}", plan, each(ours), PEER, each(theirs)) for what, ours, theirs in compared]
