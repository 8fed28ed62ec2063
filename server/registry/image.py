"""The registry's section of a snapshot, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.journal.v1 import registry_pb2
from trunkline.core.model import RegisteredInstance

from .entity import Entry, Lease, Override
from .status import status_of

ENTRIES_PER_PIECE = 64
"""About 1 ms of work."""
NAMES_PER_PIECE = 500


class Tombstone(NamedTuple):
    """An instance that went."""

    namespace: str
    service: str
    id: str
    revision: int
    time_ns: int


class Piece(NamedTuple):
    """A decoded piece."""

    floor: int
    services: Sequence[tuple[str, str, int]]
    tombstones: Sequence[Tombstone]
    entries: Iterator[Entry]


def pieces(
    floor: int, services: Sequence[tuple[str, str, int]], tombstones: Sequence[Tombstone], entries: Sequence[Entry]
) -> Iterator[bytes]:
    """Encode a section. Equal arguments give equal bytes."""
    yield registry_pb2.RegistryPiece(floor=floor).SerializeToString(deterministic=True)
    for at in range(0, len(services), NAMES_PER_PIECE):
        piece = registry_pb2.RegistryPiece()
        for namespace, service, service_floor in services[at : at + NAMES_PER_PIECE]:
            piece.services.add(namespace=namespace, service=service, floor=service_floor)
        yield piece.SerializeToString(deterministic=True)
    for at in range(0, len(tombstones), NAMES_PER_PIECE):
        piece = registry_pb2.RegistryPiece()
        for gone in tombstones[at : at + NAMES_PER_PIECE]:
            piece.tombstones.add(
                namespace=gone.namespace, service=gone.service, id=gone.id, revision=gone.revision, time_ns=gone.time_ns
            )
        yield piece.SerializeToString(deterministic=True)
    for at in range(0, len(entries), ENTRIES_PER_PIECE):
        piece = registry_pb2.RegistryPiece(entries=map(_entry_to, entries[at : at + ENTRIES_PER_PIECE]))
        yield piece.SerializeToString(deterministic=True)


def read_pieces(data: Iterable[bytes]) -> Iterator[Piece]:
    """Decode a section piece by piece."""
    for encoded in data:
        piece = registry_pb2.RegistryPiece.FromString(encoded)
        yield Piece(
            piece.floor,
            [(s.namespace, s.service, s.floor) for s in piece.services],
            [Tombstone(t.namespace, t.service, t.id, t.revision, t.time_ns) for t in piece.tombstones],
            map(_entry_from, piece.entries),
        )


def _entry_to(entry: Entry) -> registry_pb2.RegistryEntry:
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
        override=None
        if override is None
        else registry_pb2.RegistryOverride(status=convert.status_to(override.status), reason=override.reason),
    )


def _lease_from(lease: registry_pb2.RegistryLease) -> Lease:
    return Lease(
        lease.id,
        lease.secret_hash,
        lease.ttl_ms,
        lease.keeper,
        lease.lapsed_revision if lease.HasField("lapsed_revision") else None,
        lease.lapsed_ns,
    )


def _entry_from(image: registry_pb2.RegistryEntry) -> Entry:
    instance = convert.instance_from(image.instance)
    lease = _lease_from(image.lease)
    probe_failure = image.probe_failure if image.HasField("probe_failure") else None
    override = None
    if image.HasField("override"):
        status = convert.status_from(image.override.status)
        assert status is not None, "an override without a status is none"
        override = Override(status, image.override.reason)
    derived, reason = status_of(instance.declared, lease, probe_failure, override)
    registered = RegisteredInstance(
        instance=instance,
        status=derived,
        status_reason=reason,
        created_revision=image.created_revision,
        modified_revision=image.modified_revision,
        registered_at_ns=image.registered_at_ns,
    )
    return Entry(registered, lease, probe_failure, override)
