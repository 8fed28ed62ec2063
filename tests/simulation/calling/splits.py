"""How calls are split among versions, and, plainly, which sides of it are in use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from simulation.calling.hosts import TRACKS
from simulation.chance import choose, happens

from trunkline.core.clock import Rng
from trunkline.core.policy import Destination, KeySource, Split, Subset

HEADER = "user"
SUBSETS = tuple(Subset(name=track, labels={"track": track}) for track in TRACKS)
RANGES = ("<2.0.0", ">=2.0.0 <3.0.0", ">=3.0.0")

Sides = tuple[int, ...]


class Shares(NamedTuple):
    """The weights of the first so many sides; hosts of others get no calls as long as one of these can."""

    weights: tuple[int, ...]
    by_label: bool
    sticky: bool

    def split(self) -> Split:
        """As policies have it."""
        named = [
            Destination(subset=TRACKS[side], weight=weight) if self.by_label
            else Destination(version=RANGES[side], weight=weight)
            for side, weight in enumerate(self.weights)
        ]  # fmt: skip
        return Split(destinations=tuple(named), sticky_on=KeySource(header=HEADER) if self.sticky else None)

    def in_use(self, there: Collection[int], reachable: Collection[int]) -> Sides:
        """The sides that calls go to, with hosts `there` and, of these, those that are `reachable`; none: to any host."""
        sides = range(len(self.weights))
        if reachable:
            there = reachable
        able = [side for side in sides if side in there]
        return tuple([side for side in able if self.weights[side]] or able)

    def part(self, side: int, among: Sides) -> float:
        """Its share of the calls when these are in use."""
        total = sum(self.weights[one] for one in among)
        return self.weights[side] / total if total else 1 / len(among)


def stages(rng: Rng) -> tuple[Shares, ...]:
    """The splits that hold one after the other: none, one, or one of which a side grows."""
    if happens(rng, 40):
        return ()
    weights = tuple(choose(rng, (0, 10, 30, 50, 90)) for _ in range(choose(rng, (2, 3, 3))))
    if not any(weights):
        weights = (50, *weights[1:])
    first = Shares(weights, happens(rng, 50), happens(rng, 70))
    if happens(rng, 40):
        return (first,)
    side = rng.below(len(weights))
    grown = tuple(weight + 40 * (at == side) for at, weight in enumerate(weights))
    return first, first._replace(weights=grown)


def grown(before: Shares, after: Shares) -> Sequence[int]:
    """The sides whose weight is larger now."""
    return [side for side, weight in enumerate(after.weights) if weight > before.weights[side]]
