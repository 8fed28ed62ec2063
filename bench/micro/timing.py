"""Times calls from Python loops, subject and peer by turns, so that both meet the same disturbances.

Time is the thread's CPU time: what is measured never waits, and another process that takes the core is not its doing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median, quantiles
from time import thread_time_ns
from typing import Any

Loop = Callable[[int], int]
"""Does n calls and says how many nanoseconds they took."""


def each(call: Callable[[], object]) -> Loop:
    """A loop that calls `call`. The loop's own cost (some ns) is in what it measures, for subject and peer alike."""

    def loop(n: int) -> int:
        begin = thread_time_ns()
        for _ in repeat(None, n):
            call()
        return thread_time_ns() - begin

    return loop


def each_of(call: Callable[[Any], object], arguments: Sequence[Any]) -> Loop:
    """A loop that calls `call` with one argument after the other, again and again."""

    def loop(n: int) -> int:
        some = [arguments[at % len(arguments)] for at in range(n)]
        begin = thread_time_ns()
        for argument in some:
            call(argument)
        return thread_time_ns() - begin

    return loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """CPU nanoseconds a call: median and interquartile range over the repetitions."""

    median: float
    spread: float


def _timing(samples: list[float]) -> Timing:
    lower, _, upper = quantiles(samples, n=4)
    return Timing(median=median(samples), spread=upper - lower)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often to measure: `repetitions` of at least `least_ns` each, subject and peer by turns."""

    repetitions: int = 51
    least_ns: int = 5_000_000

    def calls(self, loop: Loop) -> int:
        """So many calls that a repetition is long enough for the clock and short enough to be undisturbed."""
        n = 1
        while (took := loop(n)) < self.least_ns // 10:
            n *= 2
        return max(1, n * self.least_ns // took)

    def compare(self, subject: Loop, peer: Loop | None = None) -> tuple[Timing, Timing | None]:
        """Time both."""
        loops = [subject] if peer is None else [subject, peer]
        counts = [self.calls(loop) for loop in loops]
        samples: list[list[float]] = [[] for _ in loops]
        collecting = gc.isenabled()
        gc.disable()
        try:
            for _ in range(self.repetitions):
                for loop, n, taken in zip(loops, counts, samples, strict=True):
                    taken.append(loop(n) / n)
        finally:
            if collecting:
                gc.enable()
        timings = [_timing(taken) for taken in samples]
        return timings[0], timings[1] if peer is not None else None


QUICK = Plan(repetitions=11, least_ns=1_000_000)
FULL = Plan()


def row(
    benchmark: str,
    metric: str,
    plan: Plan,
    subject: Loop,
    peer_name: str | None = None,
    peer: Loop | None = None,
    *,
    ratio_max: float | None = None,
    goal_ns: float | None = None,
) -> dict[str, Any]:
    """One row of results in CPU nanoseconds a call. `ratio` is ours by the peer's: smaller is better."""
    ours, theirs = plan.compare(subject, peer)
    ratio = None if theirs is None else ours.median / theirs.median
    return {
        "benchmark": benchmark,
        "metric": metric,
        "value": round(ours.median, 1),
        "unit": "ns",
        "repetitions": plan.repetitions,
        "spread": round(ours.spread, 1),
        "peer": peer_name,
        "peer_value": None if theirs is None else round(theirs.median, 1),
        "ratio": None if ratio is None else round(ratio, 3),
        "gate": None if ratio_max is None else f"ratio <= {ratio_max:g}",
        "goal": None if goal_ns is None else f"value <= {goal_ns:g} ns",
        "met": None if ratio_max is None or ratio is None else ratio <= ratio_max,
    }
