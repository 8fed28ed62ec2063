"""What is demanded of callers, of what they noted: each says what was broken, in words."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from simulation.calling.log import Attempted, Ejected, Refused
from simulation.calling.timeline import S

from trunkline.core.policy import BreakerMode, CircuitBreaker, OutlierDetection, StatusCode

WINDOW_NS = 10 * S
PART_MIN = 20
"""So many calls for each, and by chance alone hardly one has none: e^-20."""
LAG_NS = 20_000_000
"""An attempt may be sent so much later than it was begun: connections were refused in between."""


def broke_no_retry_storm(calls: Sequence[int], attempts: Sequence[int]) -> Iterator[str]:
    """In any 10 s, attempts <= 1.2 x calls + 3 a second."""
    calls, attempts = sorted(calls), sorted(attempts)
    for at, begin_ns in enumerate(attempts):
        sent = bisect_left(attempts, begin_ns + WINDOW_NS) - at
        made = bisect_left(calls, begin_ns + WINDOW_NS) - bisect_left(calls, begin_ns - LAG_NS)
        if sent > 1.2 * made + 30:
            yield f"retry storm: {sent} attempts of {made} calls in the 10 s from {begin_ns / S:.3f} s"
            return


def broke_no_empty_pick(refused: Sequence[Refused]) -> Iterator[str]:
    """Somebody is found as long as a candidate is there whose breaker lets it through."""
    for one in refused:
        if one.why == "no_instance" and one.candidates:
            yield f"empty pick: nobody of {one.candidates} at {one.at_ns / S:.3f} s"
        if one.why == "endpoint_circuit_breaker" and one.willing:
            yield f"empty pick: {one.willing} would have taken the call at {one.at_ns / S:.3f} s"


def broke_attempts(
    attempts: Sequence[Attempted], *, max_attempts: int, panic_percent: int, guarded: bool
) -> Iterator[str]:
    """No more than are allowed, elsewhere where there is an elsewhere, and not to whom is out, or ejected unless in a panic
    or when all others may have refused.

    `guarded`: endpoints have breakers, so that others may have been unwilling.
    """
    for one in attempts:
        at = f"attempt {one.before + 1} at {one.at_ns / S:.3f} s"
        if one.before >= max_attempts:
            yield f"{at}: more than {max_attempts}"
        if one.was_ejected and one.willing and 100 * one.others_left >= panic_percent * one.part:
            yield f"{at}: went to {one.backend}, which is ejected, with {one.willing} of {one.others_left} willing"
        if one.was_out and one.reachable:
            yield f"{at}: went to {one.backend}, which is out of reach, with {one.reachable} that are not"
        if one.again and not guarded and one.untried:
            yield f"{at}: went to {one.backend} again, with {one.untried} left that it had not been sent to"


def broke_floor(ejected: Sequence[Ejected], policy: OutlierDetection) -> Iterator[str]:
    """Of those that there are enough are left after each ejection, and one at least."""
    out: set[int] = set()
    for one in ejected:
        if not one.out:
            out.discard(one.backend)
            continue
        out.add(one.backend)
        by_percent = 100 * len(out) <= policy.max_ejection_percent * one.hosts
        if len(out) >= one.hosts or not (by_percent or (policy.always_eject_one_host and len(out) == 1)):
            yield f"{len(out)} of {one.hosts} are ejected at {one.at_ns / S:.3f} s"


def longest_ns(policy: OutlierDetection, times: int) -> int:
    """How long the last of so many ejections of one backend may be."""
    base_ns = policy.base_ejection_time_ns
    return min(times * base_ns, max(policy.max_ejection_time_ns, base_ns)) + policy.max_ejection_time_jitter_ns


def broke_recovery(
    ejected: Sequence[Ejected], policy: OutlierDetection, healed: Callable[[int, int], int | None], end_ns: int
) -> Iterator[str]:
    """A backend is back within its ejection time + interval.

    `healed(backend, at)` is when the trouble ends that it is in at that time; None when it is in none.
    """
    times: Counter[int] = Counter()
    since: dict[int, Ejected] = {}
    for one in [*ejected, *(Ejected(end_ns, at, False, 0) for at in {one.backend for one in ejected})]:
        if one.out:
            times[one.backend] += 1
            since.setdefault(one.backend, one)
            continue
        out = since.pop(one.backend, None)
        if out is None or one.gone:
            continue
        # It may have healed at any time of its ejection; that the time ran from the ejection makes it no longer.
        limit_ns = out.at_ns + longest_ns(policy, times[one.backend]) + policy.interval_ns
        if one.at_ns > limit_ns and end_ns > limit_ns:
            late_s = (one.at_ns - limit_ns) / S
            yield f"{one.backend} is out since {out.at_ns / S:.3f} s, and {late_s:.3f} s too long"
        well_ns = healed(one.backend, out.at_ns)
        if (
            well_ns is not None
            and times[one.backend] == 1
            and one.at_ns
            > max(well_ns, out.at_ns)
            + (policy.base_ejection_time_ns + policy.max_ejection_time_jitter_ns + policy.interval_ns)
        ):
            yield f"{one.backend} healed at {well_ns / S:.3f} s and is not back at {one.at_ns / S:.3f} s"


def broke_no_well_one_ejected(
    ejected: Sequence[Ejected], in_trouble: Callable[[int, int, int], bool], interval_ns: int
) -> Iterator[str]:
    """Who was ejected had been in trouble within the interval. `in_trouble(backend, from, to)`."""
    for one in ejected:
        if one.out and not in_trouble(one.backend, one.at_ns - interval_ns - S, one.at_ns):
            yield f"{one.backend} was well and is ejected at {one.at_ns / S:.3f} s"


def broke_all_is_well(
    ended: Sequence[tuple[int, StatusCode]],
    attempts: Sequence[Attempted],
    companions: Mapping[int, Collection[int]],
    since_ns: int,
) -> Iterator[str]:
    """When trouble is long over, every call arrives, and every backend has its part of them. `companions` are, of each that
    is there all the time, those that it shares its calls with at any time, itself among them."""
    failed = [(at_ns, code) for at_ns, code in ended if at_ns >= since_ns and code is not StatusCode.OK]
    if failed:
        yield f"{len(failed)} calls fail though all is well, the first with {failed[0][1].name} at {failed[0][0] / S:.3f} s"
    got = Counter(one.backend for one in attempts if one.at_ns >= since_ns)
    for backend, others in companions.items():
        if not got[backend] and sum(got[one] for one in others) >= PART_MIN * len(others):
            yield f"{backend} has no calls though all is well"


def broke_open_lets_few_through(
    attempts: Sequence[Attempted], refused: Sequence[Refused], policy: CircuitBreaker, *,
    of_endpoints: CircuitBreaker | None = None, endpoints: int = 0, begin_ns: int, end_ns: int,
) -> Iterator[str]:  # fmt: skip
    """While everything fails, a breaker that has seen it sends little: trial calls when FAST, a small share when GRADUAL.

    Those of the endpoints may keep so much away that the service's breaker does not see enough to open.
    """
    sent = sum(begin_ns <= one.at_ns < end_ns for one in attempts)
    asked = sent + sum(begin_ns <= one.at_ns < end_ns for one in refused)
    if asked < 60:
        return
    most = _most_through(policy, 1, asked, end_ns - begin_ns)
    if of_endpoints is not None:
        most = max(most, _most_through(of_endpoints, endpoints, asked, end_ns - begin_ns))
    if sent > most:
        yield f"{sent} of {asked} are sent from {begin_ns / S:.3f} s to {end_ns / S:.3f} s, where all fail"


def _most_through(policy: CircuitBreaker, breakers: int, asked: int, time_ns: int) -> float:
    if policy.mode is not BreakerMode.FAST:
        return 0.6 * asked
    trials = breakers * policy.permitted_number_of_calls_in_half_open_state
    return trials * (time_ns / policy.wait_duration_in_open_state_ns + 2)


def spans(troubles: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """The times that are covered, in order, with those joined that touch."""
    found: list[tuple[int, int]] = []
    for begin_ns, end_ns in sorted(troubles):
        if found and begin_ns <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end_ns)
        else:
            found.append((begin_ns, end_ns))
    assert all(one[1] < other[0] for one, other in pairwise(found))
    return found
