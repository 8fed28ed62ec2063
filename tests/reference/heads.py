"""The oracle of core/heads.pyx: protobuf's own parser and writer, and one field after the other."""

from __future__ import annotations

from trunkline.api.journal.v1 import admission_pb2, record_pb2
from trunkline.core.records import NO_VERSION, Draft, Record, Version


def read_record(data: bytes, offset: int, time_ns: int, topic: str, body: bytes) -> Record:
    """What `trunkline.core.heads.read_record` must give."""
    head = record_pb2.RecordHead.FromString(data)
    return Record(
        offset=offset,
        time_ns=time_ns,
        topic=topic,
        body=body,
        key=head.key,
        id=head.id,
        namespace=head.namespace,
        schema=head.schema,
        version=_version(head.version) if head.HasField("version") else NO_VERSION,
        expects=_version(head.expects) if head.HasField("expects") else None,
        author=head.author,
        reason=head.reason,
        traceparent=head.traceparent,
    )


def head_of(draft: Draft) -> record_pb2.RecordHead:
    """The head that a draft's record must have."""
    head = record_pb2.RecordHead(
        schema=draft.schema,
        namespace=draft.namespace,
        key=draft.key,
        id=draft.id,
        author=draft.author,
        reason=draft.reason,
        traceparent=draft.traceparent,
    )
    if draft.version != NO_VERSION:
        head.version.CopyFrom(_version_to(draft.version))
    if draft.expects is not None:
        head.expects.CopyFrom(_version_to(draft.expects))
    return head


def read_versions(data: bytes) -> tuple[list[tuple[str, Version]], bytes]:
    """What `trunkline.core.heads.read_versions` must give."""
    piece = admission_pb2.AdmissionPiece.FromString(data)
    keys = [(entry.key, _version(entry.version)) for entry in piece.keys]
    del piece.keys[:]
    return keys, piece.SerializeToString()


def _version(version: record_pb2.RecordVersion) -> Version:
    return Version(version.writer, version.epoch, version.sequence)


def _version_to(version: Version) -> record_pb2.RecordVersion:
    return record_pb2.RecordVersion(writer=version.writer, epoch=version.epoch, sequence=version.sequence)
