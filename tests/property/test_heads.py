"""Heads and versions read from their bytes are those that protobuf reads, field by field."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from reference import heads as reference
from trunkline.api.journal.v1 import admission_pb2, record_pb2
from trunkline.core.heads import read_head, read_versions, write_head

text = st.text(max_size=5)
words = st.sampled_from([0, 1, 300, 2**63, 2**64 - 1])
versions = st.builds(record_pb2.RecordVersion, writer=words, epoch=words, sequence=words)
heads = st.builds(
    record_pb2.RecordHead,
    schema=st.integers(0, 2**32 - 1),
    namespace=text,
    key=text,
    id=text,
    version=st.none() | versions,
    expects=st.none() | versions,
    author=text,
    reason=text,
    traceparent=text,
)
pieces = st.builds(
    admission_pb2.AdmissionPiece,
    keys=st.lists(
        st.builds(admission_pb2.AdmissionPiece.KeyVersion, key=text, version=st.none() | versions), max_size=3
    ),
    writers=st.lists(st.builds(admission_pb2.AdmissionPiece.WriterEpoch, writer=words, epoch=words), max_size=2),
    requests=st.lists(st.builds(admission_pb2.AdmissionPiece.CarriedOut, request_id=text, revision=words), max_size=2),
)
unknown = st.sampled_from(
    [b"", b"\xa0\x06\x01", b"\xa2\x06\x02hi", b"\xa5\x06abcd", b"\xa1\x06abcdefgh", b"\xa3\x06\xa4\x06"]
)
"""A field 100 of a newer program: each wire type there is."""


@given(st.lists(heads, min_size=1, max_size=2), unknown)
def test_any_head_whole_or_in_parts(parts: list[record_pb2.RecordHead], more: bytes) -> None:
    for part in parts:
        part.version.MergeFromString(more)
        part.MergeFromString(more)
    data = b"".join(part.SerializeToString() for part in parts)
    assert read_head(data) == reference.read_head(data)


@given(heads)
def test_any_head_there_and_back(head: record_pb2.RecordHead) -> None:
    written = write_head(*reference.read_head(head.SerializeToString()))
    assert written == head.SerializeToString(deterministic=True)


@given(pieces, unknown)
def test_any_piece(piece: admission_pb2.AdmissionPiece, more: bytes) -> None:
    for part in (piece, *piece.keys):
        part.MergeFromString(more)
    data = piece.SerializeToString()
    assert read_versions(data) == reference.read_versions(data)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_read_within_their_bounds(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_head(data)
    with contextlib.suppress(ValueError):
        read_versions(data)
