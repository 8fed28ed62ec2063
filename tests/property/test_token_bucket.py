"""Token buckets agree with their twins, lose nothing by being asked often, and give no more than they got."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import token_bucket as reference
from trunkline.core.token_bucket import FILL_INTERVAL_NS_MAX, TOKENS_MAX, KeyedBuckets, TokenBucket

settings_of_buckets = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 7))
steps = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=80)


@given(settings=settings_of_buckets, start=st.integers(0, 100), steps=steps)
def test_a_bucket_agrees_with_its_twin(
    settings: tuple[int, int, int], start: int, steps: list[tuple[int, int]]
) -> None:
    fast, slow = TokenBucket(*settings, start), reference.TokenBucket(*settings, start)
    now = start
    taken: list[int] = []
    for after, times in steps:
        now += after
        assert fast.next_ns(now) == slow.next_ns(now)
        assert fast.tokens(now) == slow.tokens
        for _ in range(times):
            took = fast.take(now)
            assert took == slow.take(now)
            taken += [now] * took
    most, per_fill, interval = settings
    for begin in set(taken):
        for n in (0, 1, 3):
            within = [at for at in taken if begin <= at < begin + max(1, n * interval)]
            assert len(within) <= most + (n + 1) * per_fill


@given(
    settings=settings_of_buckets,
    keys_max=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([b"", b"a", b"b", b"c", b"d", b"e"])), max_size=80),
)
def test_keyed_buckets_agree_with_their_twin(
    settings: tuple[int, int, int], keys_max: int, steps: list[tuple[int, bytes]]
) -> None:
    fast, slow = KeyedBuckets(*settings, keys_max), reference.KeyedBuckets(*settings, keys_max)
    now = 0
    for after, key in steps:
        now += after
        due = slow.buckets[key].next_ns(now) if key in slow.buckets else now
        assert fast.next_ns(key, now) == due
        assert fast.take(key, now) == slow.take(key, now)
        assert len(fast) == len(slow.buckets) <= keys_max


def test_nothing_drifts() -> None:
    # A third of a second is no whole number of nanoseconds: what is asked for is kept to, for days.
    bucket, now, taken = TokenBucket(1, 1, 333_333_333, 0), 0, 0
    assert bucket.take(0)
    for _ in range(100_000):
        now += 777_777
        taken += bucket.take(now)
    assert taken == now // 333_333_333


def test_the_largest_settings_do_not_overflow() -> None:
    bucket = TokenBucket(TOKENS_MAX, TOKENS_MAX, 1, 0)
    assert bucket.tokens(2**62) == TOKENS_MAX
    assert bucket.take(2**62)
    assert bucket.tokens(2**62 + 1) == TOKENS_MAX
    assert TokenBucket(1, 1, FILL_INTERVAL_NS_MAX, 0).take(0)


def test_a_key_that_was_forgotten_begins_full() -> None:
    buckets = KeyedBuckets(1, 1, 10**9, 2)
    assert buckets.take(b"a", 0)
    assert not buckets.take(b"a", 0)
    assert buckets.take(b"b", 0)
    assert not buckets.take(b"a", 0)  # and it is the latest now
    assert buckets.take(b"c", 0)
    assert not buckets.take(b"a", 0)
    assert buckets.take(b"b", 0)


@pytest.mark.parametrize("settings", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (2**32, 1, 1), (1, 2**32, 1), (1, 1, 10**14)])
def test_settings_out_of_range_are_refused(settings: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="is in"):
        TokenBucket(*settings, 0)
    with pytest.raises(ValueError, match="is in"):
        KeyedBuckets(*settings)
    with pytest.raises(ValueError, match="keys_max"):
        KeyedBuckets(1, 1, 1, 0)
