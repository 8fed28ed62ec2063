"""The ring against facts from Envoy's own tests.

Source of every expected number: https://github.com/envoyproxy/envoy,
test/extensions/load_balancing_policies/ring_hash/ring_hash_lb_test.cc, in the test of the like name. Where that weighs
localities, the same proportions are given here as weights.
"""

from __future__ import annotations

from collections import Counter

import pytest

from trunkline.core.ring import RING_SIZE_MAX, Ring

MAX = 2**64 - 1


def ports(*numbers: int) -> list[str]:
    return [f"127.0.0.1:{number}" for number in numbers]


def spread(ring: Ring, parts: int) -> Counter[int]:
    return Counter(ring.locate(part * (MAX // parts)) for part in range(parts))


def points_per_host(ring: Ring) -> Counter[int]:
    return Counter(owner for _, owner in ring.points())


def test_basic() -> None:
    ring = Ring(ports(90, 91, 92, 93, 94, 95), [1] * 6, minimum_ring_size=12)
    assert ring.points() == [
        (833437586790550860, 4),
        (928266305478181108, 2),
        (1033482794131418490, 0),
        (3551244743356806947, 5),
        (3851675632748031481, 3),
        (5583722120771150861, 1),
        (6311230543546372928, 1),
        (7700377290971790572, 3),
        (13144177310400110813, 5),
        (13444792449719432967, 2),
        (15516499411664133160, 4),
        (16117243373044804889, 0),
    ]
    assert ring.locate(0) == 4
    assert ring.locate(MAX) == 4
    assert ring.locate(3551244743356806947) == 5
    assert ring.locate(3551244743356806948) == 3
    assert ring.locate(16117243373044804880) == 0


def test_basic_with_hostname() -> None:
    ring = Ring(["90", "91", "92", "93", "94", "95"], [1] * 6, minimum_ring_size=12)
    assert [owner for _, owner in ring.points()] == [5, 5, 3, 4, 3, 2, 0, 2, 1, 0, 1, 4]
    assert ring.points()[0][0] == 1975508444536362413
    assert ring.points()[-1][0] == 15364271037087512980


def test_uneven_hosts() -> None:
    assert Ring(ports(80, 81), [1, 1], minimum_ring_size=3).points() == [
        (5454692015285649509, 0),
        (7859399908942313493, 1),
        (13838424394637650569, 0),
        (16064866803292627174, 1),
    ]
    assert Ring(ports(81, 82), [1, 1], minimum_ring_size=3).points() == [
        (7859399908942313493, 0),
        (8241336090459785962, 1),
        (12882406409176325258, 1),
        (16064866803292627174, 0),
    ]


@pytest.mark.parametrize("weights", [[1, 2, 3], [1, 2, 3, 0]])  # HostWeightedTinyRing, LocalityWeightedTinyRing
def test_weighted_tiny_ring(weights: list[int]) -> None:
    ring = Ring(ports(90, 91, 92, 93)[: len(weights)], weights, minimum_ring_size=6, maximum_ring_size=6)
    assert ring.points() == [
        (928266305478181108, 2),
        (4443673547860492590, 2),
        (5583722120771150861, 1),
        (6311230543546372928, 1),
        (13444792449719432967, 2),
        (16117243373044804889, 0),
    ]


@pytest.mark.parametrize("weights", [[1, 2, 3], [1, 2, 3, 0]])  # HostWeightedLargeRing, LocalityWeightedLargeRing
def test_weighted_large_ring(weights: list[int]) -> None:
    ring = Ring(ports(90, 91, 92, 93)[: len(weights)], weights, minimum_ring_size=6144)
    assert ring.size == 6144
    assert points_per_host(ring) == {0: 1024, 1: 2048, 2: 3072}
    assert spread(ring, 6000) == {0: 987, 1: 1932, 2: 3081}


def test_host_and_locality_weighted() -> None:
    tiny = Ring(ports(90, 91, 92, 93), [1, 2, 2, 4], minimum_ring_size=9, maximum_ring_size=9)
    assert tiny.points() == [
        (928266305478181108, 2),
        (3851675632748031481, 3),
        (5583722120771150861, 1),
        (6311230543546372928, 1),
        (7700377290971790572, 3),
        (12559126875973811811, 3),
        (13444792449719432967, 2),
        (13784988426630141778, 3),
        (16117243373044804889, 0),
    ]
    large = Ring(ports(90, 91, 92, 93), [1, 2, 2, 4], minimum_ring_size=9216)
    assert points_per_host(large) == {0: 1024, 1: 2048, 2: 2048, 3: 4096}
    assert spread(large, 9000) == {0: 924, 1: 2009, 2: 2053, 3: 4014}


def test_small_fractional_scale() -> None:
    ring = Ring(ports(90, 91, 92, 93), [1] * 4, minimum_ring_size=2, maximum_ring_size=2)
    assert ring.size == 2
    counts = spread(ring, 1024)
    assert len(counts) == 2
    assert sum(counts.values()) == 1024


def test_large_fractional_scale() -> None:
    ring = Ring(ports(90, 91), [1, 1], minimum_ring_size=1023, maximum_ring_size=1023)
    assert ring.size == 1023
    assert points_per_host(ring) == {0: 512, 1: 511}
    assert spread(ring, 1023) == {0: 526, 1: 497}


def test_lopsided_weight_small_scale() -> None:
    weights = [127 * 1023] + [1] * 1023
    ring = Ring(ports(*range(1024)), weights, minimum_ring_size=1024, maximum_ring_size=1024)
    assert ring.size == 1024
    assert points_per_host(ring)[0] == 1016
    assert {point: owner for point, owner in ring.points() if owner} == {
        11664790346325243808: 1,
        15894554872961148518: 128,
        13958138884277627155: 256,
        15803774069438192949: 384,
        3829253010855396576: 512,
        17918147347826565154: 640,
        6442769608292299103: 768,
        5881074926069334434: 896,
    }


def test_bad_ring_size_bounds() -> None:
    with pytest.raises(ValueError, match="20, 10"):
        Ring(ports(90), [1], minimum_ring_size=20, maximum_ring_size=10)


def test_the_largest_ring() -> None:
    # One point for the lighter host would be two thousand million for the other; the maximum holds.
    ring = Ring(ports(90, 91), [1, 2**31 - 1], minimum_ring_size=RING_SIZE_MAX, maximum_ring_size=RING_SIZE_MAX)
    assert ring.size == RING_SIZE_MAX
    with pytest.raises(ValueError, match="ring sizes"):
        Ring(ports(90), [1], maximum_ring_size=RING_SIZE_MAX + 1)


def test_a_host_listed_twice_belongs_to_the_first() -> None:
    ring = Ring(ports(90, 91, 90), [1, 1, 1])
    assert {ring.locate(part * (MAX // 1000)) for part in range(1000)} == {0, 1}


@pytest.mark.parametrize(
    ("hosts", "weights"),
    [([], []), (["a:1"], []), (["a:1"], [1, 1]), ([""], [1]), (["a:1"], [0]), (["a:1"], [-1]), (["a:1"], [2**31])],
)
def test_refusals(hosts: list[str], weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Ring(hosts, weights)


def test_a_weight_that_is_no_integer() -> None:
    with pytest.raises(TypeError):
        Ring(["a:1"], [1.5])  # type: ignore[list-item]
