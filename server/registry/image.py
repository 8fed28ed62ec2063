"""The registry's section of a snapshot, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.journal.v1 import registry_pb2
from trunkline.core.entries import read_entries, write_entries
from trunkline.core.model import Instance, Override, RegisteredInstance, Status
from trunkline.core.registered import Entry, Lease

from .status import status_of

ENTRIES_PER_PIECE = 256
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
        yield write_entries(entries[at : at + ENTRIES_PER_PIECE], convert.health_check_bytes)


def read_pieces(data: Iterable[bytes]) -> Iterator[Piece]:
    """Decode a section piece by piece."""
    for encoded in data:
        entries, others = read_entries(encoded, convert.health_check_of)
        piece = registry_pb2.RegistryPiece.FromString(others)
        yield Piece(
            piece.floor,
            [(s.namespace, s.service, s.floor) for s in piece.services],
            [Tombstone(t.namespace, t.service, t.id, t.revision, t.time_ns) for t in piece.tombstones],
            starmap(_entry_from, entries),
        )


def _entry_from(
    instance: Instance,
    created_revision: int,
    modified_revision: int,
    registered_at_ns: int,
    lease: Lease,
    probe_failure: str | None,
    override_fields: tuple[int, str] | None,
) -> Entry:
    override = None if override_fields is None else Override(Status(override_fields[0]), override_fields[1])
    status, reason = status_of(instance.declared, lease, probe_failure, override)
    registered = RegisteredInstance(instance, status, reason, created_revision, modified_revision, registered_at_ns)
    return Entry(registered, lease, probe_failure, override)
