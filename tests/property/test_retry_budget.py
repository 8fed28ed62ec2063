"""In no stretch of time, wherever it begins, are there more retries than the budget promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.retry_budget import SECOND, Ledger, retries_over
from trunkline.core.clock import Rng
from trunkline.core.retry_budget import RetryBudget

budgets = st.tuples(
    st.sampled_from([0, 1, 20, 50, 100, 1_000]), st.sampled_from([0, 1, 3]), st.sampled_from([SECOND, 10 * SECOND])
)
# How long after the one before, in 64ths of a ttl; and a call, or so many wishes to retry.
steps = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2, 31, 62, 63, 64, 66, 200]), st.integers(0, 8)), max_size=80)


@given(budget=budgets, steps=steps)
def test_the_law_holds_in_any_stretch(budget: tuple[int, int, int], steps: list[tuple[int, int]]) -> None:
    fast, ledger = RetryBudget(*budget), Ledger(*budget)
    ttl_ns = budget[2]
    now_ns = 5 * SECOND
    for after, wishes in steps:
        now_ns += after * ttl_ns // 64
        if wishes < 3:
            fast.called(now_ns)
            ledger.events.append((now_ns, False))
            continue
        for _ in range(2 ** (wishes - 3)):
            may, may_surely = ledger.may(now_ns), ledger.may(now_ns, late_ns=ttl_ns // 32 + 64)
            told = fast.may(now_ns)
            took = fast.take(now_ns)
            assert told == took
            # Never more than the law allows; and no less than where what is old is forgotten a slot later.
            assert may or not took
            assert took or not may_surely
            if took:
                ledger.events.append((now_ns, True))
    for begin_ns in {at_ns for at_ns, _ in ledger.events} | {at_ns - ttl_ns + 1 for at_ns, _ in ledger.events}:
        assert retries_over(ledger.events, begin_ns, ledger) <= 0


@pytest.mark.parametrize("seed", range(5))
def test_it_gives_what_it_promises_where_all_calls_fail(seed: int) -> None:
    rng, budget = Rng(seed), RetryBudget()
    now_ns, calls, retries = 0, 0, 0
    while now_ns < 100 * SECOND:
        now_ns += rng.below(20_000_000)
        budget.called(now_ns)
        calls += 1
        retries += sum(budget.take(now_ns + rng.below(1_000)) for _ in range(2))
    # A fifth of the calls, and 3 a second besides.
    assert 0.9 * (0.2 * calls + 300) <= retries <= 0.2 * calls + 330


def test_without_calls_there_are_the_few_besides() -> None:
    budget = RetryBudget(20, 3, 10 * SECOND)
    assert sum(budget.take(0) for _ in range(100)) == 30
    assert not budget.take(10 * SECOND - 1)
    assert sum(budget.take(11 * SECOND) for _ in range(100)) == 30


def test_a_flood_of_retries_after_the_calls_is_no_more_than_the_few_besides() -> None:
    budget = RetryBudget(20, 3, 10 * SECOND)
    for _ in range(1_000):
        budget.called(0)
    assert sum(budget.take(1) for _ in range(1_000)) == 30


def test_a_share_alone_lets_every_fifth_call_be_made_again() -> None:
    budget = RetryBudget(20, 0, 10 * SECOND)
    taken = 0
    for at in range(100):
        budget.called(at)
        taken += budget.take(at)
    assert taken == 20
    assert not any(RetryBudget(0, 0, SECOND).take(at) for at in range(3))


def test_nothing_is_forgotten_before_its_time() -> None:
    for begin_ns in range(0, SECOND, SECOND // 100):
        budget = RetryBudget(0, 1, SECOND)
        assert budget.take(begin_ns)
        assert not budget.take(begin_ns + SECOND - 1)
        assert budget.take(begin_ns + SECOND + SECOND // 32)


def test_time_that_goes_back_counts_as_the_latest() -> None:
    budget = RetryBudget(0, 1, SECOND)
    assert budget.take(50 * SECOND)
    assert not budget.take(0)
    assert budget.take(52 * SECOND)


@pytest.mark.parametrize("settings", [(-1, 3, SECOND), (1_001, 3, SECOND), (20, -1, SECOND), (20, 100_001, SECOND)])
def test_settings_out_of_range_are_refused(settings: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="is in"):
        RetryBudget(*settings)
    for ttl_ns in (SECOND - 1, 3_600 * SECOND + 1):
        with pytest.raises(ValueError, match="ttl_ns"):
            RetryBudget(20, 3, ttl_ns)
    # The largest of all do not overflow.
    assert RetryBudget(1_000, 100_000, 3_600 * SECOND).take(2**62)
