"""Outlier detection agrees with its twin over any history of calls, and leaves enough hosts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference import outliers as reference
from trunkline.core.clock import Rng
from trunkline.core.outlier_counts import Detection, OutlierCounts, Volume
from trunkline.core.outliers import OutlierDetector
from trunkline.core.policy import MS, OutlierDetection, S, StatusCode

percents = st.sampled_from([0, 50, 100, 100, 100])
few = st.integers(0, 4)

policies = st.builds(
    OutlierDetection,
    consecutive_5xx=few,
    interval_ns=st.just(10 * S),
    base_ejection_time_ns=st.sampled_from([5 * S, 10 * S, 30 * S]),
    max_ejection_percent=st.sampled_from([0, 10, 34, 50, 67, 99, 100, 100]),
    enforcing_consecutive_5xx=percents,
    enforcing_success_rate=percents,
    success_rate_minimum_hosts=few,
    success_rate_request_volume=few,
    # Factors that no set of so few hosts meets exactly: a tie would be decided by rounding.
    success_rate_stdev_factor=st.sampled_from([0, 700, 1_300, 1_900]),
    consecutive_gateway_failure=few,
    enforcing_consecutive_gateway_failure=percents,
    split_external_local_origin_errors=st.booleans(),
    consecutive_local_origin_failure=few,
    enforcing_consecutive_local_origin_failure=percents,
    enforcing_local_origin_success_rate=percents,
    failure_percentage_threshold=st.sampled_from([0, 25, 50, 100]),
    enforcing_failure_percentage=percents,
    enforcing_failure_percentage_local_origin=percents,
    failure_percentage_minimum_hosts=few,
    failure_percentage_request_volume=few,
    max_ejection_time_ns=st.sampled_from([1 * S, 25 * S, 300 * S]),
    max_ejection_time_jitter_ns=st.sampled_from([0, 1, 7 * S]),
    always_eject_one_host=st.booleans(),
)

endings = st.one_of(
    st.tuples(st.just(StatusCode.OK), st.just(False)),
    st.tuples(st.sampled_from([StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED]), st.booleans()),
    st.tuples(st.sampled_from(StatusCode), st.just(False)),
)

hosts = st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=8, unique=True)


class OutlierHistory(RuleBasedStateMachine):
    """Calls that end anyhow, hosts that come and go, looks in time and late."""

    @initialize(policy=policies, keys=hosts, seed=st.integers(0, 1_000))
    def begin(self, policy: OutlierDetection, keys: Sequence[str], seed: int) -> None:
        self.policy = policy
        self.fast = OutlierDetector(policy, Rng(seed))
        self.slow = reference.OutlierDetector(policy, Rng(seed))
        self.now_ns = 1
        self.advance(0)
        self.set_hosts(keys)

    @rule(keys=hosts)
    def set_hosts(self, keys: Sequence[str]) -> None:
        self.fast.set_hosts(keys)
        self.slow.set_hosts(keys)
        self.keys = keys
        assert [self.fast.index_of(key) for key in keys] == list(range(len(keys)))

    @precondition(lambda self: self.keys)
    @rule(which=st.integers(0, 1_000), ending=endings, times=st.integers(1, 5))
    def end_calls(self, which: int, ending: tuple[StatusCode, bool], times: int) -> None:
        code, local_origin = ending
        index = which % len(self.keys)
        for _ in range(times):
            before = set(self.fast.ejections())
            changed = self.fast.record(index, code, local_origin, self.now_ns)
            assert changed == self.slow.record(index, code, local_origin, self.now_ns)
            self.enough_are_left(before)

    @precondition(lambda self: self.keys)
    @rule(endings=st.lists(endings, min_size=1, max_size=6))
    def end_calls_of_all(self, endings: list[tuple[StatusCode, bool]]) -> None:
        for index in range(len(self.keys)):
            for code, local_origin in endings[index % len(endings) :]:
                changed = self.fast.record(index, code, local_origin, self.now_ns)
                assert changed == self.slow.record(index, code, local_origin, self.now_ns)

    @rule(ms=st.sampled_from([0, 1, 5_000, 9_999, 10_000, 10_000, 10_000, 40_000]))
    def advance(self, ms: int) -> None:
        self.now_ns += ms * MS
        before = set(self.fast.ejections())
        changed = self.fast.advance(self.now_ns)
        assert changed == self.slow.advance(self.now_ns)
        assert changed or before == set(self.fast.ejections())
        self.enough_are_left(before)

    def enough_are_left(self, before: set[str]) -> None:
        """Of those whom an ejection leaves, so many are not ejected."""
        after = self.fast.ejections()
        if after.keys() - before:
            by_percent = 100 * len(after) <= self.policy.max_ejection_percent * len(self.keys)
            assert by_percent or (self.policy.always_eject_one_host and len(after) == 1)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "keys"):
            ejections = self.fast.ejections()
            assert ejections == self.slow.ejections()
            assert self.fast.ejected_count == len(ejections)
            assert [self.fast.ejected(at) for at in range(len(self.keys))] == [ejections.get(key) for key in self.keys]
            assert self.fast.next_ns == self.slow.next_ns
            assert len(ejections) < max(1, len(self.keys)), "nobody is left"
            for ejection in ejections.values():
                assert ejection.until_ns > ejection.since_ns
                assert ejection.until_ns + self.policy.interval_ns > self.now_ns


TestOutlierHistory = OutlierHistory.TestCase


@given(
    split=st.booleans(),
    steps=st.lists(st.one_of(st.tuples(st.integers(0, 7), endings), st.lists(st.integers(0, 7), max_size=8))),
)
def test_counts_move_with_their_hosts(
    split: bool, steps: list[tuple[int, tuple[StatusCode, bool]] | list[int]]
) -> None:
    policy = OutlierDetection(split_external_local_origin_errors=split, consecutive_5xx=3)
    counts = OutlierCounts(policy)
    known: list[list[tuple[StatusCode, bool]]] = []
    for step in steps:
        if isinstance(step, list):  # who is to be there: those that are known keep what they had, others are new
            counts.renumber([was if was < len(known) else -1 for was in step])
            known = [list(known[was]) if was < len(known) else [] for was in step]
        elif step[0] < len(known):
            assert counts.record(step[0], *step[1], 0) is False
            known[step[0]].append(step[1])
        else:
            with pytest.raises(IndexError):
                counts.record(step[0], *step[1], 0)
    sees = [[one for one in calls if one[0] is not StatusCode.CANCELLED] for calls in known]
    failed = [[local or code in reference.FAILURES for code, local in calls if not (split and local)] for calls in sees]
    local = [[local for _, local in calls] if split else [] for calls in sees]
    assert counts.take_volumes() == (
        [Volume(len(calls), calls.count(False)) for calls in failed],
        [Volume(len(calls), calls.count(False)) for calls in local],
    )
    assert counts.take_volumes() == ([Volume(0, 0)] * len(known),) * 2


def test_a_threshold_is_told_at_its_call_alone() -> None:
    told = []

    class Telling(OutlierCounts):
        def outlier(self, index: int, detection: int, now_ns: int) -> bool:
            told.append((index, Detection(detection), now_ns))
            return True

    counts = Telling(OutlierDetection(consecutive_5xx=2, consecutive_gateway_failure=3))
    counts.renumber([-1, -1])
    said = [counts.record(1, StatusCode.UNAVAILABLE, False, now_ns) for now_ns in range(5)]
    assert said == [False, True, True, False, False]
    assert told == [(1, Detection.CONSECUTIVE_5XX, 1), (1, Detection.CONSECUTIVE_GATEWAY_FAILURE, 2)]
