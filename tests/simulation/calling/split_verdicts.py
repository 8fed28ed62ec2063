"""What is demanded of calls that are split among versions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import log, sqrt

from simulation.calling.log import Attempted
from simulation.calling.splits import Shares, Sides, grown
from simulation.calling.timeline import S

SURE = 1e-9
"""A share that is right is called wrong once in so many times."""
Homes = Mapping[tuple[int, Sides], Mapping[str, set[int]]]
"""By what held (the split's number, and the sides in use), of each key the sides that its calls went to."""


def broke_sides_in_use(attempts: Sequence[Attempted], side_of: Mapping[int, int]) -> Iterator[str]:
    """A call goes to a side that is in use, as long as one is: so that a side that lives is never passed over."""
    for one in attempts:
        if one.sides and side_of[one.backend] not in one.sides:
            where = f"side {side_of[one.backend]}, in use are {one.sides}"
            yield f"a call went to {one.backend} at {one.at_ns / S:.3f} s: {where}"


def broke_staying(attempts: Iterable[Attempted], side_of: Mapping[int, int]) -> Iterator[str]:
    """A call stays on the side that was chosen for it first, as long as somebody there was not tried and takes it."""
    for one in attempts:
        first, side = one.first_side, side_of[one.backend]
        if one.left_there and first in one.sides and side != first:
            at = f"attempt {one.before + 1} at {one.at_ns / S:.3f} s"
            yield f"{at}: went to side {side}, with {one.left_there} left of side {first}, where the call went first"


def homes_of(attempts: Iterable[Attempted], side_of: Mapping[int, int]) -> Homes:
    """Of calls that stick, as far as they were not at home already on another side."""
    homes: dict[tuple[int, Sides], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for one in attempts:
        if one.key and one.sides and one.first_side is None:
            homes[one.stage, one.sides][one.key].add(side_of[one.backend])
    return homes


def broke_sticky(homes: Homes) -> Iterator[str]:
    """A key stays on its side while the split stays, whoever calls."""
    for (stage, sides), keys in homes.items():
        for key, found in keys.items():
            if len(found) > 1:
                yield f"{key} went to sides {sorted(found)}, with split {stage} and {sides} in use"


def broke_movement(homes: Homes, stages: Sequence[Shares]) -> Iterator[str]:
    """When a side is in use no more, its keys move and no others; when one grows, keys move there and nowhere else."""
    for one, other in combinations(homes, 2):
        (stage, sides), (later, others) = one, other
        for key in homes[one].keys() & homes[other].keys():
            before, after = min(homes[one][key]), min(homes[other][key])
            if before == after:
                continue
            if stage == later and before in others and after in sides:
                yield f"{key} moved from side {before} to {after}: in use were {sides}, then {others}"
            if stage != later and sides == others:
                left, came = (before, after) if stage < later else (after, before)
                if came not in grown(*sorted_pair(stages, stage, later)):
                    yield f"{key} moved from side {left} to {came}, which has not grown"


def sorted_pair(stages: Sequence[Shares], one: int, other: int) -> tuple[Shares, Shares]:
    """Two splits in the order in which they held."""
    return stages[min(one, other)], stages[max(one, other)]


def broke_shares(attempts: Iterable[Attempted], side_of: Mapping[int, int], stages: Sequence[Shares]) -> Iterator[str]:
    """Each side in use gets its share: of calls that stick to nothing, and of the keys. Of calls that no breaker, and no
    failure before them, has sifted; where they went first.
    """
    calls: dict[tuple[int, Sides], Counter[int]] = defaultdict(Counter)
    keys: dict[tuple[int, Sides], dict[str, int]] = defaultdict(dict)
    for one in attempts:
        if one.first_side is not None:
            continue
        if one.sides and one.key and stages[one.stage].sticky:
            keys[one.stage, one.sides][one.key] = side_of[one.backend]
        elif one.sides:
            calls[one.stage, one.sides][side_of[one.backend]] += 1
    of_keys = {held: Counter(found.values()) for held, found in keys.items()}
    for what, found in (("calls", calls), ("keys", of_keys)):
        for (stage, sides), counts in found.items():
            total = sum(counts.values())
            for side in sides:
                share, got = stages[stage].part(side, sides), counts[side]
                if abs(got - share * total) > slack(total):
                    yield f"side {side} has {got} of {total} {what}, its share is {share:.3f} (split {stage}, {sides})"


def slack(total: int) -> float:
    """How far a count may lie from what is expected of so many (Hoeffding's inequality, both sides)."""
    return sqrt(total * log(2 / SURE) / 2)
