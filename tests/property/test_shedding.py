"""The breaker that sheds agrees with its twin over any history of calls, and keeps its law."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference import shedding as reference
from trunkline.core.breaker import Outcome, State, WindowType
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.shedding import SheddingBreaker

MS = 1_000_000

settings_of_breakers = st.fixed_dictionaries(
    {
        "multiplier_percent": st.sampled_from([100, 110, 200, 333]),
        "max_rejection_percent": st.sampled_from([1, 50, 95, 100]),
        "slow_call_rate_threshold": st.sampled_from([25.0, 99.9, 100.0]),
        "slow_call_duration_ms": st.just(10),
        "sliding_window_type": st.sampled_from(WindowType),
        "sliding_window_size": st.integers(1, 12),
        "minimum_number_of_calls": st.integers(1, 6),
    }
)


class SheddingHistory(RuleBasedStateMachine):
    """Calls that end in any order, late results, cancellations, hands on the switch."""

    @initialize(settings=settings_of_breakers, seed=st.integers(0, 1_000))
    def begin(self, settings: dict[str, Any], seed: int) -> None:
        self.fast = SheddingBreaker(Rng(seed), **settings)
        self.slow = reference.SheddingBreaker(Rng(seed), **settings)
        self.chance_max = settings["max_rejection_percent"]
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

    @rule(times=st.integers(1, 5))
    def admit(self, times: int) -> None:
        for _ in range(times):
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
        if state in (State.OPEN, State.HALF_OPEN):
            with pytest.raises(ValueError, match="never"):
                self.fast.transition_to(state, self.now_ns)
        elif really:
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
            snapshot = self.fast.snapshot(self.now_ns)
            slow = self.slow.snapshot(self.now_ns)
            assert snapshot._replace(rejection_rate=None) == slow._replace(rejection_rate=None)
            assert snapshot.rejection_rate == pytest.approx(slow.rejection_rate)
            assert snapshot.rejection_rate is not None
            assert snapshot.state is State.FORCED_OPEN or snapshot.rejection_rate <= self.chance_max


TestSheddingHistory = SheddingHistory.TestCase

odd = st.sampled_from([-1, 0, 1, 99, 100, 101, 10_000, 10_001, 100_000, 100_001, 86_400_000, 86_400_001])


@given(
    settings=st.fixed_dictionaries(
        {},
        optional={
            "multiplier_percent": odd,
            "max_rejection_percent": odd,
            "slow_call_rate_threshold": st.sampled_from([-1.0, 0.0, 0.1, 100.0, 100.1, float("nan")]),
            "slow_call_duration_ms": odd,
            "sliding_window_type": st.integers(0, 3),
            "sliding_window_size": odd,
            "minimum_number_of_calls": odd,
        },
    )
)
def test_breaker_and_twin_refuse_the_same(settings: dict[str, Any]) -> None:
    refused = []
    for kind in (SheddingBreaker, reference.SheddingBreaker):
        try:
            kind(Rng(0), **settings)
            refused.append(False)
        except ValueError:
            refused.append(True)
    assert refused[0] == refused[1]


def share_refused(breaker: SheddingBreaker, capacity_percent: int, calls: int) -> float:
    """Of so many calls to a backend that does well with so many of a hundred that are asked for, and fails the rest."""
    refused, room = 0, 0
    for _ in range(calls):
        room = min(room + capacity_percent, 1_000)
        permit = breaker.admit(0)
        if permit < 0:
            refused += 1
        elif room >= 100:
            room -= 100
            breaker.record(permit, Outcome.SUCCESS, 0, 0)
        else:
            breaker.record(permit, Outcome.FAILURE, 0, 0)
    return refused / calls


@given(seed=st.integers(0, 2**32), multiplier=st.sampled_from([150, 200, 300]), most=st.sampled_from([50, 80, 95]))
@settings(max_examples=40, deadline=None)
def test_it_tolerates_then_sheds_a_growing_share_and_lets_it_back(seed: int, multiplier: int, most: int) -> None:
    breaker = SheddingBreaker(
        Rng(seed), multiplier_percent=multiplier, max_rejection_percent=most, sliding_window_size=1_000
    )
    tolerated = 100 * 100 // multiplier + 1  # percent that end well, of which K times as many are all
    # The backend gets worse, and better again: K times what it does well is sent, the rest is shed, both ways alike.
    for capacity in (100, tolerated + 3, tolerated - 10, tolerated - 25, 0, tolerated - 25, tolerated - 10):
        share_refused(breaker, capacity, 8_000)
        share = share_refused(breaker, capacity, 6_000)
        expected = min(max(0.0, 1 - capacity * multiplier / 10_000), most / 100)
        assert abs(share - expected) < 0.035, (capacity, share, expected)
    # When all is well again, calls come back by and by, and all of them in the end.
    share_refused(breaker, 0, 5_000)
    early = share_refused(breaker, 100, 300)
    assert early > most / 200
    share_refused(breaker, 100, 12_000)
    assert share_refused(breaker, 100, 1_000) == 0
