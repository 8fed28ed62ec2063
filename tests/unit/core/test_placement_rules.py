"""Who may get a call: tiers, panic, subsets, places near and far, and what is new."""

from __future__ import annotations

import pytest

from reference.candidates import candidate, level_loads, names
from trunkline.core.localities import Count, loads, passed_over
from trunkline.core.model import Locality, Status
from trunkline.core.placement import Candidate, Placement
from trunkline.core.policy import (
    PLAIN,
    Algorithm,
    Destination,
    LoadBalancingPolicy,
    LocalityPreference,
    LocalityScope,
    Policy,
    S,
    SlowStart,
    Subset,
)
from trunkline.core.selector import Selector
from trunkline.core.slow_start import factor_of, next_step_ns
from trunkline.core.verdicts import Exclusion, verdicts_of

ZONE_A = Locality("r", "a")


def rules(placement: Placement, name: str, destination: Destination | None = None) -> list[str]:
    """Why one is not picked."""
    verdict = next(one for one in verdicts_of(placement, destination) if one.candidate.instance.instance.id == name)
    return [exclusion.rule for exclusion in verdict.exclusions]


# Tiers, reachability, ejections.


def test_the_best_tier_is_picked_and_stale_ones_are_behind_every_live_one() -> None:
    serving, degraded, stale = (
        candidate(status.name, status=status) for status in (Status.SERVING, Status.DEGRADED, Status.STALE)
    )
    draining = candidate("DRAINING", status=Status.DRAINING)
    everybody = [stale, degraded, serving, draining]
    assert names(Placement(PLAIN, everybody).pool()) == ["SERVING"]
    assert rules(Placement(PLAIN, everybody), "DEGRADED") == ["tier"]
    assert rules(Placement(PLAIN, everybody), "DRAINING") == ["status"]
    serving.out = "connection refused"
    assert names(Placement(PLAIN, everybody).pool()) == ["DEGRADED"]
    assert rules(Placement(PLAIN, everybody), "SERVING") == ["tier", "unreachable"]
    degraded.out = "connection lost"
    assert names(Placement(PLAIN, everybody).pool()) == ["STALE"]
    stale.out = "connection lost"
    pool = Placement(PLAIN, everybody).pool()
    assert names(pool) == ["SERVING"], "none can be reached: the best are tried"
    assert pool is not None
    assert pool.unreachable
    assert Placement(PLAIN, [draining]).pool() is None


def ten(ejected: int) -> list[Candidate]:
    """Ten, of which the first few are ejected."""
    return [candidate(f"i{n}", ejected="consecutive_5xx" if n < ejected else "") for n in range(10)]


@pytest.mark.parametrize(
    ("ejected", "threshold", "picked", "panic"),
    [
        (5, 50, 5, False),  # exactly the threshold is enough
        (6, 50, 10, True),
        (10, 50, 10, True),
        (9, 0, 1, False),  # turned off
        (10, 0, 10, True),  # but never nobody
        (1, 100, 10, True),
        (0, 100, 10, False),
    ],
)
def test_panic(ejected: int, threshold: int, picked: int, panic: bool) -> None:
    pool = Placement(Policy(healthy_panic_threshold=threshold), ten(ejected)).pool()
    assert pool is not None
    assert (len(names(pool)), pool.panic) == (picked, panic)


def test_panic_counts_those_that_cannot_be_reached_as_gone_and_lets_none_of_them_back() -> None:
    everybody = ten(2)
    for one in everybody[2:8]:
        one.out = "connection refused"
    pool = Placement(PLAIN, everybody).pool()
    assert names(pool) == ["i0", "i1", "i8", "i9"], "two of ten are too few"
    everybody[7].out = everybody[6].out = everybody[5].out = ""
    assert names(Placement(PLAIN, everybody).pool()) == ["i5", "i6", "i7", "i8", "i9"]


def test_in_panic_nobody_is_left_out_for_an_ejection() -> None:
    everybody = [*ten(6), candidate("d", status=Status.DEGRADED, ejected="success_rate")]
    assert rules(Placement(PLAIN, everybody), "d") == ["tier"]
    assert rules(Placement(PLAIN, everybody[5:]), "d") == ["tier", "ejected"]


def test_without_panic_a_worse_tier_stands_in_for_ejected_ones() -> None:
    everybody = [candidate("a", ejected="success_rate"), candidate("b", status=Status.DEGRADED)]
    assert names(Placement(Policy(healthy_panic_threshold=0), everybody).pool()) == ["b"]
    assert names(Placement(PLAIN, everybody).pool()) == ["a"]
    assert rules(Placement(Policy(healthy_panic_threshold=0), everybody), "a") == ["tier", "ejected"]


# Subsets and selectors.


def test_destinations_are_versions_and_labels() -> None:
    policy = Policy(subsets=(Subset(name="gold", version="^2", labels={"tier": "gold"}),))
    everybody = [
        candidate("a", version="2.1.0", labels={"tier": "gold"}),
        candidate("b", version="2.1.0"),
        candidate("c", version="1.0.0", labels={"tier": "gold"}),
        candidate("d", version=""),
    ]
    placement = Placement(policy, everybody)
    assert names(placement.pool(Destination(subset="gold", weight=3))) == ["a"]
    assert placement.pool(Destination(subset="gold", weight=3)) is placement.pool(Destination(subset="gold"))
    assert names(placement.pool(Destination(version=">=2"))) == ["a", "b"]
    assert names(placement.pool()) == ["a", "b", "c", "d"]
    assert placement.pool(Destination(version="^3")) is None
    assert placement.pool(Destination(subset="nobody named it so")) is None
    assert rules(placement, "c", Destination(version=">=2")) == ["split"]


def test_a_selector_narrows_and_says_so() -> None:
    everybody = [candidate("a"), candidate("b", version="2.0.0"), candidate("c", status=Status.NOT_SERVING)]
    placement = Placement(PLAIN, everybody, selector=Selector(version="^2"))
    assert names(placement.pool()) == ["b"]
    assert rules(placement, "a") == ["selector"]
    assert rules(placement, "c") == ["status", "selector"]
    asked = Placement(PLAIN, everybody, selector=Selector(statuses=frozenset({Status.NOT_SERVING})))
    assert names(asked.pool()) == ["c"]
    assert rules(asked, "a") == ["status"]


def test_who_does_not_speak_the_protocol_is_left_out() -> None:
    mute = Candidate(candidate("m").instance, None)
    placement = Placement(PLAIN, [mute, candidate("a")])
    assert names(placement.pool()) == ["a"]
    assert rules(placement, "m") == ["protocol"]


# Near and far. The percentages are Envoy's examples: https://www.envoyproxy.io/docs, "Priority levels".


@pytest.mark.parametrize(
    ("healthy", "expected"),
    [
        ((100, 100), (100, 0)),
        ((72, 100), (100, 0)),
        ((71, 100), (99, 1)),
        ((50, 100), (70, 30)),
        ((25, 100), (35, 65)),
        ((0, 100), (0, 100)),
        ((72, 72), (100, 0)),
        ((71, 71), (99, 1)),
        ((50, 50), (70, 30)),
        ((25, 25), (50, 50)),
        ((100, 100, 100), (100, 0, 0)),
        ((72, 72, 100), (100, 0, 0)),
        ((71, 71, 100), (99, 1, 0)),
        ((50, 50, 100), (70, 30, 0)),
        ((25, 100, 100), (35, 65, 0)),
        ((25, 25, 100), (35, 35, 30)),
        ((25, 25, 20), (36, 36, 28)),
    ],
)
def test_levels_spill_over_as_in_envoy(healthy: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(loads([Count(some, 100) for some in healthy], 140)) == expected


def test_a_level_is_not_forgotten_because_it_is_nearly_down() -> None:
    assert loads([Count(1, 1_000)], 140) == [100]
    assert loads([Count(0, 5), Count(1, 1_000), Count(0, 3)], 140) == [0, 100, 0]


@pytest.mark.parametrize(
    ("sizes", "least", "expected"),
    [
        ((3, 3, 3), 1, [0, 1, 2]),
        ((0, 3, 3), 1, [1, 1, 2]),
        ((2, 3, 3), 3, [1, 1, 2]),
        ((1, 1, 0), 3, [2, 2, 2]),
        ((1, 1, 1), 2, [1, 1, 2]),
    ],
)
def test_small_levels_are_part_of_the_next(sizes: tuple[int, ...], least: int, expected: list[int]) -> None:
    assert passed_over([Count(0, size) for size in sizes], least) == expected


def spread() -> list[Candidate]:
    """Four in the caller's zone, two in its region, two elsewhere."""
    return [
        *(candidate(f"zone{n}", region="r", zone="a") for n in range(4)),
        *(candidate(f"region{n}", region="r", zone="b") for n in range(2)),
        *(candidate(f"far{n}", region="q", zone="a") for n in range(2)),
    ]


def test_near_instances_first_and_the_rest_when_they_fail() -> None:
    policy = Policy(locality=LocalityPreference(), healthy_panic_threshold=0)
    everybody = spread()
    placement = Placement(policy, everybody, where=ZONE_A)
    assert level_loads(placement.pool()) == {"zone": 100}
    assert rules(placement, "region0") == ["locality"]
    everybody[0].out = everybody[1].ejected = "no"
    assert level_loads(Placement(policy, everybody, where=ZONE_A).pool()) == {"zone": 70, "region": 30}
    for one in everybody[:6]:
        one.out = "no"
    assert level_loads(Placement(policy, everybody, where=ZONE_A).pool()) == {"elsewhere": 100}


def test_how_near_counts() -> None:
    everybody = spread()
    region = Policy(locality=LocalityPreference(nearest=LocalityScope.REGION))
    assert len(names(Placement(region, everybody, where=ZONE_A).pool())) == 6
    sub_zone = Policy(locality=LocalityPreference(nearest=LocalityScope.SUB_ZONE))
    assert level_loads(Placement(sub_zone, everybody, where=Locality("r", "a", "x")).pool()) == {"zone": 100}
    least = Policy(locality=LocalityPreference(min_instances=5))
    assert level_loads(Placement(least, everybody, where=ZONE_A).pool()) == {"region": 100}
    assert len(names(Placement(least, everybody, where=ZONE_A).pool())) == 6
    only_zone = Placement(Policy(locality=LocalityPreference()), everybody, where=Locality(zone="a"))
    assert names(only_zone.pool()) == ["far0", "far1", "zone0", "zone1", "zone2", "zone3"]
    nowhere = Placement(Policy(locality=LocalityPreference()), everybody)
    assert level_loads(nowhere.pool()) == {"elsewhere": 100}
    assert len(names(nowhere.pool())) == 8


# New ones.


def test_the_formula_of_slow_start() -> None:
    slow = SlowStart(window_ns=60 * S, aggression=1.0, min_weight_percent=10)
    assert factor_of(slow, None, 5 * S) == 1.0
    assert factor_of(slow, 0, 0) == 0.1, "the least: a sixtieth would be less"
    assert factor_of(slow, 0, 30 * S) == 0.5
    assert factor_of(slow, 0, 60 * S) == factor_of(slow, 0, 999 * S) == 1.0
    quick = SlowStart(window_ns=60 * S, aggression=2.0, min_weight_percent=1)
    assert factor_of(quick, 0, 15 * S) == pytest.approx(0.25 ** (1 / 2))
    lazy = SlowStart(window_ns=60 * S, aggression=0.5, min_weight_percent=1)
    assert factor_of(lazy, 0, 30 * S) == pytest.approx(0.25)
    assert factor_of(SlowStart(window_ns=10 * S, min_weight_percent=1), 0, 0) == 0.1, "an age under a second is one"
    assert factor_of(SlowStart(window_ns=60 * S, aggression=0.0), 0, 59 * S) == 0.1


def test_weights_grow_step_by_step() -> None:
    slow = SlowStart(window_ns=100 * S)
    assert next_step_ns(slow, 0, 0) == 2 * S
    assert next_step_ns(slow, 0, 99 * S) == 100 * S
    assert next_step_ns(slow, 0, 100 * S) is None
    policy = Policy(slow_start=slow)
    old, new = candidate("old"), candidate("new", new_since_ns=0, weight=200)
    placement = Placement(policy, [old, new], now_ns=50 * S)
    assert placement.next_ns == 52 * S
    assert [(one.weight, one.share_percent) for one in verdicts_of(placement)] == [(100, 50), (100, 50)]
    done = Placement(policy, [old, new], now_ns=100 * S)
    assert done.next_ns is None
    assert [one.weight for one in verdicts_of(done)] == [100, 200]


@pytest.mark.parametrize("algorithm", [Algorithm.RANDOM, Algorithm.RING_HASH, Algorithm.MAGLEV])
def test_keys_do_not_move_because_somebody_is_new(algorithm: Algorithm) -> None:
    policy = Policy(load_balancing=LoadBalancingPolicy(algorithm=algorithm), slow_start=SlowStart(window_ns=100 * S))
    placement = Placement(policy, [candidate("old"), candidate("new", new_since_ns=0)], now_ns=S)
    assert placement.next_ns is None
    assert {one.share_percent for one in verdicts_of(placement)} == {50}


def test_who_has_no_weight_is_named_unless_nobody_has_any() -> None:
    placement = Placement(PLAIN, [candidate("a", weight=0), candidate("b")])
    assert verdicts_of(placement)[0].exclusions == (Exclusion("weight", "a weight of 0"),)
    assert [one.share_percent for one in verdicts_of(Placement(PLAIN, [candidate("a", weight=0)]))] == [100]


def test_the_next_step_is_that_of_whoever_is_grown_first() -> None:
    policy = Policy(slow_start=SlowStart(window_ns=100 * S))
    grown, nearly, new = (candidate(f"i{since}", new_since_ns=since * S) for since in (0, 50, 149))
    assert Placement(policy, [new, nearly, grown], now_ns=149 * S).next_ns == 150 * S
    assert Placement(policy, [new, grown], now_ns=149 * S).next_ns == 151 * S, "a fiftieth of the window later"
    assert Placement(policy, [grown], now_ns=149 * S).next_ns is None
