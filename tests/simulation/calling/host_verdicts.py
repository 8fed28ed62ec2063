"""What is demanded of callers whose hosts come and go."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from simulation.calling.log import Attempted, Kept, Told
from simulation.calling.timeline import S


def broke_sent_to_those_there(attempts: Sequence[Attempted], told: Sequence[Told]) -> Iterator[str]:
    """Nothing is sent to whom the caller was told is not registered."""
    times = [one.at_ns for one in told]
    for one in attempts:
        known = told[bisect_right(times, one.at_ns) - 1]
        if one.backend not in known.backends:
            yield f"{one.backend} was sent a call at {one.at_ns / S:.3f} s, it has been gone since {known.at_ns / S:.3f} s"


def broke_newcomers_are_fresh(told: Sequence[Told]) -> Iterator[str]:
    """Nobody inherits an ejection, or a breaker that has seen failures; and never are all ejected because others left."""
    for one in told:
        if one.unfresh:
            yield f"{one.unfresh} newcomers are not as new at {one.at_ns / S:.3f} s"
        if one.ejected and one.ejected == len(one.backends):
            yield f"all {one.ejected} that are left are ejected at {one.at_ns / S:.3f} s"


def broke_bounded(kept: Sequence[Kept], *, guarded: bool, detects: bool) -> Iterator[str]:
    """What is kept is of those that are there, and of those that are gone while calls are in flight to them; at last, when
    all calls have ended, none is."""
    for one in kept[-1:]:
        if one.in_flight or one.leaving:
            yield f"{one.in_flight} calls are in flight for ever, {one.leaving} endpoints do not go"
    for one in kept:
        at = f"at {one.at_ns / S:.3f} s"
        if one.slots > one.needed:
            yield f"{at} there are {one.slots} slots, no more than {one.needed} were needed at a time"
        least = one.backends if guarded else 0
        if not least <= one.breakers <= least + (one.leaving if guarded else 0):
            yield f"{at} there are {one.breakers} breakers of {one.backends} endpoints, {one.leaving} are leaving"
        if one.detected != (one.backends if detects else 0):
            yield f"{at} outlier detection knows {one.detected} of {one.backends}"
