"""Heads and versions read and written are those that protobuf reads and writes, field by field."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from reference import heads as reference
from trunkline.api.journal.v1 import admission_pb2, record_pb2
from trunkline.core.heads import read_record, read_versions, write_heads, write_versions
from trunkline.core.records import NO_VERSION, Draft, Version

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
few = st.sampled_from(["", "a", "b"])
some_versions = st.builds(Version, st.sampled_from([1, 2**64 - 1]), st.sampled_from([1, 2**40]), st.integers(1, 300))
drafts = st.builds(
    Draft,
    topic=few,
    body=st.binary(max_size=3),
    key=few,
    id=few,
    namespace=few,
    schema=st.integers(0, 2),
    version=some_versions | st.just(NO_VERSION),
    expects=st.none() | some_versions,
    author=few,
    reason=few,
    traceparent=few,
)
"""So few different values that some are common to all."""
POSITION = (5, 6, "topic", b"body")
ONLY_A_SEQUENCE = 2 + 1 + 3
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
    assert read_record(data, *POSITION) == reference.read_record(data, *POSITION)


@given(st.lists(drafts, min_size=1, max_size=4))
def test_what_heads_have_in_common_and_their_rests_are_the_heads(some: list[Draft]) -> None:
    common, rests = write_heads(some)
    for draft, rest in zip(some, rests, strict=True):
        assert record_pb2.RecordHead.FromString(common + rest) == reference.head_of(draft)
        again = read_record(common + rest, 7, 8, draft.topic, draft.body)
        assert again == draft.record(7, 8)
    if len(some) > 1 and len(set(some)) == 1:
        assert not any(len(rest) > ONLY_A_SEQUENCE for rest in rests) or some[0].expects is not None


@given(pieces, unknown)
def test_any_piece(piece: admission_pb2.AdmissionPiece, more: bytes) -> None:
    for part in (piece, *piece.keys):
        part.MergeFromString(more)
    data = piece.SerializeToString()
    assert read_versions(data) == reference.read_versions(data)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_read_within_their_bounds(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_record(data, *POSITION)
    with contextlib.suppress(ValueError):
        read_versions(data)


@given(st.dictionaries(text, some_versions, max_size=5))
def test_any_keys_there_and_back(versions: dict[str, Version]) -> None:
    written = write_versions(list(versions), versions)
    assert read_versions(written) == (list(versions.items()), b"")
    keys = [
        admission_pb2.AdmissionPiece.KeyVersion(
            key=key,
            version=record_pb2.RecordVersion(writer=version.writer, epoch=version.epoch, sequence=version.sequence),
        )
        for key, version in versions.items()
    ]
    assert written == admission_pb2.AdmissionPiece(keys=keys).SerializeToString()
