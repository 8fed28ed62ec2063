"""Entries read from a piece of a snapshot are those that protobuf reads, field by field."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from reference import entries as reference
from reference.instances import health_check_of
from trunkline.api import convert
from trunkline.api.journal.v1 import registry_pb2
from trunkline.api.v1 import common_pb2
from trunkline.core.entries import read_entries, write_entries
from trunkline.core.model import Override, RegisteredInstance, Status
from trunkline.core.registered import Entry

text = st.text(max_size=5)
words = st.sampled_from([0, 1, 300, 2**63 - 1, 2**64 - 1])
revisions = st.sampled_from([0, 1, 300, 2**63 - 1])
times = st.sampled_from([0, 1, 10**18, 2**63 - 1, -1])
leases = st.builds(
    registry_pb2.RegistryLease,
    id=words,
    secret_hash=st.binary(min_size=32, max_size=32),
    ttl_ms=times,
    keeper=words,
    lapsed_revision=st.none() | revisions,
    lapsed_ns=times,
)
entries = st.builds(
    registry_pb2.RegistryEntry,
    instance=st.builds(
        common_pb2.Instance,
        id=text,
        labels=st.dictionaries(text, text, max_size=2),
        health_check=st.none() | st.builds(common_pb2.HealthCheck, unhealthy_threshold=st.integers(0, 9)),
    ),
    created_revision=words,
    modified_revision=words,
    registered_at_ns=times,
    lease=leases,
    probe_failure=st.none() | text,
    override=st.none() | st.builds(registry_pb2.RegistryOverride, status=st.integers(1, 6), reason=text),
)
pieces = st.builds(
    registry_pb2.RegistryPiece,
    floor=words,
    services=st.lists(st.builds(registry_pb2.RegistryService, namespace=text, service=text, floor=words), max_size=2),
    tombstones=st.lists(st.builds(registry_pb2.RegistryTombstone, id=text, time_ns=times), max_size=2),
    entries=st.lists(entries, max_size=3),
)
unknown = st.sampled_from(
    [b"", b"\xa0\x06\x01", b"\xa2\x06\x02hi", b"\xa5\x06abcd", b"\xa1\x06abcdefgh", b"\xa3\x06\xa4\x06"]
)
"""A field 100 of a newer program: each wire type there is."""


@given(pieces, unknown)
def test_any_piece(piece: registry_pb2.RegistryPiece, more: bytes) -> None:
    for part in (piece, *piece.entries, *(entry.lease for entry in piece.entries if entry.HasField("lease"))):
        part.MergeFromString(more)
    data = piece.SerializeToString()
    found, others = read_entries(data, health_check_of)
    expected, expected_others = reference.read_entries(data)
    assert found == expected
    assert others == expected_others


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_read_within_their_bounds(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_entries(data, health_check_of)


@given(st.lists(entries, max_size=3))
def test_any_entries_there_and_back(some: list[registry_pb2.RegistryEntry]) -> None:
    data = registry_pb2.RegistryPiece(entries=some).SerializeToString()
    read, _ = read_entries(data, convert.health_check_of)
    held = [
        Entry(
            RegisteredInstance(instance, Status.SERVING, "", created, modified, at_ns),
            lease,
            failure,
            override and Override(Status(override[0]), override[1]),
        )
        for instance, created, modified, at_ns, lease, failure, override in read
    ]
    written = write_entries(held, convert.health_check_bytes)
    assert read_entries(written, convert.health_check_of) == (read, b"")
    as_protobuf_writes = registry_pb2.RegistryPiece(entries=map(entry_to, held))
    assert registry_pb2.RegistryPiece.FromString(written) == as_protobuf_writes
    assert len(written) == as_protobuf_writes.ByteSize(), "nothing is there twice"


def entry_to(entry: Entry) -> registry_pb2.RegistryEntry:
    """As protobuf would write it, one field after the other."""
    registered, lease, override = entry.registered, entry.lease, entry.override
    return registry_pb2.RegistryEntry(
        instance=convert.instance_to(registered.instance),
        created_revision=registered.created_revision,
        modified_revision=registered.modified_revision,
        registered_at_ns=registered.registered_at_ns,
        lease=registry_pb2.RegistryLease(
            id=lease.id,
            secret_hash=lease.secret_hash,
            ttl_ms=lease.ttl_ms,
            keeper=lease.keeper,
            lapsed_revision=lease.lapsed_revision,
            lapsed_ns=lease.lapsed_ns,
        ),
        probe_failure=entry.probe_failure,
        override=override
        and registry_pb2.RegistryOverride(status=convert.status_to(override.status), reason=override.reason),
    )
