"""Which versions get a call: matches, keys, chance, and destinations that are down."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from reference.candidates import candidate
from trunkline.core.clock import Rng
from trunkline.core.model import Status
from trunkline.core.placement import Candidate, Placement
from trunkline.core.policy import Condition, Destination, KeySource, Match, Policy, Split
from trunkline.core.splits import Decision, Splitter, key_of, value_of

OLD, NEW = Destination(version="^1", weight=90), Destination(version="^2", weight=10)
CANARY = Match(conditions=(Condition(header="x-canary", exact="true"),), destination=Destination(version="^2"))


def splitter(split: Split, candidates: list[Candidate] | None = None) -> Splitter:
    known = [candidate("old"), candidate("new", version="2.0.0")] if candidates is None else candidates
    return Splitter(split, Placement(Policy(split=split), known).liveness)


def version(decision: Decision) -> str:
    return "" if decision.destination is None else decision.destination.version


def test_what_a_call_says() -> None:
    metadata: list[tuple[str, str | bytes]] = [("a", "1"), ("b-bin", b"\x00"), ("a", "2")]
    assert value_of(metadata, "a") == b"1,2"
    assert value_of(metadata, "b-bin") == b"\x00"
    assert value_of(metadata, "c") is None
    assert value_of(None, "a") is None
    assert key_of(KeySource(header="a"), metadata, b"me") == b"1,2"
    assert key_of(KeySource(caller=True), metadata, b"me") == b"me"
    assert key_of(KeySource(caller=True), metadata, b"") is None
    assert key_of(None, metadata, b"me") is None


@pytest.mark.parametrize(
    ("condition", "metadata", "expected"),
    [
        (Condition(header="x", exact="yes"), [("x", "yes")], True),
        (Condition(header="x", exact="yes"), [("x", "yes!")], False),
        (Condition(header="x", exact=""), [("x", "")], True),
        (Condition(header="x", exact=""), [], False),
        (Condition(header="x", prefix="ye"), [("x", "yes")], True),
        (Condition(header="x", prefix="ye"), [("x", "no yes")], False),
        (Condition(header="x", present=True), [("x", "")], True),
        (Condition(header="x", present=True), [("y", "")], False),
        (Condition(header="x-bin", exact="a"), [("x-bin", b"a")], True),
    ],
)
def test_conditions(condition: Condition, metadata: list[tuple[str, str | bytes]], expected: bool) -> None:
    match = Match(conditions=(condition,), destination=Destination(version="^2"))
    split = splitter(Split(matches=(match,), destinations=(Destination(version="^1", weight=1),)))
    assert (version(split.choose(metadata, None, b"", Rng(1))) == "^2") is expected


def test_all_conditions_of_a_match_hold_and_the_first_match_decides() -> None:
    both = Match(
        conditions=(Condition(header="a", present=True), Condition(header="b", present=True)),
        destination=Destination(version="^2"),
    )
    one = Match(conditions=(Condition(header="a", present=True),), destination=Destination(version="^1"))
    split = splitter(Split(matches=(both, one)))
    assert version(split.choose([("a", "")], None, b"", Rng(1))) == "^1"
    assert version(split.choose([("a", ""), ("b", "")], None, b"", Rng(1))) == "^2"
    assert split.choose([("b", "")], None, b"", Rng(1)).destination is None


def shares(split: Splitter, calls: int = 20_000) -> dict[str, float]:
    """Percent of calls by chance."""
    rng = Rng(5)
    counts = Counter(version(split.choose(None, None, b"", rng)) for _ in range(calls))
    return {name: 100 * count / calls for name, count in counts.items()}


def test_shares_by_chance_and_by_key() -> None:
    # Four standard deviations of 20,000 draws with a chance of 10 % are 0.85 percent.
    assert shares(splitter(Split(destinations=(OLD, NEW))))["^2"] == pytest.approx(10, abs=0.85)
    sticky = splitter(Split(destinations=(OLD, NEW), sticky_on=KeySource(header="user")))
    counts = Counter(version(sticky.choose([("user", f"u{n}")], None, b"", Rng(n))) for n in range(20_000))
    assert counts["^2"] / 200 == pytest.approx(10, abs=0.85)
    assert shares(sticky)["^2"] == pytest.approx(10, abs=0.85), "a call without a key goes by chance"
    for n in range(100):
        there = {version(sticky.choose([("user", f"u{n}")], None, b"", Rng(seed))) for seed in range(3)}
        assert len(there) == 1
    given = {version(sticky.choose([("user", f"u{n}")], b"key", b"", Rng(n))) for n in range(50)}
    assert len(given) == 1, "the key stands in for what the metadata says"


def test_a_destination_that_is_down_is_left_out() -> None:
    old, new = candidate("old"), candidate("new", version="2.0.0")
    split = Split(matches=(CANARY,), destinations=(OLD, NEW))
    canary = [("x-canary", "true")]
    assert version(splitter(split, [old, new]).choose(canary, None, b"", Rng(1))) == "^2"
    assert shares(splitter(split, [old]), 100) == {"^1": 100}
    assert version(splitter(split, [old]).choose(canary, None, b"", Rng(1))) == "^1"
    new.out = "connection refused"
    assert shares(splitter(split, [old, new]), 100) == {"^1": 100}
    assert version(splitter(split, [old, new]).choose(canary, None, b"", Rng(1))) == "^1"
    old.out = "connection refused"
    assert set(shares(splitter(split, [old, new]), 500)) == {"^1", "^2"}, "none can be reached: all are tried"
    stale = candidate("new", version="2.0.0", status=Status.STALE)
    assert shares(splitter(split, [candidate("old"), stale]), 100) == {"^1": 100}, "stale is behind every live one"
    degraded = candidate("new", version="2.0.0", status=Status.DEGRADED)
    assert set(shares(splitter(split, [candidate("old"), degraded]), 500)) == {"^1", "^2"}


def test_who_has_no_share_gets_calls_when_nobody_else_can() -> None:
    blue, green = Destination(version="^1", weight=100), Destination(version="^2", weight=0)
    split = Split(destinations=(blue, green))
    assert shares(splitter(split), 200) == {"^1": 100}
    assert shares(splitter(split, [candidate("green", version="2.0.0")]), 20) == {"^2": 100}


def test_instances_of_no_destination_get_calls_only_when_no_destination_has_any() -> None:
    split = Split(destinations=(OLD, NEW))
    assert shares(splitter(split, [candidate("other", version="3.0.0")]), 20) == {"": 100}
    assert shares(splitter(split, [candidate("other", version="3.0.0"), candidate("old")]), 20) == {"^1": 100}
    unreachable = candidate("old", out="connection refused")
    assert shares(splitter(split, [candidate("other", version="3.0.0"), unreachable]), 20) == {"": 100}
    assert splitter(split, []).choose(None, None, b"", Rng(1)).destination is None


def places(weights: list[int], keys: int = 5_000) -> list[int]:
    """Where keys go that stick to destinations with these weights."""
    destinations = tuple(Destination(version=f"{n}.0.0", weight=weight) for n, weight in enumerate(weights))
    known = [candidate(f"i{n}", version=f"{n}.0.0") for n in range(len(weights))]
    made = splitter(Split(destinations=destinations, sticky_on=KeySource(header="k")), known)
    numbers = {destination.version: n for n, destination in enumerate(destinations)}
    return [numbers[version(made.choose([("k", f"key{n}")], None, b"", Rng(1)))] for n in range(keys)]


def test_a_share_that_grows_takes_keys_and_no_other_key_moves() -> None:
    before, after = places([90, 5, 5]), places([90, 5, 20])
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new for _, new in moved} == {2}
    grown = 20 / 115 - 5 / 100
    assert len(moved) / 5_000 == pytest.approx(grown, abs=4 * (grown * (1 - grown) / 5_000) ** 0.5)


def test_steps_of_a_release_move_keys_one_way() -> None:
    steps = [places([100 - share, share]) for share in (0, 1, 5, 25, 50, 100)]
    for before, after in pairwise(steps):
        assert all(new >= old for old, new in zip(before, after, strict=True)), "nobody goes back to the old version"
    assert set(steps[0]) == {0}
    assert set(steps[-1]) == {1}


def test_when_a_destination_goes_only_its_keys_move() -> None:
    both = Split(
        destinations=tuple(Destination(version=f"{n}.0.0", weight=10) for n in range(3)),
        sticky_on=KeySource(header="k"),
    )
    known = [candidate(f"i{n}", version=f"{n}.0.0") for n in range(3)]
    whole, rest = splitter(both, known), splitter(both, known[:2])
    for n in range(1_000):
        before = version(whole.choose([("k", str(n))], None, b"", Rng(1)))
        after = version(rest.choose([("k", str(n))], None, b"", Rng(1)))
        assert before in (after, "2.0.0")
