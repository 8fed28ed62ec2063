"""Instances, entries of a snapshot, heads of records and registrations, read and written, beside doing it with protobuf, one
field after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.load.world import World, instance
from bench.micro.timing import FULL, QUICK, each, row
from trunkline.api import convert
from trunkline.api.journal.v1 import admission_pb2, control_pb2, record_pb2
from trunkline.api.journal.v1 import registry_pb2 as journal_pb2
from trunkline.api.rules import checker
from trunkline.api.v1 import common_pb2, registry_pb2
from trunkline.core.entries import read_entries, write_entries
from trunkline.core.heads import read_record, read_versions, write_heads
from trunkline.core.instances import read_instance, write_registration
from trunkline.core.model import (
    TTL_MS_DEFAULT,
    Declared,
    Endpoint,
    Instance,
    Locality,
    RegisteredInstance,
    Registration,
    Status,
)
from trunkline.core.records import Draft, Record, Version
from trunkline.core.registered import Entry, Lease
from trunkline.core.registrations import read_registration_request

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
            Lease(entry.lease.id, entry.lease.secret_hash, entry.lease.ttl_ms, entry.lease.keeper),
            None,
            None,
        )
        for entry in journal_pb2.RegistryPiece.FromString(piece).entries
    ]


def record_by_fields(data: bytes) -> Record:
    """What `read_record` makes of it at position 7."""
    head = record_pb2.RecordHead.FromString(data)
    return Record(
        7,
        8,
        "topic",
        b"body",
        head.key,
        head.id,
        head.namespace,
        head.schema,
        Version(head.version.writer, head.version.epoch, head.version.sequence),
        None,
        head.author,
        head.reason,
        head.traceparent,
    )


def versions_by_fields(piece: bytes) -> list[Any]:
    """What `read_versions` makes of it."""
    keys = admission_pb2.AdmissionPiece.FromString(piece).keys
    return [(one.key, Version(one.version.writer, one.version.epoch, one.version.sequence)) for one in keys]


def rows(quick: bool) -> list[Row]:
    """In nanoseconds a call."""
    message = convert.instance_to(instance(World(), 1))
    data, check = message.SerializeToString(), convert.health_check_of
    lease = journal_pb2.RegistryLease(id=1 << 63, secret_hash=bytes(32), ttl_ms=10_000, keeper=1 << 62)
    entry = journal_pb2.RegistryEntry(instance=message, created_revision=7, modified_revision=9, lease=lease)
    piece = journal_pb2.RegistryPiece(entries=[entry]).SerializeToString()
    version = record_pb2.RecordVersion(writer=1 << 62, epoch=3, sequence=70_000)
    key = f"instance/{message.namespace}/{message.service}/{message.id}"
    head = record_pb2.RecordHead(schema=1, key=key, version=version, author="bench").SerializeToString()
    versions = admission_pb2.AdmissionPiece(
        keys=[admission_pb2.AdmissionPiece.KeyVersion(key=key, version=version)]
    ).SerializeToString()
    assert read_instance(data, check) == instance_by_fields(message)
    assert read_entries(piece, check)[0] == entries_by_fields(piece)
    assert read_record(head, 7, 8, "topic", b"body") == record_by_fields(head)
    assert read_versions(versions)[0] == versions_by_fields(versions)
    plan = QUICK if quick else FULL
    compared = (
        ("an instance", lambda: convert.instance_from(message), lambda: instance_by_fields(message)),
        ("an entry of a snapshot", lambda: read_entries(piece, check), lambda: entries_by_fields(piece)),
        ("a record", lambda: read_record(head, 7, 8, "topic", b"body"), lambda: record_by_fields(head)),
        ("a key's version", lambda: read_versions(versions), lambda: versions_by_fields(versions)),
    )
    found = [row("wire", f"reading {what}", plan, each(ours), PEER, each(theirs)) for what, ours, theirs in compared]
    return found + written(quick) + [asked(quick)]


def whole_head(drafts: list[Draft]) -> bytes:
    """Of one draft."""
    common, (rest,) = write_heads(drafts)
    return common + rest


def written(quick: bool) -> list[Row]:
    """The other way."""
    one = instance(World(), 1)
    message = convert.instance_to(one)
    lease = Lease(1 << 63, bytes(32), 10_000, 1 << 62)
    entries = [Entry(RegisteredInstance(one, Status.SERVING, "", 7, 9, 1), lease)]
    key = f"instance/{message.namespace}/{message.service}/{message.id}"
    drafts = [Draft("topic", b"", key, schema=1, version=Version(1 << 62, 3, 70_000), author="bench")]

    def entry() -> bytes:
        kept = journal_pb2.RegistryLease(id=lease.id, secret_hash=lease.secret_hash, ttl_ms=10_000, keeper=lease.keeper)
        piece = journal_pb2.RegistryPiece()
        piece.entries.add(
            instance=convert.instance_to(one), created_revision=7, modified_revision=9, registered_at_ns=1, lease=kept
        )
        return piece.SerializeToString(deterministic=True)

    def fact() -> bytes:
        return control_pb2.InstanceRegistered(
            instance=convert.instance_to(one),
            lease_id=lease.id,
            secret_hash=lease.secret_hash,
            ttl_ms=10_000,
            keeper=lease.keeper,
        ).SerializeToString(deterministic=True)

    def record_head() -> bytes:
        made = record_pb2.RecordHead(key=key, schema=1, author="bench")
        made.version.writer, made.version.epoch, made.version.sequence = 1 << 62, 3, 70_000
        return made.SerializeToString(deterministic=True)

    compared: tuple[tuple[str, Callable[[], bytes], Callable[[], bytes]], ...] = (
        ("an entry of a snapshot", lambda: write_entries(entries, convert.health_check_bytes), entry),
        (
            "a registration",
            lambda: write_registration(one, None, lease.id, lease.secret_hash, 10_000, lease.keeper),
            fact,
        ),
        ("a record's head", lambda: whole_head(drafts), record_head),
    )
    assert all(ours() == theirs() for _, ours, theirs in compared[:2])
    parse = record_pb2.RecordHead.FromString  # a head is written in two parts
    assert parse(whole_head(drafts)) == parse(record_head())
    plan = QUICK if quick else FULL
    return [row("wire", f"writing {what}", plan, each(ours), PEER, each(theirs)) for what, ours, theirs in compared]


def asked(quick: bool) -> Row:
    """A request to register that nothing is wrong with."""
    request = registry_pb2.RegisterRequest(instance=convert.instance_to(instance(World(), 1)), lease_secret=bytes(16))
    data = request.SerializeToString()
    check = checker(registry_pb2.RegisterRequest.DESCRIPTOR)

    def in_three_steps() -> Registration:
        parsed = registry_pb2.RegisterRequest.FromString(data)
        check(parsed)
        return Registration(convert.instance_from(parsed.instance), parsed.lease_secret, TTL_MS_DEFAULT)

    assert read_registration_request(data) == in_three_steps()
    plan, peer = QUICK if quick else FULL, "protobuf, the rules, conversion"
    return row(
        "wire", "a request to register", plan, each(lambda: read_registration_request(data)), peer, each(in_three_steps)
    )
