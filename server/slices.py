"""Runs work on the loop, which gets its turn between two pieces (see trunkline.core.work)."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from trunkline.core.work import Work

T = TypeVar("T")


async def in_slices(work: Work[T]) -> T:
    """All of it, with the loop's turn between two pieces."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found
        await asyncio.sleep(0)
