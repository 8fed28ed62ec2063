"""The breaker's states, one rule at a time."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from trunkline.core.breaker import Breaker, Outcome, State, WindowType
from trunkline.core.clock import ManualClock
from trunkline.core.window import Counts, CountWindow, TimeWindow

MS = 1_000_000
SECOND = 1_000_000_000


def small(**settings: Any) -> Breaker:
    """A breaker that decides on 4 calls and tries 2."""
    return Breaker(
        **{
            "sliding_window_size": 4,
            "minimum_number_of_calls": 4,
            "wait_duration_in_open_state_ms": 1_000,
            "permitted_number_of_calls_in_half_open_state": 2,
            **settings,
        }
    )


def call(breaker: Breaker, outcome: Outcome, now_ns: int = 0, *, took_ms: int = 1) -> None:
    permit = breaker.admit(now_ns)
    assert permit >= 0
    breaker.record(permit, outcome, took_ms * MS, now_ns)


def state_of(breaker: Breaker) -> State:
    return breaker.state  # as a call, so that mypy does not take it for constant


def opened(now_ns: int = 0, **settings: Any) -> Breaker:
    breaker = small(**settings)
    for _ in range(4):
        call(breaker, Outcome.FAILURE, now_ns)
    assert state_of(breaker) is State.OPEN
    return breaker


def test_defaults() -> None:
    # From https://resilience4j.readme.io/docs/circuitbreaker, "Create and configure a CircuitBreaker".
    breaker = Breaker()
    for _ in range(50):
        call(breaker, Outcome.SUCCESS, took_ms=60_000)  # not slow: not longer than 60 s
    for _ in range(49):
        call(breaker, Outcome.FAILURE)
    assert breaker.snapshot(0).failure_rate is None
    call(breaker, Outcome.FAILURE)
    assert state_of(breaker) is State.OPEN
    assert breaker.admit(60 * SECOND - 1) == -1
    permits = [breaker.admit(60 * SECOND) for _ in range(11)]
    assert permits.count(-1) == 1
    assert state_of(breaker) is State.HALF_OPEN
    for permit in permits[:10]:
        breaker.record(permit, Outcome.SUCCESS, 0, 10**6 * SECOND)
    assert state_of(breaker) is State.CLOSED


def test_default_of_slow_calls() -> None:
    breaker = Breaker()
    for _ in range(99):
        call(breaker, Outcome.SUCCESS, took_ms=60_001)
    assert state_of(breaker) is State.CLOSED
    call(breaker, Outcome.SUCCESS, took_ms=60_001)
    assert state_of(breaker) is State.OPEN


def test_closed_until_the_minimum_is_reached() -> None:
    breaker = small(minimum_number_of_calls=3)
    call(breaker, Outcome.FAILURE)
    call(breaker, Outcome.FAILURE)
    assert state_of(breaker) is State.CLOSED
    call(breaker, Outcome.SUCCESS)
    assert state_of(breaker) is State.OPEN


def test_a_minimum_above_a_count_based_window_is_the_window() -> None:
    breaker = small(minimum_number_of_calls=100)
    for _ in range(4):
        call(breaker, Outcome.FAILURE)
    assert state_of(breaker) is State.OPEN


def test_a_minimum_above_a_time_based_window_stands() -> None:
    breaker = small(minimum_number_of_calls=10, sliding_window_type=WindowType.TIME_BASED)
    for _ in range(9):
        call(breaker, Outcome.FAILURE)
    assert state_of(breaker) is State.CLOSED
    call(breaker, Outcome.FAILURE)
    assert state_of(breaker) is State.OPEN


def test_a_time_based_window_forgets() -> None:
    breaker = small(sliding_window_type=WindowType.TIME_BASED)
    for _ in range(3):
        call(breaker, Outcome.FAILURE, 0)
    call(breaker, Outcome.FAILURE, 4 * SECOND)
    assert state_of(breaker) is State.CLOSED
    assert breaker.snapshot(4 * SECOND).counts.total == 1


def test_exactly_the_threshold_opens() -> None:
    breaker = small()
    for outcome in (Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS):
        assert state_of(breaker) is State.CLOSED
        call(breaker, outcome)
    assert state_of(breaker) is State.OPEN


def test_half_open_closes_on_success_with_an_empty_window() -> None:
    breaker = opened()
    for _ in range(2):
        call(breaker, Outcome.SUCCESS, 1 * SECOND)
    assert state_of(breaker) is State.CLOSED
    assert breaker.snapshot(SECOND).counts == Counts(0, 0, 0, 0)


def test_half_open_opens_on_failure_and_waits_again() -> None:
    breaker = opened()
    for _ in range(2):
        call(breaker, Outcome.FAILURE, 1_500 * MS)
    assert state_of(breaker) is State.OPEN
    assert breaker.admit(2_499 * MS) == -1
    assert breaker.admit(2_500 * MS) >= 0


def test_half_open_opens_on_slow_calls() -> None:
    breaker = opened(slow_call_duration_ms=10, slow_call_rate_threshold=50.0)
    call(breaker, Outcome.SUCCESS, SECOND, took_ms=10)
    call(breaker, Outcome.SUCCESS, SECOND, took_ms=11)
    assert state_of(breaker) is State.OPEN


def test_half_open_lets_no_more_than_the_permitted_through() -> None:
    breaker = opened()
    assert [breaker.admit(SECOND) >= 0 for _ in range(4)] == [True, True, False, False]
    assert breaker.snapshot(SECOND).not_permitted == 2


def test_a_cancelled_call_gives_its_slot_back() -> None:
    breaker = opened()
    first, second = breaker.admit(SECOND), breaker.admit(SECOND)
    breaker.record(first, Outcome.CANCELLED, 0, SECOND)
    assert breaker.snapshot(SECOND).counts.total == 0
    third = breaker.admit(SECOND)
    assert third >= 0
    assert breaker.admit(SECOND) == -1
    breaker.record(second, Outcome.SUCCESS, 0, SECOND)
    breaker.record(third, Outcome.SUCCESS, 0, SECOND)
    assert state_of(breaker) is State.CLOSED


def test_slots_do_not_multiply_when_a_call_is_reported_twice() -> None:
    breaker = opened()
    permit = breaker.admit(SECOND)
    for _ in range(10):
        breaker.record(permit, Outcome.CANCELLED, 0, SECOND)
    assert [breaker.admit(SECOND) >= 0 for _ in range(3)] == [True, True, False]


def test_a_call_that_was_recorded_gives_no_slot_back() -> None:
    breaker = opened()
    permits = [breaker.admit(SECOND), breaker.admit(SECOND)]
    breaker.record(permits[0], Outcome.SUCCESS, 0, SECOND)
    for _ in range(3):
        breaker.record(permits[1], Outcome.CANCELLED, 0, SECOND)
    assert [breaker.admit(SECOND) >= 0 for _ in range(3)] == [True, False, False]


def test_a_late_result_of_an_earlier_state_does_not_count() -> None:
    breaker = small()
    late = breaker.admit(0)
    for _ in range(4):
        call(breaker, Outcome.FAILURE)
    trial = breaker.admit(SECOND)
    assert trial != late
    breaker.record(late, Outcome.FAILURE, 0, SECOND)
    breaker.record(late, Outcome.CANCELLED, 0, SECOND)
    snapshot = breaker.snapshot(SECOND)
    assert (snapshot.state, snapshot.counts.total) == (State.HALF_OPEN, 0)
    assert [breaker.admit(SECOND) >= 0 for _ in range(2)] == [True, False]


def test_a_late_trial_of_an_earlier_half_open_state_does_not_count() -> None:
    breaker = opened(max_wait_duration_in_half_open_state_ms=500)
    trial = breaker.admit(SECOND)
    assert breaker.admit(1_500 * MS) == -1  # too long in HALF_OPEN
    assert state_of(breaker) is State.OPEN
    assert breaker.admit(2_500 * MS) >= 0
    breaker.record(trial, Outcome.SUCCESS, 0, 2_500 * MS)
    assert breaker.snapshot(2_500 * MS).counts.total == 0


def test_half_open_waits_without_limit_by_default() -> None:
    breaker = opened()
    breaker.admit(SECOND)
    breaker.admit(SECOND)
    assert breaker.admit(10**6 * SECOND) == -1
    assert state_of(breaker) is State.HALF_OPEN


@pytest.mark.parametrize(
    ("state", "passes", "counts"),
    [(State.DISABLED, True, 0), (State.FORCED_OPEN, False, 0), (State.METRICS_ONLY, True, 4)],
)
def test_states_that_are_set_by_hand_stay(state: State, passes: bool, counts: int) -> None:
    breaker = small()
    breaker.transition_to(state, 0)
    for _ in range(5):
        permit = breaker.admit(10**6 * SECOND)
        assert (permit >= 0) is passes
        if permit >= 0:
            breaker.record(permit, Outcome.FAILURE, 0, 10**6 * SECOND)
    snapshot = breaker.snapshot(10**6 * SECOND)
    assert (snapshot.state, snapshot.counts.total) == (state, counts)
    assert snapshot.not_permitted == (0 if passes else 5)
    breaker.transition_to(State.CLOSED, 10**6 * SECOND)
    assert breaker.snapshot(10**6 * SECOND).counts.total == 0
    assert breaker.admit(0) >= 0


def test_snapshot_says_what_it_is() -> None:
    breaker = small(slow_call_duration_ms=10)
    call(breaker, Outcome.FAILURE, took_ms=11)
    call(breaker, Outcome.SUCCESS, took_ms=11)
    call(breaker, Outcome.SUCCESS)
    assert breaker.snapshot(0).failure_rate is None
    call(breaker, Outcome.SUCCESS)
    snapshot = breaker.snapshot(0)
    assert (snapshot.failure_rate, snapshot.slow_call_rate) == (25.0, 50.0)
    assert snapshot.counts == Counts(total=4, failed=1, slow=2, slow_failed=1)
    assert (snapshot.state, snapshot.generation, snapshot.since_ns, snapshot.retry_at_ns) == (State.CLOSED, 0, 0, None)
    assert opened(7).snapshot(8).retry_at_ns == SECOND + 7


def test_rates_of_no_calls_are_none() -> None:
    breaker = small(minimum_number_of_calls=1, sliding_window_type=WindowType.TIME_BASED)
    call(breaker, Outcome.SUCCESS)
    assert breaker.snapshot(0).failure_rate == 0.0
    assert breaker.snapshot(100 * SECOND).failure_rate is None


@pytest.mark.parametrize(
    ("permit", "outcome", "duration"), [(-1, 1, 0), (1, 1, 0), (0, 0, 0), (0, 4, 0), (0, 1, -1), (2**63 - 1, 1, 0)]
)
def test_refused_results_change_nothing(permit: int, outcome: Any, duration: int) -> None:
    breaker = small()
    with pytest.raises(ValueError, match=r"permit|Outcome|took"):
        breaker.record(permit, outcome, duration, 0)
    assert breaker.snapshot(0).counts.total == 0


def test_begin_and_end_read_the_clock() -> None:
    clock = ManualClock(2**62)
    breaker = small(slow_call_duration_ms=10, slow_call_rate_threshold=50.0)
    for took_ms in (1, 9, 11, 500):
        permit = breaker.begin(clock)
        clock.advance(took_ms * MS)
        breaker.end(permit, Outcome.SUCCESS, clock)
        if took_ms == 11:
            assert breaker.snapshot(clock.now_ns()).counts == Counts(3, 0, 1, 0)
    assert state_of(breaker) is State.OPEN
    assert breaker.begin(clock) == -1
    clock.advance(SECOND)
    assert breaker.begin(clock) >= 0


def test_end_does_not_count_a_late_result() -> None:
    clock = ManualClock()
    breaker = small()
    late = breaker.begin(clock)
    for _ in range(4):
        call(breaker, Outcome.FAILURE)
    clock.advance(SECOND)
    trial = breaker.begin(clock)
    breaker.end(late, Outcome.SUCCESS, clock)
    assert breaker.snapshot(clock.now_ns()).counts.total == 0
    breaker.end(trial, Outcome.CANCELLED, clock)
    assert [breaker.begin(clock) >= 0 for _ in range(3)] == [True, True, False]


def test_a_call_across_the_wrap_of_ticks() -> None:
    clock = ManualClock(2**53 - MS)
    breaker = small(slow_call_duration_ms=10)
    permit = breaker.begin(clock)
    clock.advance(2 * MS)
    breaker.end(permit, Outcome.SUCCESS, clock)
    assert breaker.snapshot(0).counts == Counts(1, 0, 0, 0)


@pytest.mark.parametrize(("permit", "outcome"), [(-1, 1), (0, 0), (0, 4)])
def test_end_refuses(permit: int, outcome: Any) -> None:
    breaker = small()
    with pytest.raises(ValueError, match=r"permit|Outcome"):
        breaker.end(permit, outcome, ManualClock())
    assert breaker.snapshot(0).counts.total == 0


def test_refused_states() -> None:
    with pytest.raises(ValueError, match="7"):
        small().transition_to(7, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"failure_rate_threshold": 0.0},
        {"failure_rate_threshold": 100.1},
        {"slow_call_rate_threshold": float("nan")},
        {"slow_call_duration_ms": 0},
        {"sliding_window_size": 0},
        {"sliding_window_size": 100_001},
        {"minimum_number_of_calls": 0},
        {"wait_duration_in_open_state_ms": 0},
        {"permitted_number_of_calls_in_half_open_state": 0},
        {"max_wait_duration_in_half_open_state_ms": -1},
        {"sliding_window_type": 3},
    ],
)
def test_refused_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Breaker(**settings)


@pytest.mark.parametrize("size", [0, -1, 100_001])
@pytest.mark.parametrize("kind", [CountWindow, TimeWindow])
def test_refused_windows(kind: Any, size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        kind(size)


def test_the_widest_windows() -> None:
    count, time = CountWindow(100_000), TimeWindow(100_000)
    for step in range(100_005):
        count.record(step < 5, False, 0)
        time.record(step < 5, False, step * SECOND)
    assert count.counts(0) == Counts(100_000, 0, 0, 0)
    assert time.counts(100_004 * SECOND) == Counts(100_000, 0, 0, 0)


def test_a_breaker_is_small() -> None:
    # There is one for each callee; the default window is a byte a call.
    assert sys.getsizeof(Breaker()) < 300
