"""The scanner accepts and refuses what its oracle does, and finds the same."""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import publish_requests
from reference import wire as reference
from trunkline.core.errors import InvalidArgument
from trunkline.core.wire import event_identity, scan_event, scan_publish

CASES = int(os.environ.get("FUZZ_CASES", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SHARDS = 4


def refusal(data: bytes, stream_request: bool) -> InvalidArgument | None:
    """What the scanner has against the bytes."""
    try:
        scan_publish(data, stream_request=stream_request)
    except InvalidArgument as error:
        return error
    return None


def check(data: bytes, *, stream_request: bool) -> bool:
    """Compare scanner and oracle; gives whether both accept."""
    try:
        slow = reference.scan_publish(data, stream_request=stream_request)
    except reference.Refused as refused:
        if refusal(data, stream_request) is None:
            pytest.fail(f"accepted, but {refused}: {data!r}")
        return False
    assert refusal(data, stream_request) is None, data
    fast = scan_publish(data, stream_request=stream_request)
    frames = slow.frames
    assert bytes(fast.payload) == b"".join(frames), data
    assert fast.ends.tolist() == [sum(map(len, frames[: i + 1])) for i in range(len(frames))], data
    for name in (
        *("namespace", "stream", "require_sync", "sequence", "expected_offset", "topics"),
        *("producer", "producer_epoch", "first_sequence"),
    ):
        assert getattr(fast, name) == getattr(slow, name), (name, data)
    for name in ("topic_ids", "key_hashes", "id_hashes"):
        assert getattr(fast, name).tolist() == getattr(slow, name), (name, data)
    assert fast.count == len(slow.bodies)
    for i, body in enumerate(slow.bodies):
        assert event_identity(body) == slow.identities[i], data
        one = scan_event(memoryview(body))
        assert (one.source.encode(), one.id.encode()) == slow.identities[i]
        assert one.topic == slow.topics[slow.topic_ids[i]]
    return True


@pytest.mark.timeout(0)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_generated_requests(shard: int) -> None:
    accepted = 0
    cases = CASES // SHARDS
    for case in range(cases):
        rng = Random(f"{SEED}/{shard}/{case}")
        data = publish_requests.request(rng)
        if case % 3 == 2:
            data = publish_requests.mutated(rng, data)
        accepted += check(data, stream_request=case % 2 == 0)
    # Neither side of the comparison may be idle.
    assert 0.2 * cases < accepted < 0.8 * cases


@given(data=st.binary(max_size=60), stream_request=st.booleans())
def test_any_bytes(data: bytes, stream_request: bool) -> None:
    check(data, stream_request=stream_request)


@given(data=st.binary(max_size=12))
def test_any_bytes_in_an_event(data: bytes) -> None:
    # What scan_event refuses alone it refuses in a request, and the other way round.
    body = b"\x0a\x01i\x12\x01s\x1a\x031.0\x22\x01t" + data
    accepted = check(b"\x0a\x01n\x7a" + bytes([len(body)]) + body, stream_request=False)
    if not accepted:
        with pytest.raises(InvalidArgument):
            scan_event(body)
