"""A world of callers with policies, from a seed: backends fail, are slow, flap and are cut off; then all is well. All the
time others come and go, and calls are split among versions.

It runs the shipped balancer, attempts, guards, breakers and outlier detection in virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from simulation.calling import host_verdicts, split_verdicts, verdicts
from simulation.calling.backends import Backends
from simulation.calling.caller import Caller
from simulation.calling.log import Log
from simulation.calling.plan import CALM_S, TROUBLE_S, Plan, plan
from simulation.calling.timeline import S, Timeline

END_NS = (TROUBLE_S + CALM_S) * S
WELL_NS = (TROUBLE_S + 110) * S
"""By then all are back: the longest ejection and an interval, and then a breaker that lets calls back by and by."""
SEEN_NS = 9 * S
"""A breaker has seen it: its window is full of it."""


REST_NS = 5 * S
"""For the last calls to end."""


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
    timeline.run_until(END_NS + REST_NS)
    for caller in callers:
        caller.note_kept()
    logs = [caller.log for caller in callers]
    broken = [f"caller {number}: {what}" for number, log in enumerate(logs) for what in judged(planned, number, log)]
    broken += together(planned, logs)
    digest = sha256(repr([(log.attempts, log.results, log.ejected) for log in logs]).encode()).hexdigest()
    return Outcome(seed, broken, digest, logs, planned)


def judged(planned: Plan, number: int, log: Log) -> Iterator[str]:
    """What one caller has broken."""
    policy = planned.policy
    detection, retry = policy.outlier_detection, policy.retry
    assert detection is not None
    assert retry is not None
    guarded = policy.endpoint_circuit_breaker is not None
    yield from verdicts.broke_no_retry_storm(log.calls, [one.at_ns for one in log.attempts])
    yield from verdicts.broke_no_empty_pick(log.refused)
    yield from verdicts.broke_attempts(
        log.attempts,
        max_attempts=retry.max_attempts,
        panic_percent=policy.healthy_panic_threshold,
        guarded=guarded,
    )
    yield from verdicts.broke_floor(log.ejected, detection)
    healed, in_trouble = partial(_healed, planned, number), partial(_in_trouble, planned, number)
    yield from verdicts.broke_recovery(log.ejected, detection, healed, END_NS)
    yield from verdicts.broke_no_well_one_ejected(log.ejected, in_trouble, detection.interval_ns)
    yield from verdicts.broke_all_is_well(log.ended, log.attempts, _companions(planned), WELL_NS)
    breaker = policy.circuit_breaker
    if breaker is not None and planned.total_ns is not None:
        yield from verdicts.broke_open_lets_few_through(
            log.attempts, log.refused, breaker, of_endpoints=policy.endpoint_circuit_breaker, endpoints=len(planned.hosts),
            begin_ns=planned.total_ns[0] + SEEN_NS, end_ns=planned.total_ns[1],
        )  # fmt: skip
    yield from host_verdicts.broke_sent_to_those_there(log.attempts, log.told)
    yield from host_verdicts.broke_newcomers_are_fresh(log.told)
    yield from host_verdicts.broke_bounded(log.kept, guarded=guarded, detects=True)
    side_of = {one.number: one.side for one in planned.hosts}
    yield from split_verdicts.broke_sides_in_use(log.attempts, side_of)
    yield from split_verdicts.broke_staying(log.attempts, side_of)


def together(planned: Plan, logs: Sequence[Log]) -> Iterator[str]:
    """What all callers together have broken: one split holds for all."""
    side_of = {one.number: one.side for one in planned.hosts}
    attempts = [one for log in logs for one in log.attempts]
    if planned.stages and planned.stages[0].sticky:
        homes = split_verdicts.homes_of(attempts, side_of)
        yield from split_verdicts.broke_sticky(homes)
        yield from split_verdicts.broke_movement(homes, planned.stages)
    well = [one for one in attempts if one.at_ns >= WELL_NS]
    yield from split_verdicts.broke_shares(well, side_of, planned.stages)


def _companions(planned: Plan) -> dict[int, list[int]]:
    """Of each that stays, those with which it shares its calls when all is well."""
    hosts = planned.hosts
    late = [one for one in hosts if one.until_ns is None or one.until_ns >= WELL_NS]
    return {
        one.number: [other.number for other in late if not planned.stages or other.side == one.side]
        for one in hosts[: planned.staying]
    }


def _spans(planned: Plan, number: int, backend: int) -> list[tuple[int, int]]:
    mine = [one for one in planned.troubles if one.backend == backend and number in one.callers]
    return verdicts.spans([(one.begin_ns, one.end_ns) for one in mine])


def _healed(planned: Plan, number: int, backend: int, at_ns: int) -> int | None:
    return next((end for begin, end in _spans(planned, number, backend) if begin <= at_ns < end + S), None)


def _in_trouble(planned: Plan, number: int, backend: int, from_ns: int, to_ns: int) -> bool:
    return any(begin < to_ns and end > from_ns for begin, end in _spans(planned, number, backend))
