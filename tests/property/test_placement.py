"""Over any policy and any candidates: nobody is forgotten, everything is explained, and what is explained is so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reference.candidates import candidate, evaluator
from trunkline.core.localities import Count, loads
from trunkline.core.model import ROUTABLE, Locality, Status
from trunkline.core.placement import Candidate, Liveness, Placement
from trunkline.core.policy import (
    Algorithm,
    Condition,
    Destination,
    KeySource,
    LoadBalancingPolicy,
    LocalityPreference,
    LocalityScope,
    Match,
    Policy,
    S,
    SlowStart,
    Split,
    Subset,
)
from trunkline.core.splits import Splitter
from trunkline.core.verdicts import verdicts_of

ZONES = ("", "a", "b")
VERSIONS = ("", "1.0.0", "1.5.0", "2.0.0", "2.1.0-rc.1")
localities = st.builds(Locality, st.sampled_from(("", "r")), st.sampled_from(ZONES))

descriptions = st.fixed_dictionaries(
    {
        "version": st.sampled_from(VERSIONS),
        "zone": st.sampled_from(ZONES),
        "region": st.sampled_from(("", "r")),
        "status": st.sampled_from(Status),
        "weight": st.sampled_from((0, 1, 100)),
        "labels": st.sampled_from(({}, {"tier": "gold"})),
        "out": st.sampled_from(("", "", "connection refused")),
        "ejected": st.sampled_from(("", "", "success_rate")),
        "new_since_ns": st.sampled_from((None, 0, 90 * S)),
    }
)
destinations = st.one_of(
    st.builds(
        lambda version, weight: Destination(version=version, weight=weight),
        st.sampled_from(("^1", "^2", "*")),
        st.integers(0, 3),
    ),
    st.builds(lambda weight: Destination(subset="gold", weight=weight), st.integers(0, 3)),
)
splits = st.builds(
    Split,
    matches=st.lists(
        st.builds(
            lambda destination: Match(conditions=(Condition(header="m", present=True),), destination=destination),
            destinations,
        ),
        max_size=2,
    ).map(tuple),
    destinations=st.lists(destinations, max_size=3).map(tuple),
    sticky_on=st.none() | st.just(KeySource(header="k")),
)
policies = st.builds(
    Policy,
    load_balancing=st.builds(
        LoadBalancingPolicy,
        algorithm=st.sampled_from(Algorithm),
        hash_on=st.none() | st.just(KeySource(header="k")),
        minimum_ring_size=st.just(16),
        maximum_ring_size=st.just(64),
        table_size=st.just(31),
        hash_balance_factor=st.sampled_from((0, 125)),
    ),
    locality=st.none()
    | st.builds(LocalityPreference, nearest=st.sampled_from(LocalityScope), min_instances=st.integers(1, 3)),
    slow_start=st.none() | st.just(SlowStart(window_ns=100 * S)),
    healthy_panic_threshold=st.sampled_from((0, 50, 100)),
    subsets=st.just((Subset(name="gold", labels={"tier": "gold"}),)),
    split=st.none() | splits,
)
metadata = st.sampled_from(((), (("m", "x"),), (("k", "key"),), (("m", "x"), ("k", "other"))))


def candidates(described: list[dict[str, Any]]) -> list[Candidate]:
    return [candidate(f"i{number}", **one) for number, one in enumerate(described)]


worlds = st.lists(descriptions, max_size=7)


@given(policy=policies, world=worlds, where=localities, call=metadata, seed=st.integers(0, 2**64 - 1))
def test_a_pick_is_never_empty_while_a_candidate_lives(
    policy: Policy, world: list[dict[str, Any]], where: Locality, call: Any, seed: int
) -> None:
    known = candidates(world)
    made = evaluator(policy, known, seed, where=where, now_ns=100 * S)
    living = [one for one in known if one.instance.status in ROUTABLE]
    for _ in range(4):
        picked, ticket = made.pick(call), made.begin(call)
        assert (picked is None) == (ticket is None) == (not living)
        if picked is None or ticket is None:
            continue
        assert {picked, made.candidate(ticket.slot)} <= set(living)
        ticket.end(1)
        reachable = [one for one in living if not one.out]
        assert not picked.out or not reachable, "what cannot be reached is left out as long as something can"
        live = [one for one in reachable if one.instance.status is not Status.STALE]
        named = [one for one in live if _named(made.placement, one)]
        assert picked.instance.status is not Status.STALE or not (named if policy.split else live)


def _named(placement: Placement, one: Candidate) -> bool:
    """Whether a destination of the split takes it, by share or as the rest."""
    split = placement.policy.split
    takers = [] if split is None else split.destinations
    return any(one in placement._part(replace(destination, weight=0)) for destination in takers)


@given(policy=policies, world=worlds, where=localities, call=metadata, seed=st.integers(0, 2**32))
def test_for_one_seed_the_winner_that_is_explained_is_the_pick(
    policy: Policy, world: list[dict[str, Any]], where: Locality, call: Any, seed: int
) -> None:
    known = candidates(world)
    explained = evaluator(policy, known, seed, where=where, now_ns=100 * S).explain(call)
    assert explained.winner is evaluator(policy, known, seed, where=where, now_ns=100 * S).pick(call)
    shares = sum(verdict.share_percent for verdict in explained.verdicts)
    assert abs(shares - (100 if explained.winner else 0)) < 1e-6
    for verdict in explained.verdicts:
        assert bool(verdict.exclusions) == (verdict.share_percent == 0), "everybody who gets no calls is told why"
        if verdict.candidate is explained.winner:
            assert verdict.exclusions == ()


def undo(one: Candidate, rules: set[str], where: Locality, destination: Destination | None) -> dict[str, Any]:
    """What the candidate would be described as without what left it out."""
    instance = one.instance.instance
    described: dict[str, Any] = {
        "version": instance.version,
        "zone": instance.locality.zone,
        "region": instance.locality.region,
        "status": one.instance.status,
        "weight": instance.weight,
        "labels": dict(instance.labels),
        "out": one.out,
        "ejected": one.ejected,
        "new_since_ns": one.new_since_ns,
    }
    if "split" in rules and destination is not None:
        described["version"] = {"^1": "1.0.0", "^2": "2.0.0", "*": "1.0.0"}.get(destination.version, instance.version)
        described["labels"] = {"tier": "gold"}
    undone_by: dict[str, dict[str, Any]] = {
        "status": {"status": Status.SERVING},
        "tier": {"status": Status.SERVING},
        "unreachable": {"out": ""},
        "ejected": {"ejected": ""},
        "locality": {"zone": where.zone, "region": where.region},
        "weight": {"weight": 100},
    }
    for rule in rules & undone_by.keys():
        described.update(undone_by[rule])
    return described


@given(policy=policies, world=worlds.filter(bool), where=localities, data=st.data())
def test_undoing_what_left_a_candidate_out_brings_it_back(
    policy: Policy, world: list[dict[str, Any]], where: Locality, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, len(world) - 1))
    split = policy.split
    named: list[Destination | None] = [None] if split is None else [None, *split.destinations]
    destination = data.draw(st.sampled_from(named))
    for _ in range(8):
        known = candidates(world)
        verdict = verdicts_of(Placement(policy, known, where=where, now_ns=100 * S), destination)[number]
        if not verdict.exclusions:
            return
        rules = {exclusion.rule for exclusion in verdict.exclusions}
        before = world[number]
        world = [*world[:number], undo(known[number], rules, where, destination), *world[number + 1 :]]
        assert world[number] != before, f"{rules} name nothing that could be undone"
    raise AssertionError("it does not come back")


@given(
    counts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=4),
    factor=st.integers(100, 300),
)
def test_the_levels_calls_are_100_percent(counts: list[tuple[int, int]], factor: int) -> None:
    levels = [Count(healthy, healthy + ill) for healthy, ill in counts]
    if not any(level.healthy for level in levels):
        return
    shares = loads(levels, factor)
    assert sum(shares) == 100
    assert all(level.healthy for level, share in zip(levels, shares, strict=True) if share)
    assert shares[0] >= min(100, factor * levels[0].healthy // levels[0].all) if levels[0].all else shares[0] == 0


@given(
    weights=st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any),
    grown=st.tuples(st.integers(0, 4), st.integers(1, 50)),
    keys=st.lists(st.binary(max_size=12), max_size=40),
)
def test_keys_move_only_to_the_share_that_grew(weights: list[int], grown: tuple[int, int], keys: list[bytes]) -> None:
    at = grown[0] % len(weights)
    after = [weight + grown[1] * (number == at) for number, weight in enumerate(weights)]
    placed = []
    for some in (weights, after):
        known = tuple(Destination(version=f"{number}.0.0", weight=weight) for number, weight in enumerate(some))
        made = Splitter(Split(destinations=known, sticky_on=KeySource(header="k")), _all_alive)
        placed.append([made.choose(None, key, b"", _NO_CHANCE).destination for key in keys])
    for old, new in zip(*placed, strict=True):
        assert old is not None
        assert new is not None
        assert new.version in (old.version, f"{at}.0.0")


def _all_alive(destination: Destination | None) -> Liveness:
    return Liveness(nobody=False, unreachable=False, stale=False)


_NO_CHANCE: Any = None
"""Nothing is left to chance."""
