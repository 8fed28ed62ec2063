"""Pickers, one rule at a time."""

from __future__ import annotations

from collections import Counter
from itertools import islice, repeat
from typing import Any

import pytest

from trunkline.core.clock import Rng
from trunkline.core.selection import (
    ACTIVE_REQUEST_BIAS_MAX,
    CHOICE_COUNT_MAX,
    LeastRequest,
    Random,
    RoundRobin,
    WeightedRandom,
)


def picks(picker: Any, count: int) -> list[int]:
    return [picker.pick() for _ in islice(repeat(None), count)]


def test_equal_weights_go_round() -> None:
    assert picks(RoundRobin([7, 7, 7]), 7) == [0, 1, 2, 0, 1, 2, 0]
    assert picks(RoundRobin([7, 7, 7], start=2**64 - 1), 4) == [0, 1, 2, 0]
    assert picks(RoundRobin([7, 7, 7], start=4), 4) == [1, 2, 0, 1]


def test_weighted_turns_are_earliest_deadline_first() -> None:
    # What https://github.com/envoyproxy/envoy expects of weights 1 and 2 in
    # test/extensions/load_balancing_policies/round_robin/round_robin_lb_test.cc, "Weighted".
    assert picks(RoundRobin([1, 2]), 6) == [1, 0, 1, 1, 0, 1]


def test_a_weight_of_zero_is_never_picked() -> None:
    for picker in (
        RoundRobin([0, 3, 0, 1]),
        WeightedRandom([0, 3, 0, 1], Rng(1)),
        LeastRequest([0, 3, 0, 1], Rng(1)),
    ):
        assert set(picks(picker, 1_000)) == {1, 3}


def test_a_start_continues_the_schedule() -> None:
    weights = [5, 1, 3, 2]
    whole = picks(RoundRobin(weights), 44)
    for start in range(11):
        goes_on = whole[:start] + picks(RoundRobin(weights, start=start), 33)
        for made in range(start, start + 33):
            # Which of two that are due at once comes first may differ.
            ahead = Counter(goes_on[:made])
            ahead.subtract(Counter(whole[:made]))
            assert set(ahead.values()) <= {-1, 0, 1}
        assert picks(RoundRobin(weights, start=start + 11 * 10**9), 33) == goes_on[start:]


@pytest.mark.parametrize("count", [1, 2, 100_000])
def test_sizes(count: int) -> None:
    rng = Rng(3)
    weights = [1 + index % 7 for index in range(count)]
    for picker in (
        RoundRobin(weights),
        RoundRobin(weights, start=rng.u64()),
        Random(count, rng),
        WeightedRandom(weights, rng),
        LeastRequest(weights, rng),
        LeastRequest([1] * count, rng),
    ):
        assert all(0 <= picked < count for picked in picks(picker, 1_000))


def test_every_one_has_its_turn_among_many() -> None:
    weights = [1 + index % 7 for index in range(100_000)]
    counts = Counter(picks(RoundRobin(weights), sum(weights)))
    assert all(abs(counts[index] - weight) <= 1 for index, weight in enumerate(weights))


def test_the_least_loaded_of_two_is_picked() -> None:
    # With as many choices as there can be, missing the idle one of two is a chance of 2 ** -100.
    picker = LeastRequest([1, 1], Rng(5), choice_count=CHOICE_COUNT_MAX)
    picker.started(0)
    assert set(picks(picker, 100)) == {1}
    picker.started(1)
    picker.started(1)
    assert set(picks(picker, 100)) == {0}
    picker.finished(1)
    picker.finished(1)
    assert set(picks(picker, 100)) == {1}


def test_of_equally_loaded_ones_the_first_is_picked() -> None:
    picker, rng = LeastRequest([1] * 10, Rng(5)), Rng(5)
    for _ in range(100):
        first, _other = rng.below(10), rng.below(10)
        assert picker.pick() == first


def test_two_choices_send_little_to_the_busiest() -> None:
    picker = LeastRequest([1] * 10, Rng(6))
    picker.started(4)
    # It is picked only when both choices are it: 1 in 100.
    assert 60 <= picks(picker, 10_000).count(4) <= 150


def test_load_evens_out() -> None:
    picker = LeastRequest([1] * 100, Rng(7))
    for _ in range(10_000):
        picker.started(picker.pick())
    loads = [picker.active(index) for index in range(100)]
    assert sum(loads) == 10_000
    assert max(loads) <= 103  # log log n above the mean; by chance alone it would be about 125


def test_weights_are_divided_by_load() -> None:
    picker = LeastRequest([2, 1], Rng(8), active=[3, 0])
    counts = Counter(picks(picker, 3_000))
    assert counts[0] == pytest.approx(1_000, abs=2)  # 2 / 4 against 1


def test_a_bias_of_zero_takes_no_notice_of_load() -> None:
    picker = LeastRequest([2, 1], Rng(8), active=[30, 0], active_request_bias=0.0)
    assert Counter(picks(picker, 3_000))[0] == pytest.approx(2_000, abs=2)


def test_a_stronger_bias_avoids_load_more() -> None:
    picker = LeastRequest([2, 1], Rng(8), active=[3, 0], active_request_bias=2.0)
    assert Counter(picks(picker, 9_000))[0] == pytest.approx(1_000, abs=2)  # 2 / 16 against 1


def test_one_that_was_busy_comes_back() -> None:
    picker = LeastRequest([2, 1], Rng(8), active=[100, 0], active_request_bias=ACTIVE_REQUEST_BIAS_MAX)
    assert 0 not in picks(picker, 100)
    fresh = LeastRequest([2, 1], Rng(8), active=[0, 0], active_request_bias=ACTIVE_REQUEST_BIAS_MAX)
    assert 0 in picks(fresh, 3)


@pytest.mark.parametrize("index", [-1, 2, 2**31])
def test_refused_indexes(index: int) -> None:
    picker = LeastRequest([1, 1], Rng(0))
    for step in (picker.started, picker.finished, picker.active):
        with pytest.raises(IndexError):
            step(index)


def test_finishing_what_never_started() -> None:
    picker = LeastRequest([1, 1], Rng(0))
    with pytest.raises(ValueError, match="no request is active at 1"):
        picker.finished(1)
    assert picker.active(1) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"choice_count": 1},
        {"choice_count": CHOICE_COUNT_MAX + 1},
        {"active_request_bias": -0.1},
        {"active_request_bias": ACTIVE_REQUEST_BIAS_MAX + 0.1},
        {"active_request_bias": float("nan")},
        {"active": [0]},
        {"active": [0, -1]},
        {"active": [0, 2**32]},
    ],
)
def test_refused_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        LeastRequest([1, 1], Rng(0), **settings)


@pytest.mark.parametrize("count", [0, -1, 1_000_001])
def test_refused_counts(count: int) -> None:
    with pytest.raises(ValueError, match="to pick from"):
        Random(count, Rng(0))


def test_what_is_no_weight() -> None:
    for weights in ([1.5], ["1"], [None]):
        with pytest.raises(TypeError):
            RoundRobin(weights)  # type: ignore[arg-type]
