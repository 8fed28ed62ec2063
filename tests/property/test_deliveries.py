"""Encoded deliveries against the plain encoder and against protobuf's own parser."""

from __future__ import annotations

from array import array
from itertools import accumulate

import hypothesis.strategies as st
import pytest
from hypothesis import given

import trunkline.core.deliveries as fast
from reference import deliveries as plain
from trunkline.api.v1 import events_pb2

U64 = st.integers(0, 2**64 - 1)


def framed(event: events_pb2.CloudEvent) -> bytes:
    body = event.SerializeToString()
    return b"\x7a" + plain.varint(len(body)) + body


@given(
    ids=st.lists(st.text(max_size=200), min_size=1, max_size=8),
    base=st.one_of(st.integers(0, 300), U64.filter(lambda n: n < 2**64 - 64)),
    time_ns=U64,
    subscription_id=st.integers(0, 2**32 - 1),
    credit=st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
    gaps=st.booleans(),
    data=st.data(),
)
def test_runs_agree(
    ids: list[str], base: int, time_ns: int, subscription_id: int, credit: int, gaps: bool, data: st.DataObject
) -> None:
    frames = [framed(events_pb2.CloudEvent(id=one)) for one in ids]
    payload, ends = b"".join(frames), array("I", accumulate(map(len, frames)))
    offsets = [base + 3 * i for i in range(len(ids))] if gaps else range(base, base + len(ids))
    indexes = sorted(data.draw(st.sets(st.integers(0, len(ids) - 1))))
    first = data.draw(st.integers(0, len(indexes)))
    limit = data.draw(st.sampled_from([0, 1, 60, 300, 1 << 20]))
    prefix = fast.subscription_prefix(subscription_id)
    assert prefix == plain.subscription_prefix(subscription_id)
    arguments = (payload, ends, offsets, time_ns, indexes, first, prefix, credit, limit)
    encoded, count = fast.first_deliveries(*arguments)
    assert (encoded, count) == plain.first_deliveries(*arguments)
    parsed = events_pb2.SubscribeResponse.FromString(encoded).deliveries
    assert [(d.subscription_id, d.credit, d.attempt, d.offset, d.time_ns, d.event.id) for d in parsed] == [
        (subscription_id, credit - k - 1, 1, offsets[index], time_ns, ids[index])
        for k, index in enumerate(indexes[first : first + count])
    ]


@given(offset=U64, time_ns=U64, frame=st.binary(max_size=300), credit=U64, attempt=U64, prefix=st.binary(max_size=11))
def test_one_agrees(offset: int, time_ns: int, frame: bytes, credit: int, attempt: int, prefix: bytes) -> None:
    suffix = fast.delivery_suffix(offset, time_ns, frame)
    assert suffix == plain.delivery_suffix(offset, time_ns, frame)
    assert fast.delivery(prefix, credit, attempt, suffix) == plain.delivery(prefix, credit, attempt, suffix)


@pytest.mark.parametrize(("ends", "indexes"), [([3], [1]), ([3], [-1]), ([4], [0]), ([2, 1], [1])])
def test_what_lies_outside_is_refused(ends: list[int], indexes: list[int]) -> None:
    with pytest.raises(IndexError):
        fast.first_deliveries(b"abc", array("I", ends), range(9), 0, indexes, 0, b"", 5, 100)
