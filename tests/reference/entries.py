"""The oracle of core/entries.pyx: protobuf's own parser, and one field after the other."""

from __future__ import annotations

from typing import Any

from reference.instances import read_instance
from trunkline.api.journal.v1 import registry_pb2
from trunkline.core.registered import Lease


def read_entries(data: bytes) -> tuple[list[Any], bytes]:
    """What `trunkline.core.entries.read_entries` must give."""
    piece = registry_pb2.RegistryPiece.FromString(data)
    entries = [_entry(entry) for entry in piece.entries]
    del piece.entries[:]
    return entries, piece.SerializeToString()


def _entry(entry: registry_pb2.RegistryEntry) -> tuple[Any, ...]:
    lease, override = entry.lease, entry.override
    lapsed = lease.lapsed_revision if lease.HasField("lapsed_revision") else None
    return (
        read_instance(entry.instance.SerializeToString()),
        entry.created_revision,
        entry.modified_revision,
        entry.registered_at_ns,
        Lease(lease.id, lease.secret_hash, lease.ttl_ms, lease.keeper, lapsed, lease.lapsed_ns),
        entry.probe_failure if entry.HasField("probe_failure") else None,
        (override.status, override.reason) if entry.HasField("override") else None,
    )
