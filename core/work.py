"""Work that is done a piece at a time, so that a loop gets its turn: a generator that yields between two pieces."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Work: TypeAlias = Generator[None, None, T]
"""Each piece takes some ms: it handles a bounded number of things."""


def at_once(work: Work[T]) -> T:
    """All of it, where nobody waits."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found
