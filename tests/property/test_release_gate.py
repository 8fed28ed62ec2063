"""The gate: its bounds hold at every look, and releases of worse versions end otherwise than those of good ones."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.release_world import Version, ends, play, spec
from trunkline.server.traffic.confidence import lower_bound, upper_bound
from trunkline.server.traffic.latency import LAST, bound_ns, bucket_of, over, percentile, raised
from trunkline.server.traffic.outcomes import Sample
from trunkline.server.traffic.release import Phase
from trunkline.server.traffic.release_gate import Gate, Verdict, judge

SEEDS = range(100)
BASELINE = Version(failing=0.01)


# Bounds of a proportion.


def wealth(successes: int, trials: int, p: float) -> float:
    """The martingale by its definition: bets on one trial after the other, by what was seen before (Krichevsky and
    Trofimov's estimate), successes first; the order does not matter."""
    found, seen = 1.0, 0
    for trial in range(trials):
        succeeds = trial < successes
        guess = float(Fraction(2 * seen + 1, 2 * trial + 2))
        found *= guess / p if succeeds else (1 - guess) / (1 - p)
        seen += succeeds
    return found


@given(trials=st.integers(1, 60), share=st.floats(0, 1), alpha=st.sampled_from([0.25, 0.05, 0.01, 0.000_5]))
def test_the_bounds_are_where_the_martingale_reaches_its_limit(trials: int, share: float, alpha: float) -> None:
    successes = round(trials * share)
    low, high = lower_bound(successes, trials, alpha), upper_bound(successes, trials, alpha)
    assert low <= successes / trials <= high
    if successes:
        assert wealth(successes, trials, low) == pytest.approx(1 / alpha, rel=1e-6)
    else:
        assert low == 0
    if successes < trials:
        assert wealth(successes, trials, high) == pytest.approx(1 / alpha, rel=1e-6)
    else:
        assert high == 1


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("alpha", [0.1, 0.01])
def test_they_are_wrong_at_any_of_many_looks_no_more_often_than_they_say(p: float, alpha: float) -> None:
    """Exactly, not by chance: the distribution of all paths of 400 trials that never crossed, looked at after each."""

    def above(successes: int, trials: int) -> bool:
        return lower_bound(successes, trials, alpha) > p

    def below(successes: int, trials: int) -> bool:
        return upper_bound(successes, trials, alpha) < p

    for is_wrong in (above, below):
        alive, crossed = {0: 1.0}, 0.0
        for trial in range(1, 401):
            after: defaultdict[int, float] = defaultdict(float)
            for successes, mass in alive.items():
                after[successes + 1] += mass * p
                after[successes] += mass * (1 - p)
            crossed += sum(mass for successes, mass in after.items() if is_wrong(successes, trial))
            alive = {x: mass for x, mass in after.items() if not is_wrong(x, trial) and mass > 1e-15}
        assert crossed <= alpha
        assert crossed + sum(alive.values()) == pytest.approx(1, abs=1e-9)


def test_more_trials_make_them_tighter() -> None:
    widths = [upper_bound(n // 100, n, 0.001) - lower_bound(n // 100, n, 0.001) for n in (100, 1_000, 10_000, 100_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.004


# Latencies.


@given(latency_ns=st.integers(0, 10**12))
def test_a_latency_lies_in_its_bucket(latency_ns: int) -> None:
    bucket = bucket_of(latency_ns)
    assert latency_ns <= bound_ns(bucket) + 1 or bucket == LAST
    assert bucket == 0 or latency_ns > bound_ns(bucket - 1) - 1


@given(latencies=st.lists(st.integers(0, 10**11), min_size=1, max_size=200), percent=st.integers(1, 99))
def test_a_percentile_is_the_bucket_of_the_latency_of_that_rank(latencies: list[int], percent: int) -> None:
    ranked = sorted(latencies)
    rank = math.ceil(len(ranked) * percent / 100 - 1e-9)
    assert percentile(Counter(map(bucket_of, latencies)), percent / 100) == bucket_of(ranked[max(rank, 1) - 1])


@given(bucket=st.integers(0, LAST - 1), percent=st.integers(0, 1_000))
def test_a_raised_bucket_is_the_first_that_is_so_much_longer(bucket: int, percent: int) -> None:
    found = raised(bucket, percent / 100)
    enough = bound_ns(bucket) * (1 + percent / 100)
    assert found == LAST or bound_ns(found) >= enough * (1 - 1e-4)
    assert found == bucket or bound_ns(found - 1) < enough * (1 + 1e-4)


# Verdicts.


def sample(calls: int, failed: int = 0, *, bucket: int = 20) -> Sample:
    return Sample(calls=calls, failed=failed, buckets={bucket: calls - failed} if calls > failed else {})


@pytest.mark.parametrize(
    ("released", "baseline", "verdict", "words"),
    [
        (sample(99), sample(5_000), Verdict.NO_DATA, "the released version had 99 calls, and 100 are asked for"),
        (sample(5_000), sample(0), Verdict.NO_DATA, "the baseline had 0 calls"),
        (sample(50, 50), sample(5_000), Verdict.NO_DATA, "50 calls"),
        (sample(100), sample(5_000), Verdict.GOOD, "0.00% of 100 calls failed"),
        (sample(1_000, 10), sample(5_000), Verdict.GOOD, "1.00% of 1,000"),
        (sample(1_000, 11), sample(5_000), Verdict.NO_DATA, "not certain yet"),
        (sample(1_000, 100), sample(5_000), Verdict.WORSE, "fails more often"),
        (sample(1_000, 1_000), sample(5_000), Verdict.WORSE, "fails more often"),
        (sample(1_000, 300), sample(5_000, 1_500), Verdict.GOOD, "30.00%"),
        (sample(1_000), sample(5_000, 5_000), Verdict.GOOD, "too few calls did not fail to compare latencies"),
        (sample(1_000, bucket=22), sample(5_000), Verdict.GOOD, "99th percentile of latency is 4.53 ms"),
        (sample(1_000, bucket=24), sample(5_000), Verdict.WORSE, "the version is slower"),
        (sample(1_000, bucket=24), sample(110), Verdict.NO_DATA, "it looks slower, and is not certain yet"),
        (Sample(calls=1_000), sample(5_000), Verdict.NO_DATA, "latencies are known of 0 calls"),
    ],
)
def test_what_the_gate_says(released: Sample, baseline: Sample, verdict: Verdict, words: str) -> None:
    found = judge(Gate(), released, baseline, looks=4)
    assert (found.verdict, words in found.reason) == (verdict, True), found.reason


@pytest.mark.parametrize("looks", [1, 4])
def test_one_that_is_just_tolerable_is_called_worse_no_more_often_than_its_quarter_of_the_error(looks: int) -> None:
    """Exactly: all paths of 250 calls, judged after each, against a baseline that is as good as known."""
    gate = Gate(minimum_calls=1, significance_basis_points=2_000, max_success_rate_drop_basis_points=1_000)
    baseline = Sample(calls=10**12, failed=10**11)
    alive, worse = {0: 1.0}, 0.0
    for calls in range(1, 251):
        after: defaultdict[int, float] = defaultdict(float)
        for failed, mass in alive.items():
            after[failed + 1] += mass * 0.2
            after[failed] += mass * 0.8
        alive = {}
        for failed, mass in after.items():
            if judge(gate, Sample(calls=calls, failed=failed), baseline, looks=looks).verdict is Verdict.WORSE:
                worse += mass
            elif mass > 1e-12:
                alive[failed] = mass
    assert 0.2 / looks / 4 / 20 < worse <= 0.2 / looks / 4


def test_a_version_that_fails_and_is_slow_is_judged_by_the_worse_of_the_two() -> None:
    found = judge(Gate(), sample(1_000, 11, bucket=40), sample(5_000), looks=4)
    assert (found.verdict, "slower" in found.reason) == (Verdict.WORSE, True)


# Error rates of whole releases. Of each look 170 calls, every 5 s, in four steps of a minute.


def test_a_version_like_the_baseline_is_promoted() -> None:
    """Never rolled back, but in 1 % of releases; here with the defaults and at each look."""
    found = ends(SEEDS, BASELINE, BASELINE)
    assert found[Phase.ROLLED_BACK] <= 2
    assert found[Phase.COMPLETED] >= 0.97 * len(SEEDS)


def test_a_version_at_the_edge_of_what_is_tolerated_is_hardly_ever_rolled_back() -> None:
    """The worst that may pass: 1 % more failures. It may wait and pause, but WORSE would be wrong: 1 % of the time."""
    assert ends(range(40), Version(failing=0.02), BASELINE)[Phase.ROLLED_BACK] <= 1


def test_a_better_version_is_promoted_whatever_the_baseline_is_like() -> None:
    for released, baseline in ((Version(failing=0).slower(0.5), BASELINE), (BASELINE, Version(failing=1))):
        assert ends(range(40), released, baseline) == {Phase.COMPLETED: 40}


@pytest.mark.parametrize(
    ("released", "rolled_back"),
    [
        (Version(failing=0.05), 0.5),
        (Version(failing=0.10), 0.97),
        (Version(failing=0.5), 1),
        (BASELINE.slower(3), 0.9),
        (BASELINE.slower(6), 1),
    ],
    ids=["5 % fail", "10 % fail", "half fail", "3 times as slow", "6 times as slow"],
)
def test_a_worse_version_is_not_promoted(released: Version, rolled_back: float) -> None:
    found = ends(range(60), released, BASELINE)
    assert found[Phase.COMPLETED] == 0
    assert found[Phase.ROLLED_BACK] >= rolled_back * 60


def test_one_that_is_much_worse_goes_back_before_the_hold_is_over() -> None:
    for seed in range(20):
        phase, step, got = play(seed, Version(failing=0.5), BASELINE)
        assert (phase, step) == (Phase.ROLLED_BACK, 0)
        assert got < 200, "little more than the minimum of calls"


def test_too_few_calls_pause_and_never_pass() -> None:
    for seed in range(20):
        assert play(seed, BASELINE, BASELINE, calls_per_look=2)[:2] == (Phase.PAUSED, 0)
        assert play(seed, BASELINE, BASELINE, calls_per_look=0)[:2] == (Phase.PAUSED, 0)


def test_looking_a_hundred_times_as_often_rolls_back_no_more_good_versions() -> None:
    """A test for one look would: of its looks at a hundred times as many, far more than 1 % are unlucky."""
    wanted = spec(gate=Gate(significance_basis_points=500, no_data_after_ns=3_600 * 10**9))
    found = Counter(
        play(seed, Version(failing=0.02), BASELINE, calls_per_look=8, wanted=wanted)[0] for seed in range(15)
    )
    assert found[Phase.ROLLED_BACK] <= 2


@given(failed=st.integers(0, 400), theirs=st.integers(0, 4_000), percent=st.integers(1, 99), looks=st.integers(1, 32))
def test_a_version_that_does_as_well_is_never_worse(failed: int, theirs: int, percent: int, looks: int) -> None:
    """The same share of failures and the same latencies, scaled: nothing is certain of them."""
    buckets = {10: 300, 20: 90, 30: 10}
    released = Sample(calls=400, failed=failed, buckets={b: n * (400 - failed) // 400 for b, n in buckets.items()})
    baseline = Sample(
        calls=4_000, failed=10 * failed, buckets={b: n * 10 * (400 - failed) // 400 for b, n in buckets.items()}
    )
    found = judge(Gate(latency_percentile=percent), released, baseline, looks=looks)
    assert found.verdict is not Verdict.WORSE
    swapped = judge(
        Gate(latency_percentile=percent), Sample(calls=400, failed=failed), sample(4_000, theirs), looks=looks
    )
    if failed / 400 <= theirs / 4_000:
        assert swapped.verdict is not Verdict.WORSE


def test_over_counts_what_is_slower() -> None:
    assert [over({3: 2, 5: 1, LAST: 4}, bucket) for bucket in (0, 3, 4, 5, LAST)] == [7, 5, 5, 4, 0]
