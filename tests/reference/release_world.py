"""Whole releases without a server: calls drawn by chance, the shipped gate asked at every look, the shipped moves made."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import NormalDist

from trunkline.core.policy import StatusCode
from trunkline.server.traffic.latency import LAST, bound_ns
from trunkline.server.traffic.outcomes import NO_CALLS, Reported, Sample, Tally
from trunkline.server.traffic.release import (
    ALL,
    STEPS,
    Move,
    Phase,
    ReleaseEntity,
    ReleaseSpec,
    Step,
    next_move,
    waited,
)
from trunkline.server.traffic.release_gate import Gate, judge

S = 1_000_000_000
LOOK_NS = 5 * S
FAILED = -1
ENDS = {Move.STEP: Phase.COMPLETED, Move.ROLL_BACK: Phase.ROLLED_BACK, Move.PAUSE: Phase.PAUSED}


def spec(*steps: Step, gate: Gate | None = None, version: str = "^2", baseline: str = "<2.0.0") -> ReleaseSpec:
    return ReleaseSpec(
        namespace="shop",
        service="orders",
        version=version,
        baseline=baseline,
        steps=steps or STEPS,
        gate=gate or Gate(),
    )


def started(wanted: ReleaseSpec, *, revision: int = 1, baseline_calls: Sample = NO_CALLS) -> ReleaseEntity:
    return ReleaseEntity(
        spec=wanted, percent=wanted.steps[0].percent, started_ns=0, step_began_ns=0, changed_ns=0,
        step_revision=revision, split_revision=revision, revision=revision, baseline_calls=baseline_calls,
    )  # fmt: skip


@dataclass(frozen=True)
class Version:
    """How a version serves: its share of failures, and a log-normal latency."""

    failing: float = 0.01
    median_ms: float = 10.0
    sigma: float = 0.6
    weights: dict[int, float] = field(init=False)
    """Of each bucket, and of FAILED."""

    def __post_init__(self) -> None:
        reached = [NormalDist().cdf(math.log(bound_ns(i) / 1e6 / self.median_ms) / self.sigma) for i in range(LAST)]
        shares = [reached[0], *(later - earlier for earlier, later in pairwise(reached)), 1 - reached[-1]]
        served = {i: share * (1 - self.failing) for i, share in enumerate(shares) if share > 1e-9}
        object.__setattr__(self, "weights", {**served, FAILED: self.failing})

    def slower(self, times: float) -> Version:
        return replace(self, median_ms=self.median_ms * times)

    def calls(self, rng: random.Random, count: int) -> Counter[int]:
        return Counter(rng.choices(list(self.weights), list(self.weights.values()), k=count))


class Served:
    """What has been counted of a version."""

    def __init__(self) -> None:
        self.tally = Tally()

    def add(self, calls: Counter[int]) -> None:
        failed = calls.pop(FAILED, 0)
        self.tally.count(Reported("orders", "", StatusCode.UNAVAILABLE, failed, 0))
        self.tally.count(Reported("orders", "", StatusCode.OK, calls.total(), 0, buckets=calls))


def play(
    seed: int,
    released: Version,
    baseline: Version,
    *,
    calls_per_look: int = 170,
    wanted: ReleaseSpec | None = None,
    looks_max: int = 2_000,
) -> tuple[Phase, int, int]:
    """A release from its start until nothing happens by itself any more.

    Returns the phase, the step, and how many calls the released version got until then.
    """
    rng = random.Random(seed)
    release = started(wanted or spec())
    served = [Served(), Served()]
    in_step_ns = got = 0
    for _ in range(looks_max):
        if release.phase is not Phase.RUNNING:
            break
        ours = sum(rng.random() * ALL < release.percent for _ in range(calls_per_look))
        got += ours
        served[0].add(released.calls(rng, ours))
        served[1].add(baseline.calls(rng, calls_per_look - ours))
        in_step_ns += LOOK_NS
        found = served[1].tally.sample()
        if release.percent == ALL:
            found = release.baseline_calls
        judgement = judge(release.spec.gate, served[0].tally.sample(), found, looks=len(release.spec.steps))
        move = next_move(release, judgement, waited(release, in_step_ns))
        if move is Move.STEP and not release.is_last:
            step = release.step + 1
            release = replace(release, step=step, percent=release.spec.steps[step].percent, baseline_calls=found)
            served, in_step_ns = [Served(), Served()], 0
        elif move is not None:
            release = replace(release, phase=ENDS[move])
    return release.phase, release.step, got


def ends(seeds: Iterable[int], released: Version, baseline: Version) -> Counter[Phase]:
    """How releases of one version over another end."""
    return Counter(play(seed, released, baseline)[0] for seed in seeds)
