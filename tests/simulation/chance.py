"""Chance from one seed, a stream of it for every part: what one part draws changes nothing for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from trunkline.core.clock import Rng
from trunkline.core.hashing import xxh64

T = TypeVar("T")


def rng_of(seed: int, part: str) -> Rng:
    """The chance of a part."""
    return Rng(xxh64(part.encode(), seed))


def choose(rng: Rng, among: Sequence[T]) -> T:
    """One of them."""
    return among[rng.below(len(among))]


def happens(rng: Rng, percent: int) -> bool:
    """Whether something of this likelihood happens."""
    return rng.below(100) < percent


def between(rng: Rng, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * rng.random()
