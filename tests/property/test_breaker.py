"""Windows and breaker agree with their twins over any history of calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference import breaker as reference
from trunkline.core.breaker import Breaker, Outcome, State, WindowType
from trunkline.core.clock import ManualClock
from trunkline.core.window import CountWindow, TimeWindow

MS = 1_000_000

calls = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-500, 4_000)), max_size=60)


@pytest.mark.parametrize(("fast", "slow"), [(CountWindow, reference.CountWindow), (TimeWindow, reference.TimeWindow)])
@given(size=st.integers(1, 8), calls=calls, start_ms=st.integers(0, 10_000))
def test_a_window_agrees_with_its_twin(
    fast: Any, slow: Any, size: int, calls: list[tuple[bool, bool, int]], start_ms: int
) -> None:
    window, twin = fast(size), slow(size)
    now_ns = start_ms * MS
    for failed, is_slow, step_ms in calls:
        # Time that goes back is part of it: it counts as the latest.
        now_ns = max(0, now_ns + step_ms * MS)
        window.record(failed, is_slow, now_ns)
        twin.record(failed, is_slow, now_ns)
        assert window.counts(now_ns) == twin.counts(now_ns)
    later_ns = now_ns + size * 700 * MS
    assert window.counts(later_ns) == twin.counts(later_ns)


settings_of_breakers = st.fixed_dictionaries(
    {
        "failure_rate_threshold": st.sampled_from([1.0, 33.0, 50.0, 100.0]),
        "slow_call_rate_threshold": st.sampled_from([25.0, 100.0]),
        "slow_call_duration_ms": st.just(10),
        "sliding_window_type": st.sampled_from(WindowType),
        "sliding_window_size": st.integers(1, 5),
        "minimum_number_of_calls": st.integers(1, 6),
        "wait_duration_in_open_state_ms": st.integers(1, 3_000),
        "permitted_number_of_calls_in_half_open_state": st.integers(1, 4),
        "max_wait_duration_in_half_open_state_ms": st.sampled_from([0, 1, 2_000]),
    }
)


class BreakerHistory(RuleBasedStateMachine):
    """Calls that end in any order, late results, cancellations, hands on the switch."""

    @initialize(settings=settings_of_breakers)
    def begin(self, settings: dict[str, Any]) -> None:
        self.fast = Breaker(**settings)
        self.slow = reference.Breaker(**settings)
        self.clock = ManualClock()
        self.permits: list[int] = []
        self.timed_permits: list[Any] = []

    @rule(ms=st.sampled_from([0, 1, 10, 900, 3_000]))
    def wait(self, ms: int) -> None:
        self.clock.advance(ms * MS)

    @property
    def now_ns(self) -> int:
        return self.clock.now_ns()

    @rule()
    def begin_call(self) -> None:
        fast, slow = self.fast.begin(self.clock), self.slow.begin(self.clock)
        assert (fast < 0) == (slow == -1)
        if fast >= 0:
            self.timed_permits.append((fast, slow))

    @precondition(lambda self: self.timed_permits)
    @rule(which=st.integers(0, 1_000), outcome=st.sampled_from(Outcome))
    def end_call(self, which: int, outcome: Outcome) -> None:
        fast, slow = self.timed_permits.pop(which % len(self.timed_permits))
        self.fast.end(fast, outcome, self.clock)
        self.slow.end(slow, outcome, self.clock)

    @rule()
    def admit(self) -> None:
        permit = self.fast.admit(self.now_ns)
        assert permit == self.slow.admit(self.now_ns)
        if permit >= 0:
            self.permits.append(permit)

    @precondition(lambda self: self.permits)
    @rule(
        which=st.integers(0, 1_000),
        outcome=st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, Outcome.CANCELLED]),
        duration_ns=st.sampled_from([0, 10 * MS, 10 * MS + 1]),
    )
    def record(self, which: int, outcome: Outcome, duration_ns: int) -> None:
        permit = self.permits.pop(which % len(self.permits))
        self.fast.record(permit, outcome, duration_ns, self.now_ns)
        self.slow.record(permit, outcome, duration_ns, self.now_ns)

    @rule(state=st.sampled_from(State), really=st.sampled_from([False, False, False, True]))
    def switch(self, state: State, really: bool) -> None:
        if really:
            self.fast.transition_to(state, self.now_ns)
            self.slow.transition_to(state, self.now_ns)

    @rule(
        permit=st.sampled_from([-1, 10**6, 2**63 - 1]), outcome=st.sampled_from([*Outcome]), duration=st.integers(-1, 1)
    )
    def record_nonsense(self, permit: int, outcome: Outcome, duration: int) -> None:
        for breaker in (self.fast, self.slow):
            with pytest.raises(ValueError, match="permit"):
                breaker.record(permit, outcome, duration, self.now_ns)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "fast"):
            assert self.fast.state is self.slow.state
            assert self.fast.generation == self.slow.generation
            assert self.fast.snapshot(self.now_ns) == self.slow.snapshot(self.now_ns)


TestBreakerHistory = BreakerHistory.TestCase

odd = st.sampled_from([-1, 0, 1, 100, 100_000, 100_001, 86_400_000, 86_400_001])


@given(
    settings=st.fixed_dictionaries(
        {},
        optional={
            "failure_rate_threshold": st.sampled_from([-1.0, 0.0, 0.1, 100.0, 100.1, float("nan")]),
            "slow_call_rate_threshold": st.sampled_from([-1.0, 0.0, 0.1, 100.0, 100.1, float("nan")]),
            "slow_call_duration_ms": odd,
            "sliding_window_type": st.integers(0, 3),
            "sliding_window_size": odd,
            "minimum_number_of_calls": odd,
            "wait_duration_in_open_state_ms": odd,
            "permitted_number_of_calls_in_half_open_state": odd,
            "max_wait_duration_in_half_open_state_ms": odd,
        },
    )
)
def test_breaker_and_twin_refuse_the_same(settings: dict[str, Any]) -> None:
    refused = []
    for kind in (Breaker, reference.Breaker):
        try:
            kind(**settings)
            refused.append(False)
        except ValueError:
            refused.append(True)
    assert refused[0] == refused[1]
