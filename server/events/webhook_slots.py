"""How many requests all webhooks may have open together."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Waiter(Protocol):
    """A subscription."""

    def wake(self) -> None:
        """Go on in the next turn of the loop."""


class Slots:
    """`reserve`, wait for the `turn`, `end_turn`, then `release`, whatever came between.

    Deliveries that were handed out together may be more than there are slots: those wait. Who asks while all are taken
    is turned away, and woken when there is room: one after the other, so that each looks only once.
    """

    def __init__(self, count: int) -> None:
        self.reserved = 0
        self._count = count
        self._open = asyncio.Semaphore(count)
        self._turned_away: dict[Waiter, None] = {}

    def is_free_for(self, waiter: Waiter) -> bool:
        """Whether a request could begin now."""
        if self.reserved >= self._count:
            self._turned_away[waiter] = None
            return False
        self._turned_away.pop(waiter, None)
        self._wake_next()
        return True

    def forget(self, waiter: Waiter) -> None:
        """It asks no more."""
        self._turned_away.pop(waiter, None)

    def reserve(self) -> None:
        """A delivery was handed out."""
        self.reserved += 1

    async def turn(self) -> None:
        """Return when the request may begin; `end_turn` when it is over."""
        await self._open.acquire()

    def end_turn(self) -> None:
        """The request is over."""
        self._open.release()

    def release(self) -> None:
        """The delivery is over, whether it had its turn or not."""
        self.reserved -= 1
        if self.reserved < self._count:
            self._wake_next()

    def _wake_next(self) -> None:
        waiter = next(iter(self._turned_away), None)
        if waiter is not None:
            del self._turned_away[waiter]
            waiter.wake()
