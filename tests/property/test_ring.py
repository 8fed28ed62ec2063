"""The ring agrees with its twin, and moves no key that it need not move."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import ring as reference
from trunkline.core.hashing import xxh64
from trunkline.core.ring import RING_SIZE_MAX, Ring

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=30)
weights_of_few = st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any)
sizes = st.tuples(st.integers(1, 200), st.integers(1, 400)).filter(lambda pair: pair[0] <= pair[1])


def addresses(count: int) -> list[str]:
    return [f"10.1.{index // 250}.{index % 250}:8080" for index in range(count)]


@given(weights=weights_of_few, sizes=sizes, hashes=hashes, keys=st.lists(st.binary(max_size=80), max_size=10))
def test_ring_agrees_with_its_twin(
    weights: list[int], sizes: tuple[int, int], hashes: list[int], keys: list[bytes]
) -> None:
    hosts = addresses(len(weights))
    settings: dict[str, Any] = {"minimum_ring_size": sizes[0], "maximum_ring_size": sizes[1]}
    fast, slow = Ring(hosts, weights, **settings), reference.Ring(hosts, weights, **settings)
    assert fast.points() == slow.points()
    assert fast.size == slow.size
    # The edges of every point, the ends of the circle, and anything.
    near = [(point + by) % 2**64 for point, _ in slow.points() for by in (-1, 0, 1)]
    for hash in [0, 1, 2**64 - 1, *near, *hashes]:
        assert fast.locate(hash) == slow.locate(hash)
    for key in keys:
        assert fast.locate_key(key) == slow.locate_key(key)


@given(weights=st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=5))
def test_uneven_weights_agree_when_the_ring_is_bounded(weights: list[int]) -> None:
    hosts = addresses(len(weights))
    fast = Ring(hosts, weights, maximum_ring_size=2_000)
    assert fast.points() == reference.Ring(hosts, weights, maximum_ring_size=2_000).points()


@given(
    hosts=st.lists(st.sampled_from(["a:1", "b:2", "a:1", ""]), max_size=3),
    weights=st.lists(st.sampled_from([-1, 0, 1, 2**31 - 1, 2**31, 2**70]), max_size=3),
    minimum=st.sampled_from([-1, 0, 1, 8, 64]),
    maximum=st.sampled_from([0, 1, 8, 64, RING_SIZE_MAX + 1]),
)
def test_ring_and_twin_refuse_the_same(hosts: list[str], weights: list[int], minimum: int, maximum: int) -> None:
    rings: list[Any] = []
    for kind in (Ring, reference.Ring):
        try:
            rings.append(kind(hosts, weights, minimum_ring_size=minimum, maximum_ring_size=maximum))
        except ValueError:
            rings.append(None)
    fast, slow = rings
    assert (fast is None) == (slow is None)
    if fast is not None:
        # A host that is listed twice has equal points: those of the first come first.
        assert fast.points() == slow.points()


@pytest.mark.parametrize("hash", [-1, 2**64])
def test_ring_and_twin_refuse_what_is_no_hash(hash: int) -> None:
    for kind in (Ring, reference.Ring):
        with pytest.raises(OverflowError):
            kind(["a:1"], [1]).locate(hash)


@pytest.mark.parametrize("count", [2, 10, 64])
def test_removing_a_host_moves_only_its_keys(count: int) -> None:
    hosts = addresses(count)
    keys = [xxh64(f"key {number}".encode()) for number in range(5_000)]
    # The same number of points for each host before and after, as when the ring is at its maximum for neither.
    per_host = 64
    before = Ring(hosts, [1] * count, minimum_ring_size=per_host * count)
    for gone in {0, count // 2, count - 1}:
        rest = hosts[:gone] + hosts[gone + 1 :]
        after = Ring(rest, [1] * len(rest), minimum_ring_size=per_host * len(rest))
        moved = 0
        for key in keys:
            owner = hosts[before.locate(key)]
            if owner == hosts[gone]:
                moved += 1
            else:
                assert rest[after.locate(key)] == owner
        assert 0 < moved < len(keys) * 2 / count
