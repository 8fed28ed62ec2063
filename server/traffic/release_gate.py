"""What a gate makes of the calls of two versions. Pure.

It compares the released version with the baseline in the same window. WORSE is said when it is certain, GOOD when the
version looks no worse than what is tolerated, and NO_DATA for everything between, a version that looks worse and may not
be among it: so that nothing passes by chance that looks bad, and nothing goes back by chance.

Certain means: by bounds that hold at every look at once (trunkline.server.traffic.confidence), because the gate is asked
again and again and would otherwise find a bad moment of every version. A version is worse

- when its share of failures is surely above the highest that the baseline's may be, and what is tolerated on top;
- when more than 1 - p of its calls are surely slower than the highest that the baseline's percentile p may be, and what
  is tolerated on top. Bounds of a percentile are bounds of proportions: those of calls beyond a latency (S. R. Howard,
  A. Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm identification",
  Bernoulli 28, 2022).

Each of the four bounds is wrong with a quarter of the error that is allowed, at any look, however the calls are dealt out
between the two. Calls are taken for independent: what befalls both versions at one time befalls them in the same
proportion because chance deals the calls, but one instance that fails a burst of calls is more certain to the gate than it
should be.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from .confidence import lower_bound, upper_bound
from .latency import LAST, bound_ns, over, percentile, raised
from .outcomes import Sample

BOUNDS: Final = 4
"""Bounds of one look that may be wrong."""
S: Final = 1_000_000_000


class Verdict(IntEnum):
    """Values are the contract's GateReport.Verdict."""

    NO_DATA = 1
    GOOD = 2
    WORSE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the end of a step asks of the calls. Names and defaults are the contract's (Release.Gate)."""

    minimum_calls: int = 100
    max_success_rate_drop_basis_points: int = 100
    max_latency_increase_percent: int = 50
    latency_percentile: int = 99
    significance_basis_points: int = 100
    no_data_after_ns: int = 600 * S


class Judgement(NamedTuple):
    """What the gate says."""

    verdict: Verdict
    reason: str
    released: Sample
    baseline: Sample
    released_ns: int
    """Latency at the gate's percentile: the bound of its bucket; 0 when nothing is known of it."""
    baseline_ns: int


def judge(gate: Gate, released: Sample, baseline: Sample, *, looks: int, where: str = "") -> Judgement:
    """Compare two versions. The error that the gate allows is dealt out to `looks` judgements, the steps of a release.

    `where` says of which calls of the baseline this is, if not those of the same window.
    """
    released_at, baseline_at = (percentile_of(sample, gate) for sample in (released, baseline))

    def said(verdict: Verdict, reason: str) -> Judgement:
        reason = f"{reason} (against the baseline's calls of {where})" if where else reason
        times = (0 if at is None else bound_ns(at) for at in (released_at, baseline_at))
        return Judgement(verdict, reason, released, baseline, *times)

    few = [
        f"{name} had {sample.calls:,} calls"
        for name, sample in (("the released version", released), ("the baseline", baseline))
        if sample.calls < gate.minimum_calls
    ]
    if few:
        return said(Verdict.NO_DATA, f"{' and '.join(few)}, and {gate.minimum_calls:,} are asked for")
    alpha = gate.significance_basis_points / 10_000 / looks / BOUNDS
    found = [_failures(gate, released, baseline, alpha), _latencies(gate, released, baseline, alpha)]
    worst = max(found, key=lambda one: _SEVERITY[one[0]])
    if worst[0] is Verdict.GOOD:
        return said(Verdict.GOOD, "; ".join(words for _, words in found))
    return said(*worst)


_SEVERITY: Final = {Verdict.GOOD: 0, Verdict.NO_DATA: 1, Verdict.WORSE: 2}


def percentile_of(sample: Sample, gate: Gate) -> int | None:
    """The bucket of the gate's percentile; None without latencies."""
    return percentile(sample.buckets, gate.latency_percentile / 100) if sample.buckets else None


def _failures(gate: Gate, released: Sample, baseline: Sample, alpha: float) -> tuple[Verdict, str]:
    tolerated = gate.max_success_rate_drop_basis_points / 10_000
    ours, theirs = released.failed / released.calls, baseline.failed / baseline.calls
    words = f"{ours:.2%} of {released.calls:,} calls failed, of the baseline's {baseline.calls:,} {theirs:.2%}"
    if ours - theirs <= tolerated:  # then the bounds, which lie around these, say nothing else
        return Verdict.GOOD, words
    at_least = lower_bound(released.failed, released.calls, alpha)
    if at_least > tolerated + upper_bound(baseline.failed, baseline.calls, alpha):
        return Verdict.WORSE, f"{words}: the version fails more often"
    return Verdict.NO_DATA, f"{words}: it looks worse, and is not certain yet"


def _latencies(gate: Gate, released: Sample, baseline: Sample, alpha: float) -> tuple[Verdict, str]:
    if min(released.calls - released.failed, baseline.calls - baseline.failed) < gate.minimum_calls:
        return Verdict.GOOD, "too few calls did not fail to compare latencies"
    ours, theirs = sum(released.buckets.values()), sum(baseline.buckets.values())
    if min(ours, theirs) < gate.minimum_calls:
        return Verdict.NO_DATA, f"latencies are known of {ours:,} calls, of the baseline's {theirs:,}"
    slow = 1 - gate.latency_percentile / 100
    increase = gate.max_latency_increase_percent / 100
    at, baseline_at = percentile_of(released, gate), percentile_of(baseline, gate)
    assert at is not None
    assert baseline_at is not None
    words = (
        f"the {gate.latency_percentile}th percentile of latency is {_shown(at)}, the baseline's {_shown(baseline_at)}"
    )
    if at <= raised(baseline_at, increase):  # as above
        return Verdict.GOOD, words
    surely = bisect_left(
        range(LAST), True, lo=baseline_at, key=lambda i: upper_bound(over(baseline.buckets, i), theirs, alpha) <= slow
    )
    beyond = over(released.buckets, raised(surely, increase))
    if lower_bound(beyond, ours, alpha) > slow:
        return Verdict.WORSE, f"{words}: the version is slower"
    return Verdict.NO_DATA, f"{words}: it looks slower, and is not certain yet"


def _shown(bucket: int) -> str:
    return f"over {bound_ns(LAST) / 1e9:.3g} s" if bucket == LAST else f"{bound_ns(bucket) / 1e6:.3g} ms"
