"""A world of callers with policies, from a seed: backends fail, are slow, flap and are cut off; then all is well.

It runs the shipped balancer, attempts, guards, breakers and outlier detection in virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from simulation.calling import verdicts
from simulation.calling.backends import Backends
from simulation.calling.caller import Caller
from simulation.calling.log import Log
from simulation.calling.plan import CALM_S, TROUBLE_S, Plan, plan
from simulation.calling.timeline import S, Timeline

from trunkline.core.policy import BreakerMode

END_NS = (TROUBLE_S + CALM_S) * S
WELL_NS = (TROUBLE_S + 110) * S
"""By then all are back: the longest ejection and an interval, and then a breaker that lets calls back by and by."""
SEEN_NS = 9 * S
"""A breaker has seen it: its window is full of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a world."""

    seed: int
    broken: list[str]
    digest: str
    logs: list[Log]
    plan: Plan


def live(seed: int) -> Outcome:
    """Run the world of a seed and judge it."""
    planned = plan(seed)
    timeline = Timeline()
    backends = Backends(planned)
    callers = [Caller(number, planned, backends, timeline) for number in range(planned.callers)]
    for caller in callers:
        timeline.spawn(caller.calls(END_NS))
    timeline.run_until(END_NS)
    logs = [caller.log for caller in callers]
    broken = [f"caller {number}: {what}" for number, log in enumerate(logs) for what in judged(planned, number, log)]
    digest = sha256(repr([(log.attempts, log.results, log.ejected) for log in logs]).encode()).hexdigest()
    return Outcome(seed, broken, digest, logs, planned)


def judged(planned: Plan, number: int, log: Log) -> Iterator[str]:
    """What one caller has broken."""
    policy = planned.policy
    detection, retry = policy.outlier_detection, policy.retry
    assert detection is not None
    assert retry is not None
    yield from verdicts.broke_no_retry_storm(log.calls, [one.at_ns for one in log.attempts])
    yield from verdicts.broke_no_empty_pick(log.refused)
    yield from verdicts.broke_attempts(
        log.attempts,
        max_attempts=retry.max_attempts,
        panic_percent=policy.healthy_panic_threshold,
        backends=planned.backends,
        guarded=policy.endpoint_circuit_breaker is not None,
    )
    yield from verdicts.broke_floor(log.ejected, planned.backends, detection)
    healed, in_trouble = partial(_healed, planned, number), partial(_in_trouble, planned, number)
    yield from verdicts.broke_recovery(log.ejected, detection, healed, END_NS)
    yield from verdicts.broke_no_well_one_ejected(log.ejected, in_trouble, detection.interval_ns)
    yield from verdicts.broke_all_is_well(log.ended, log.attempts, planned.backends, WELL_NS)
    breaker = policy.circuit_breaker
    if breaker is not None and planned.total_ns is not None:
        yield from verdicts.broke_open_lets_few_through(
            log.attempts, log.refused, breaker,
            fast=breaker.mode is BreakerMode.FAST, begin_ns=planned.total_ns[0] + SEEN_NS, end_ns=planned.total_ns[1],
        )  # fmt: skip


def _spans(planned: Plan, number: int, backend: int) -> list[tuple[int, int]]:
    mine = [one for one in planned.troubles if one.backend == backend and number in one.callers]
    return verdicts.spans([(one.begin_ns, one.end_ns) for one in mine])


def _healed(planned: Plan, number: int, backend: int, at_ns: int) -> int | None:
    return next((end for begin, end in _spans(planned, number, backend) if begin <= at_ns < end + S), None)


def _in_trouble(planned: Plan, number: int, backend: int, from_ns: int, to_ns: int) -> bool:
    return any(begin < to_ns and end > from_ns for begin, end in _spans(planned, number, backend))
