"""Work that is done a piece at a time, so that the loop gets its turn: a generator that yields between two pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Work = Generator[None, None, T]
"""Each piece takes some ms."""


def at_once(work: Work[T]) -> T:
    """All of it, where nobody waits."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found


async def in_slices(work: Work[T]) -> T:
    """All of it, with the loop's turn between two pieces."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found
        await asyncio.sleep(0)
