"""A snapshot: the folds, the admission and the request ids as of one revision, in one file with a hash.

    "TLSNAP01"  then frames of  kind u8, length u32 (little endian), payload:
    H  header: revision u64, time_ns i64
    S  a section begins: version u32, name
    P  a piece of the section
    E  the end: SHA-256 of everything before this frame

The copy that a snapshot is made from is taken when `frames` is called; encoding goes on piece by piece, so that the caller
decides how much of it is done at a time.
"""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from trunkline.api.journal.v1 import admission_pb2
from trunkline.core.errors import JournalCorrupt, JournalTooNew
from trunkline.core.heads import read_versions, write_versions
from trunkline.core.records import Version

from .admission import Admission
from .fold import Folds
from .requests import RecentRequests, Request

MAGIC = b"TLSNAP01"
PIECE_ITEMS = 500
ADMISSION_VERSION = 1

T = TypeVar("T")

_FRAME = struct.Struct("<cI")
_HEADER = struct.Struct("<Qq")
_SECTION = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Section:
    """One fold's part of a snapshot."""

    name: str
    version: int
    pieces: tuple[memoryview, ...]
    """Where they lie in the snapshot. Copies of all would leave as much memory in holes when they are gone."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A decoded snapshot whose hash was right."""

    revision: int
    time_ns: int
    sections: tuple[Section, ...]


def frames(
    revision: int, time_ns: int, folds: Folds, admission: Admission, requests: RecentRequests
) -> Iterator[bytes]:
    """Encode the state as of this call; each item is a bounded amount of work."""
    sections: list[tuple[str, int, Iterator[bytes | None]]] = [
        (fold.name, fold.version, fold.dump()) for fold in folds.folds
    ]
    sections.append(("admission", ADMISSION_VERSION, _dump_admission(admission, requests)))
    return _hashed(_frames(revision, time_ns, sections))


def _frames(
    revision: int, time_ns: int, sections: Iterable[tuple[str, int, Iterator[bytes | None]]]
) -> Iterator[bytes]:
    yield MAGIC
    yield _frame(b"H", _HEADER.pack(revision, time_ns))
    for name, version, pieces in sections:
        yield _frame(b"S", _SECTION.pack(version) + name.encode())
        for piece in pieces:
            yield b"" if piece is None else _frame(b"P", piece)


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(kind, len(payload)) + payload


def _hashed(parts: Iterator[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        yield part
    yield _frame(b"E", digest.digest())


def decode(data: bytes) -> Snapshot:
    """Read a snapshot back. JournalCorrupt when it is not whole, JournalTooNew when it is of another form."""
    if data[: len(MAGIC)] != MAGIC:
        if data[:6] == MAGIC[:6]:
            raise JournalTooNew(f"snapshot of form {data[6:8]!r}; this program reads {MAGIC[6:8]!r}")
        raise JournalCorrupt("not a snapshot")
    found: list[tuple[str, int, list[memoryview]]] = []
    view = memoryview(data)
    at = len(MAGIC)
    revision = time_ns = 0
    while True:
        if at + _FRAME.size > len(data):
            raise JournalCorrupt("snapshot is cut short")
        kind, length = _FRAME.unpack_from(data, at)
        payload = view[at + _FRAME.size : at + _FRAME.size + length]
        if len(payload) != length:
            raise JournalCorrupt("snapshot is cut short")
        if kind == b"E":
            if payload != hashlib.sha256(view[:at]).digest():
                raise JournalCorrupt("snapshot does not have the hash it should")
            return Snapshot(revision, time_ns, tuple(Section(n, v, tuple(p)) for n, v, p in found))
        if kind == b"H":
            revision, time_ns = _HEADER.unpack(payload)
        elif kind == b"S":
            found.append((str(payload[_SECTION.size :], "utf-8"), _SECTION.unpack_from(payload)[0], []))
        else:
            found[-1][2].append(payload)
        at += _FRAME.size + length


def restore(snapshot: Snapshot, folds: Folds, admission: Admission, requests: RecentRequests) -> None:
    """Load a snapshot into empty folds. JournalTooNew, with nothing loaded, when a section is of a newer version."""
    by_name = {section.name: section for section in snapshot.sections}
    for name, known in [*((fold.name, fold.version) for fold in folds.folds), ("admission", ADMISSION_VERSION)]:
        if name in by_name and by_name[name].version > known:
            version = by_name[name].version
            raise JournalTooNew(
                f"the snapshot's section {name} has version {version}; this program reads up to {known}"
            )
    for fold in folds.folds:
        section = by_name.get(fold.name)
        if section is not None:  # a fold that is newer than the snapshot begins empty
            fold.load(section.version, map(bytes, section.pieces))
    _load_admission(by_name["admission"], admission, requests)


def _dump_admission(admission: Admission, requests: RecentRequests) -> Iterator[bytes | None]:
    writers = [
        (writer, epoch, admission.sequences.get(writer, 0)) for writer, epoch in sorted(admission.epochs.items())
    ]
    return _admission_pieces(admission.last.copy(), writers, requests.items())


def _admission_pieces(
    last: dict[str, Version], writers: list[tuple[int, int, int]], carried_out: list[Request]
) -> Iterator[bytes | None]:
    """None stands for work that gives no bytes yet."""
    head = admission_pb2.AdmissionPiece()
    for writer, epoch, sequence in writers:
        head.writers.add(writer=writer, epoch=epoch, sequence=sequence)
    yield head.SerializeToString(deterministic=True)
    runs: list[list[str]] = []
    for keys in _chunks(last):  # all of them sorted at once would hold the loop
        keys.sort()
        runs.append(keys)
        yield None
    for keys in _chunks(heapq.merge(*runs)):
        yield write_versions(keys, last)
    for request_chunk in _chunks(carried_out):
        piece = admission_pb2.AdmissionPiece()
        for request_id, revision, time_ns in request_chunk:
            piece.requests.add(request_id=request_id, revision=revision, time_ns=time_ns)
        yield piece.SerializeToString(deterministic=True)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, PIECE_ITEMS)):
        yield chunk


def _load_admission(section: Section, admission: Admission, requests: RecentRequests) -> None:
    if section.version != ADMISSION_VERSION:
        raise ValueError(f"admission section of version {section.version}")
    for data in map(bytes, section.pieces):
        keys, others = read_versions(data)
        admission.last.update(keys)
        piece = admission_pb2.AdmissionPiece.FromString(others)
        for known in piece.writers:
            admission.epochs[known.writer] = known.epoch
            admission.sequences[known.writer] = known.sequence
        for done in piece.requests:
            requests.add(done.request_id, done.revision, done.time_ns)
