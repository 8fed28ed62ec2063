"""`tail --no-follow` and `replay` end with the last event that they were asked for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.cli._receive import below


class Subscribed:
    """Gives these offsets, then nothing more and no word that there is nothing more."""

    def __init__(self, *offsets: int, reached: int = 0) -> None:
        self.reached = reached
        self._offsets = list(offsets)

    @property
    def in_hand(self) -> int:
        return len(self._offsets)

    async def next(self) -> Any:
        if not self._offsets:
            await asyncio.Event().wait()
        return SimpleNamespace(offset=self._offsets.pop(0))


@pytest.mark.parametrize(
    ("subscribed", "end", "offsets"),
    [
        (Subscribed(0, 1), 2, [0, 1]),
        (Subscribed(0, 1, 5), 3, [0, 1]),
        (Subscribed(0, reached=3), 3, [0]),
        (Subscribed(reached=3), 3, []),
    ],
)
async def test_what_lies_below_an_offset(subscribed: Any, end: int, offsets: list[int]) -> None:
    async with asyncio.timeout(5):
        assert [delivery.offset async for delivery in below(subscribed, end)] == offsets
