"""Entries read from a piece of a snapshot are those that protobuf reads, field by field."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from reference import entries as reference
from reference.instances import health_check_of
from trunkline.api.journal.v1 import registry_pb2
from trunkline.api.v1 import common_pb2
from trunkline.core.entries import read_entries

text = st.text(max_size=5)
words = st.sampled_from([0, 1, 300, 2**63 - 1, 2**64 - 1])
times = st.sampled_from([0, 1, 10**18, 2**63 - 1, -1])
leases = st.builds(
    registry_pb2.RegistryLease,
    id=words,
    secret_hash=st.binary(max_size=4),
    ttl_ms=times,
    keeper=words,
    lapsed_revision=st.none() | words,
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
    lease=st.none() | leases,
    probe_failure=st.none() | text,
    override=st.none() | st.builds(registry_pb2.RegistryOverride, status=st.integers(0, 6), reason=text),
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
