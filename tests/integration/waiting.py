"""Waiting for what other tasks or processes are about to do and no event tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], *, within_s: float = 30) -> None:
    """Return when the condition holds; TimeoutError after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (what no event tells can only be asked for)
            await asyncio.sleep(0.005)
