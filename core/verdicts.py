"""What becomes of each candidate, and why: `explain` tells it, and nobody needs it to pick."""

from __future__ import annotations

from itertools import starmap
from typing import NamedTuple

from trunkline.core.model import RegisteredInstance
from trunkline.core.placement import Candidate, Level, Placement, Pool, name_of
from trunkline.core.policy import Algorithm, Destination
from trunkline.core.work import Work, at_once, by_pieces


class Exclusion(NamedTuple):
    """Why a candidate is not picked. Rules are named in trunkline.api.v1.traffic."""

    rule: str
    detail: str


class Verdict(NamedTuple):
    """A candidate in the eyes of a pick."""

    candidate: Candidate
    exclusions: tuple[Exclusion, ...]
    weight: float
    """Slow start and its level's share taken in."""
    share_percent: float
    """Of the destination's calls, by weight."""


def verdicts_of(placement: Placement, destination: Destination | None = None) -> list[Verdict]:
    """What becomes of each candidate in a call to a destination; without exclusions if and only if it can be picked."""
    return at_once(judging(placement, destination))


def judging(placement: Placement, destination: Destination | None = None) -> Work[list[Verdict]]:
    """See `verdicts_of`."""
    pool = yield from placement.making_pool(destination)
    picked: dict[Candidate, Verdict] = {}
    for level in pool.levels if pool is not None else ():
        verdicts = yield from _of_picked(placement, level)
        picked.update(zip(level.candidates, verdicts, strict=True))
    takes = placement.takes(destination)
    not_of = Exclusion("split", f"not of {name_of(destination)}")

    def verdict_of(one: Candidate) -> Verdict:
        rules = [] if takes(one.instance) else [not_of]
        return Verdict(one, tuple(_exclusions(placement, one, rules, pool)), 0.0, 0.0)

    return (
        yield from by_pieces(placement.candidates, lambda some: [picked.get(one) or verdict_of(one) for one in some])
    )


def _of_picked(placement: Placement, level: Level) -> Work[list[Verdict]]:
    equal = placement.policy.load_balancing.algorithm is Algorithm.RANDOM
    total, count, load = sum(level.weights), len(level.candidates), level.load_percent

    def verdict_of(one: Candidate, weight: int) -> Verdict:
        part = 1 / count if equal else weight / total
        exclusions = () if weight or equal else (Exclusion("weight", "a weight of 0"),)
        return Verdict(one, exclusions, weight / level.weight_scale * load / 100, part * load)

    weighted = tuple(zip(level.candidates, level.weights, strict=True))
    return (yield from by_pieces(weighted, lambda some: starmap(verdict_of, some)))


def _left_out_of_all(placement: Placement, one: Candidate) -> list[Exclusion]:
    found = []
    if one.instance.status not in placement.statuses:
        found.append(Exclusion("status", _status_detail(one.instance)))
    if one.endpoint is None:
        found.append(Exclusion("protocol", "no endpoint speaks it"))
    if placement.matches is not None and not placement.matches(one.instance):
        found.append(Exclusion("selector", "the selector means others"))
    return found


def _exclusions(placement: Placement, one: Candidate, rules: list[Exclusion], pool: Pool | None) -> list[Exclusion]:
    found = _left_out_of_all(placement, one) + rules
    if found or pool is None:
        return found
    if one.instance.status is not pool.status:
        found.append(Exclusion("tier", f"behind {pool.status.name} ones"))
    if one.out and not pool.unreachable:
        found.append(Exclusion("unreachable", one.out))
    if one.ejected and not pool.panic:
        found.append(Exclusion("ejected", one.ejected))
    if not found:
        found.append(Exclusion("locality", "nearer ones get all calls"))
    return found


def _status_detail(registered: RegisteredInstance) -> str:
    reason = registered.status_reason
    return f"{registered.status.name}: {reason}" if reason else registered.status.name
