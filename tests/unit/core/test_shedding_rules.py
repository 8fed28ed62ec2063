"""The breaker that sheds, one rule at a time; and which breaker a policy asks for."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.core.breaker import Breaker, Outcome, State, WindowType
from trunkline.core.breakers import make_breaker, outcome_of, outcomes_of
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.policy import MS, BreakerMode, BreakerWindow, CircuitBreaker, Forced, S, StatusCode
from trunkline.core.shedding import SheddingBreaker


def small(**settings: Any) -> SheddingBreaker:
    """A breaker that decides on 10 calls."""
    return SheddingBreaker(Rng(7), **{"sliding_window_size": 10, "minimum_number_of_calls": 10, **settings})


def end(breaker: SheddingBreaker, *outcomes: Outcome, took_ms: int = 1, now_ns: int = 0) -> None:
    """Calls that were permitted before any of them ended."""
    for outcome in outcomes:
        breaker.record(breaker.generation, outcome, took_ms * MS, now_ns)


def chance(breaker: SheddingBreaker, now_ns: int = 0) -> float:
    rate = breaker.snapshot(now_ns).rejection_rate
    assert rate is not None
    return rate


GOOD, BAD, NEITHER = Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED


def test_the_formula_of_the_book() -> None:
    # 'Handling Overload', equation 'Client request rejection probability', with K = 2.
    breaker = small()
    end(breaker, *[BAD] * 5, *[GOOD] * 5)
    assert chance(breaker) == 0
    end(breaker, BAD)
    assert chance(breaker) == 0  # the oldest failure went as this one came
    end(breaker, *[BAD] * 4)
    assert chance(breaker) == 0
    end(breaker, BAD)
    assert chance(breaker) == pytest.approx(100 * (10 - 2 * 4) / 11)
    end(breaker, *[BAD] * 4)
    assert chance(breaker) == pytest.approx(100 * 10 / 11)


def test_nothing_is_refused_below_the_minimum() -> None:
    breaker = small(minimum_number_of_calls=4)
    end(breaker, *[BAD] * 3)
    assert chance(breaker) == 0
    assert breaker.snapshot(0).failure_rate is None
    end(breaker, BAD)
    assert chance(breaker) == pytest.approx(80)
    assert breaker.snapshot(0).failure_rate == 100


def test_some_calls_always_pass() -> None:
    breaker = small(max_rejection_percent=75)
    end(breaker, *[BAD] * 10)
    passed = sum(breaker.admit(0) >= 0 for _ in range(4_000))
    assert 900 < passed < 1_100
    assert breaker.snapshot(0).not_permitted == 4_000 - passed


def test_refused_calls_are_asked_for_and_not_failures_of_who_is_called() -> None:
    breaker = small(minimum_number_of_calls=1, sliding_window_size=1_000)
    end(breaker, BAD, BAD)
    while breaker.admit(0) >= 0:
        pass
    snapshot = breaker.snapshot(0)
    assert snapshot.counts.total == 2
    assert snapshot.rejection_rate == pytest.approx(100 * 3 / 4)


def test_calls_count_when_they_end_and_cancelled_ones_do_not() -> None:
    breaker = small(minimum_number_of_calls=1)
    for _ in range(100):
        breaker.admit(0)
    end(breaker, *[NEITHER] * 100)
    assert chance(breaker) == 0
    assert breaker.snapshot(0).counts.total == 0


def test_slow_calls_do_not_end_well_where_they_have_a_threshold() -> None:
    by_default, watchful = small(slow_call_duration_ms=5), small(slow_call_duration_ms=5, slow_call_rate_threshold=99)
    for breaker in (by_default, watchful):
        end(breaker, *[GOOD] * 10, took_ms=6)
        assert breaker.snapshot(0).slow_call_rate == 100
        assert breaker.snapshot(0).failure_rate == 0
    assert chance(by_default) == 0
    assert chance(watchful) > 90
    end(watchful, *[GOOD] * 10, took_ms=5)
    assert chance(watchful) == 0


def test_a_window_of_time_forgets() -> None:
    breaker = small(sliding_window_type=WindowType.TIME_BASED, sliding_window_size=3)
    end(breaker, *[BAD] * 10, now_ns=S)
    assert chance(breaker, 3 * S) > 90
    assert chance(breaker, 4 * S) == 0


@pytest.mark.parametrize("state", [State.FORCED_OPEN, State.DISABLED, State.METRICS_ONLY])
def test_what_is_set_by_hand_stays(state: State) -> None:
    breaker = small()
    breaker.transition_to(state, 3)
    for _ in range(20):
        permit = breaker.admit(10**6 * S)
        assert (permit < 0) == (state is State.FORCED_OPEN)
        breaker.record(1, BAD, 0, 10**6 * S)
    snapshot = breaker.snapshot(10**6 * S)
    assert (snapshot.state, snapshot.since_ns) == (state, 3)
    assert snapshot.counts.total == (0 if state is State.DISABLED else 10)
    assert snapshot.not_permitted == (20 if state is State.FORCED_OPEN else 0)


def test_late_results_of_an_earlier_state_do_not_count() -> None:
    breaker, clock = small(), ManualClock(1)
    early, timed = breaker.admit(0), breaker.begin(clock)
    breaker.transition_to(State.CLOSED, 1)
    breaker.record(early, BAD, 0, 2)
    breaker.end(timed, BAD, clock)
    assert breaker.snapshot(2).counts.total == 0
    breaker.end(breaker.begin(clock), BAD, clock)
    assert breaker.snapshot(2).counts.total == 1


def test_nonsense_is_refused() -> None:
    breaker = small()
    for outcome in (0, 4):
        with pytest.raises(ValueError, match="no Outcome"):
            breaker.record(0, outcome, 0, 0)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ValueError, match="no Outcome"):
            breaker.end(0, outcome, ManualClock())  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="no permit"):
        breaker.end(-1, GOOD, ManualClock())
    with pytest.raises(ValueError, match="took -1"):
        breaker.record(0, GOOD, -1, 0)


def test_a_policy_makes_its_breaker() -> None:
    gradual = CircuitBreaker(
        mode=BreakerMode.GRADUAL,
        sliding_window_type=BreakerWindow.TIME_BASED,
        sliding_window_size=2,
        minimum_number_of_calls=4,
        multiplier_percent=100,
        max_rejection_percent=60,
        slow_call_rate_threshold=50,
        slow_call_duration_threshold_ns=5 * MS,
    )
    breaker = make_breaker(gradual, Rng(0), 0)
    assert isinstance(breaker, SheddingBreaker)
    end(breaker, *[GOOD] * 4, took_ms=5)
    assert chance(breaker) == 0
    end(breaker, GOOD, took_ms=6)
    assert chance(breaker, S) == pytest.approx(100 / 6)
    end(breaker, *[BAD] * 100)
    assert chance(breaker, 2 * S) == 60
    assert chance(breaker, 3 * S) == 0


def test_a_policy_makes_its_fast_breaker() -> None:
    fast = CircuitBreaker(
        sliding_window_size=4,
        minimum_number_of_calls=4,
        failure_rate_threshold=75,
        wait_duration_in_open_state_ns=3 * S,
        permitted_number_of_calls_in_half_open_state=1,
        max_wait_duration_in_half_open_state_ns=1,
    )
    breaker = make_breaker(fast, Rng(0), 0)
    assert isinstance(breaker, Breaker)
    for outcome in (GOOD, BAD, BAD):
        breaker.record(breaker.admit(0), outcome, 0, 0)
    assert breaker.state is State.CLOSED
    breaker.record(breaker.admit(0), BAD, 0, 0)
    assert breaker.snapshot(0).retry_at_ns == 3 * S
    assert [breaker.admit(3 * S) >= 0 for _ in range(2)] == [True, False]
    breaker.admit(3 * S + MS)
    assert breaker.snapshot(0).retry_at_ns == 6 * S + MS


@pytest.mark.parametrize("mode", BreakerMode)
@pytest.mark.parametrize(
    ("forced", "state"),
    [
        (Forced.NOT, State.CLOSED),
        (Forced.OPEN, State.FORCED_OPEN),
        (Forced.DISABLED, State.DISABLED),
        (Forced.METRICS_ONLY, State.METRICS_ONLY),
    ],
)
def test_a_policy_forces_a_state(mode: BreakerMode, forced: Forced, state: State) -> None:
    snapshot = make_breaker(CircuitBreaker(mode=mode, forced=forced), Rng(0), 5).snapshot(5)
    assert (snapshot.state, snapshot.since_ns) == (state, 5 if forced else 0)


def test_what_a_code_says_of_who_was_called() -> None:
    policy = CircuitBreaker()
    failures = {code for code in StatusCode if outcome_of(code, policy) is BAD}
    assert failures == policy.record_codes
    assert outcome_of(StatusCode.CANCELLED, policy) is NEITHER
    assert outcome_of(StatusCode.NOT_FOUND, policy) is GOOD
    odd = CircuitBreaker(
        record_codes=frozenset({StatusCode.CANCELLED, StatusCode.NOT_FOUND, StatusCode.INTERNAL}),
        ignore_codes=frozenset({StatusCode.INTERNAL, StatusCode.OK}),
    )
    table = outcomes_of(odd)
    assert len(table) == len(StatusCode)
    said = {code: table[code] for code in StatusCode if table[code] is not GOOD}
    assert said == {
        StatusCode.OK: NEITHER,
        StatusCode.CANCELLED: NEITHER,
        StatusCode.INTERNAL: NEITHER,
        StatusCode.NOT_FOUND: BAD,
    }
