"""Work that is done a piece at a time, so that a loop gets its turn: a generator that yields between two pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

S = TypeVar("S")
T = TypeVar("T")

PIECE = 2_000
"""Things that are handled between two turns of the loop, where one takes a microsecond or so."""

Work: TypeAlias = Generator[None, None, T]
"""Each piece takes some ms: it handles a bounded number of things, and few things are no more than one piece."""


def at_once(work: Work[T]) -> T:
    """All of it, where nobody waits."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found


def pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """All items, at most PIECE at a time. The loop is due after those that are full (`is_full`)."""
    if len(items) <= PIECE:
        yield items
        return
    for first in range(0, len(items), PIECE):
        yield items[first : first + PIECE]


def is_full(piece: Sequence[object]) -> bool:
    """Whether the loop is due after it: a short rest goes together with what comes next."""
    return len(piece) == PIECE


def by_pieces(items: Sequence[S], make: Callable[[Sequence[S]], Iterable[T]]) -> Work[list[T]]:
    """What is made of each piece of some items, put together."""
    found: list[T] = []
    for some in pieces(items):
        found += make(some)
        if is_full(some):
            yield
    return found
