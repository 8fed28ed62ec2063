"""The oracle of core/heads.pyx: protobuf's own parser, and one field after the other."""

from __future__ import annotations

from typing import Any

from trunkline.api.journal.v1 import admission_pb2, record_pb2


def read_head(data: bytes) -> tuple[Any, ...]:
    """What `trunkline.core.heads.read_head` must give."""
    head = record_pb2.RecordHead.FromString(data)
    return (
        head.key,
        head.id,
        head.namespace,
        head.schema,
        _version(head.version) if head.HasField("version") else None,
        _version(head.expects) if head.HasField("expects") else None,
        head.author,
        head.reason,
        head.traceparent,
    )


def read_versions(data: bytes) -> tuple[list[Any], bytes]:
    """What `trunkline.core.heads.read_versions` must give."""
    piece = admission_pb2.AdmissionPiece.FromString(data)
    keys = [(entry.key, *_version(entry.version)) for entry in piece.keys]
    del piece.keys[:]
    return keys, piece.SerializeToString()


def _version(version: record_pb2.RecordVersion) -> tuple[int, int, int]:
    return version.writer, version.epoch, version.sequence
