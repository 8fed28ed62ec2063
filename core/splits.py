"""Which versions get a call: the first match decides, else the key or chance, by weight. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import log
from typing import NamedTuple, TypeAlias

from trunkline.core.clock import Rng
from trunkline.core.hashing import xxh64
from trunkline.core.placement import Liveness, name_of
from trunkline.core.policy import Condition, Destination, KeySource, Match, Split

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
"""As a call has it. Keys may come more than once."""


class Decision(NamedTuple):
    """Where a call goes."""

    destination: Destination | None
    """None: to any instance."""
    why: str


def value_of(metadata: Metadata | None, header: str) -> bytes | None:
    """What a call says under a key, several values joined by commas as in HTTP; None when it says nothing."""
    found = [value.encode() if isinstance(value, str) else value for key, value in metadata or () if key == header]
    return b",".join(found) if found else None


def key_of(source: KeySource | None, metadata: Metadata | None, caller: bytes) -> bytes | None:
    """A property of a call; None when it has none."""
    if source is None:
        return None
    if source.caller:
        return caller or None
    return value_of(metadata, source.header)


def holds(condition: Condition, metadata: Metadata | None) -> bool:
    """Whether a call is as a match wants it."""
    value = value_of(metadata, condition.header)
    if value is None:
        return False
    if condition.exact is not None:
        return value == condition.exact.encode()
    if condition.prefix is not None:
        return value.startswith(condition.prefix.encode())
    return condition.present


class Splitter:
    """A split, of which only those destinations are left that can be called best.

    Better is who is not STALE and can be reached; of those that are equal, who has a share at all. So an outage moves the
    calls of the destination that is down, and no others. When none can be reached, other instances get the calls that can.
    """

    def __init__(self, split: Split, liveness: Callable[[Destination | None], Liveness]) -> None:
        """`liveness` knows of each destination, and of all instances together (None)."""
        self._split = split
        best = liveness(None)
        self._matches = [
            (match.conditions, Decision(match.destination, _match_reason(match)))
            for match in split.matches
            if liveness(match.destination) <= best
        ]
        self._destinations = _best(split.destinations, liveness)
        # When none of them has a share, each is as good as the others.
        shared = any(one.weight for one in self._destinations)
        self._weights = [one.weight if shared else 1 for one in self._destinations]
        self._sums = list(accumulate(self._weights))
        self._seeds = [xxh64(name_of(one).encode()) for one in self._destinations]
        shares = [f"{weight} of {sum(self._weights)}" for weight in self._weights]
        self._by_chance = [Decision(*one) for one in zip(self._destinations, _each("by chance", shares), strict=True)]
        self._by_key = [Decision(*one) for one in zip(self._destinations, _each("by key", shares), strict=True)]
        self._rest = Decision(None, "no destination can be called" if split.destinations else "no match holds")

    @property
    def destinations(self) -> list[Destination | None]:
        """All that calls may go to."""
        matched: list[Destination | None] = [decision.destination for _, decision in self._matches]
        return [*matched, *self._destinations] if self._destinations else [*matched, None]

    def choose(self, metadata: Metadata | None, key: bytes | None, caller: bytes, rng: Rng) -> Decision:
        """Where a call goes. `key` stands in for what it would stick to."""
        metadata = None if metadata is None else tuple(metadata)
        for conditions, decision in self._matches:
            if all(holds(condition, metadata) for condition in conditions):
                return decision
        if not self._destinations:
            return self._rest
        if key is None:
            key = key_of(self._split.sticky_on, metadata, caller)
        if key is None or self._split.sticky_on is None:
            return self._by_chance[bisect_right(self._sums, rng.below(self._sums[-1]))]
        return self._by_key[self.place(key)]

    def place(self, key: bytes) -> int:
        """The destination that a key sticks to.

        Weighted rendezvous hashing (Schindelhauer and Schomaker, Weighted Distributed Hash Tables, 2005): when one weight
        grows, keys move there and nowhere else, no more than its share grows; when a destination goes, only its keys move.
        """
        scores = [
            -log((xxh64(key, seed) + 0.5) / 2**64) / weight if weight else float("inf")
            for seed, weight in zip(self._seeds, self._weights, strict=True)
        ]
        return min(range(len(scores)), key=scores.__getitem__)


def _best(destinations: Sequence[Destination], liveness: Callable[[Destination | None], Liveness]) -> list[Destination]:
    ranks = [(liveness(one), not one.weight) for one in destinations]
    best = min(ranks, default=None)
    if best is None or best[0].nobody or (best[0].unreachable and not liveness(None).unreachable):
        return []
    return [one for one, rank in zip(destinations, ranks, strict=True) if rank == best]


def _each(how: str, shares: Iterable[str]) -> list[str]:
    return [f"{how}, {share}" for share in shares]


def _match_reason(match: Match) -> str:
    return "match: " + ", ".join(map(_condition_text, match.conditions))


def _condition_text(condition: Condition) -> str:
    if condition.exact is not None:
        return f"{condition.header} is {condition.exact!r}"
    if condition.prefix is not None:
        return f"{condition.header} begins with {condition.prefix!r}"
    return f"{condition.header} is there"
