"""Instances near the caller first: levels of distance, and how many calls each gets.

A level's share is that of a priority in Envoy: https://www.envoyproxy.io/docs, "Priority levels".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trunkline.core.model import Locality
from trunkline.core.policy import LocalityPreference, LocalityScope

NOWHERE = Locality()
"""Nothing is known of where somebody is."""

EVERYBODY = "elsewhere"
"""The name of the last level, which takes all that are in no nearer one."""

_NEARER_FIRST = tuple(sorted(LocalityScope, reverse=True))


class Count(NamedTuple):
    """The instances of a level."""

    healthy: int
    """Those that may be picked."""
    all: int


def levels_of(preference: LocalityPreference | None, where: Locality) -> list[LocalityScope]:
    """The scopes that matter to a caller there, nearest first; none when it prefers nothing or is nowhere."""
    if preference is None:
        return []
    return [scope for scope in _NEARER_FIRST if scope <= preference.nearest and _named(where, scope)]


def level_of(scopes: Sequence[LocalityScope], where: Locality, locality: Locality) -> int:
    """The first of the scopes that an instance shares with the caller; behind the last when it shares none.

    What the caller leaves empty is not compared: who says only its zone takes the name for one of a kind.
    """
    for number, scope in enumerate(scopes):
        if _shared(scope, where, locality):
            return number
    return len(scopes)


def passed_over(counts: Sequence[Count], min_instances: int) -> list[int]:
    """For each level, the one that its instances count in: a level that is too small is part of the next wider one."""
    found = []
    small = 0
    target = 0
    for number, count in enumerate(counts):
        found.append(number)
        small += count.all
        if small >= min_instances or number == len(counts) - 1:
            for joined in range(target, number):
                found[joined] = number
            target, small = number + 1, 0
    return found


def loads(counts: Sequence[Count], overprovisioning_factor: int) -> list[int]:
    """What percent of the calls each level gets, nearest first; 100 in all. At least one of them has somebody healthy.

    Envoy's integers, but that a level with anybody healthy has a health of at least one percent.
    """
    healths = [_health(count, overprovisioning_factor) for count in counts]
    total = min(100, sum(healths))
    found = []
    left = 100
    for health in healths:
        load = min(left, (200 * health + total) // (2 * total))
        found.append(load)
        left -= load
    found[next(number for number, health in enumerate(healths) if health)] += left
    return found


def _health(count: Count, factor: int) -> int:
    return max(1, min(100, factor * count.healthy // count.all)) if count.healthy else 0


def _named(where: Locality, scope: LocalityScope) -> str:
    match scope:
        case LocalityScope.SUB_ZONE:
            return where.sub_zone
        case LocalityScope.ZONE:
            return where.zone
        case LocalityScope.REGION:
            return where.region


def _shared(scope: LocalityScope, where: Locality, other: Locality) -> bool:
    if where.region not in ("", other.region):
        return False
    if scope is LocalityScope.REGION:
        return True
    if where.zone not in ("", other.zone):
        return False
    return scope is LocalityScope.ZONE or where.sub_zone == other.sub_zone
