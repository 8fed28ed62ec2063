"""Pickers agree with their twins pick by pick, and keep the laws of their shares."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import selection as reference
from reference.weights import check_weights
from trunkline.core.clock import Rng
from trunkline.core.selection import LeastRequest, Random, RoundRobin, WeightedRandom

SEED = 20_240_229

usable = st.one_of(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12),
    st.integers(1, 40).map(lambda n: [7] * n),
).filter(any)
refused: st.SearchStrategy[list[int]] = st.one_of(
    st.just([]),
    st.lists(st.just(0), min_size=1, max_size=3),
    st.lists(st.sampled_from([-1, 1, 2**31, 2**63, -(2**70)]), min_size=1, max_size=3),
)


@given(bound=st.one_of(st.integers(1, 100), st.integers(1, 2**64 - 1)), seed=st.integers(0, 2**64 - 1))
def test_below_agrees_with_its_definition(bound: int, seed: int) -> None:
    # Lemire 2019: the upper half of a product, drawn again where its lower half is one of the 2**64 % bound too many.
    rng, raw = Rng(seed), Rng(seed)
    for _ in range(20):
        product = raw.u64() * bound
        while product % 2**64 < 2**64 % bound:
            product = raw.u64() * bound
        assert rng.below(bound) == product >> 64


@given(count=st.integers(1, 1_000_000), seed=st.integers(0, 2**64 - 1))
def test_random_agrees_with_below(count: int, seed: int) -> None:
    picker, rng = Random(count, Rng(seed)), Rng(seed)
    assert [picker.pick() for _ in range(10)] == [rng.below(count) for _ in range(10)]


@given(weights=usable, start=st.one_of(st.integers(0, 50), st.integers(0, 2**64 - 1)))
def test_round_robin_agrees_with_its_twin(weights: list[int], start: int) -> None:
    # A start leaves fewer picks to make than there are weights, also for the slow one.
    fast, slow = RoundRobin(weights, start=start), reference.RoundRobin(weights, start=start)
    assert [fast.pick() for _ in range(60)] == [slow.pick() for _ in range(60)]


@given(weights=usable, seed=st.integers(0, 2**64 - 1))
def test_weighted_random_agrees_with_its_twin(weights: list[int], seed: int) -> None:
    fast, slow = WeightedRandom(weights, Rng(seed)), reference.WeightedRandom(weights, Rng(seed))
    assert [fast.pick() for _ in range(60)] == [slow.pick() for _ in range(60)]
    assert [slow.share(index) for index in range(len(weights))] == [Fraction(w, sum(weights)) for w in weights]


@given(
    weights=usable,
    seed=st.integers(0, 2**64 - 1),
    choice_count=st.integers(2, 6),
    bias=st.sampled_from([0.0, 0.5, 1.0, 2.0, 10.0]),
    active=st.lists(st.integers(0, 9), min_size=40, max_size=40),
    ends=st.lists(st.integers(0, 39), max_size=60),
)
def test_least_request_agrees_with_its_twin(
    weights: list[int], seed: int, choice_count: int, bias: float, active: list[int], ends: list[int]
) -> None:
    settings: dict[str, Any] = {"choice_count": choice_count, "active_request_bias": bias}
    settings["active"] = active[: len(weights)]
    fast = LeastRequest(weights, Rng(seed), **settings)
    slow = reference.LeastRequest(weights, Rng(seed), **settings)
    for end in ends:
        picked = fast.pick()
        assert picked == slow.pick()
        assert weights[picked] > 0
        for picker in (fast, slow):
            picker.started(picked)
            if end < len(weights) and picker.active(end):
                picker.finished(end)
    assert [fast.active(i) for i in range(len(weights))] == [slow.active(i) for i in range(len(weights))]


@given(weights=st.one_of(usable, refused))
def test_pickers_and_twins_refuse_the_same(weights: list[int]) -> None:
    def outcome(make: Any) -> bool:
        try:
            make()
        except ValueError:
            return False
        return True

    wanted = outcome(lambda: check_weights(weights))
    assert outcome(lambda: RoundRobin(weights)) is wanted
    assert outcome(lambda: WeightedRandom(weights, Rng(0))) is wanted
    assert outcome(lambda: LeastRequest(weights, Rng(0))) is wanted


@given(weights=st.lists(st.integers(0, 1_000), min_size=1, max_size=30).filter(any), rounds=st.integers(1, 3))
def test_turns_are_in_proportion_after_every_round(weights: list[int], rounds: int) -> None:
    picker = RoundRobin(weights)
    counts = [0] * len(weights)
    total = sum(weights)
    for made in range(1, rounds * total + 1):
        counts[picker.pick()] += 1
        if made % total == 0:
            # Rounding of 1 / weight may swap two that are due at the same moment.
            assert all(abs(count - made // total * w) <= 1 for count, w in zip(counts, weights, strict=True))


@given(weights=st.lists(st.integers(1, 50), min_size=2, max_size=20))
def test_turns_are_evenly_spread(weights: list[int]) -> None:
    # Two turns of one are a step apart in the schedule's time: of another, as many lie in between as fit into it.
    picker = RoundRobin(weights)
    picks = [picker.pick() for _ in range(4 * sum(weights))]
    heaviest = weights.index(max(weights))
    for index, weight in enumerate(weights):
        turns = [at for at, picked in enumerate(picks) if picked == index]
        between = [picks[a + 1 : b].count(heaviest) for a, b in pairwise(turns)]
        if index != heaviest:
            assert all(weights[heaviest] // weight - 1 <= n <= weights[heaviest] // weight + 1 for n in between)


def _shares_hold(counts: list[int], shares: list[float]) -> None:
    """Each count lies within 5 standard deviations of what the binomial law expects."""
    n = sum(counts)
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - n * share) <= 5 * sqrt(n * share * (1 - share)) + 1e-9


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1_000])
def test_random_is_uniform(count: int) -> None:
    picker = Random(count, Rng(SEED))
    counts = [0] * count
    for _ in range(100_000):
        counts[picker.pick()] += 1
    _shares_hold(counts, [1 / count] * count)


@pytest.mark.parametrize("weights", [[1], [1, 0, 3], [1, 1_000_000], [2**31 - 1, 2**31 - 1, 1], list(range(500))])
def test_weighted_random_keeps_the_shares(weights: list[int]) -> None:
    picker = WeightedRandom(weights, Rng(SEED))
    counts = [0] * len(weights)
    for _ in range(100_000):
        counts[picker.pick()] += 1
    _shares_hold(counts, [weight / sum(weights) for weight in weights])
