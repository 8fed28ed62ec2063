"""Which offsets a consumer has in hand, still expects again, or is done with.

Pure; tells repeats from news after a reconnect.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

DONE_MAX = 10_000
"""Offsets remembered as done above one that is not; beyond it an event may be delivered again, as at-least-once
allows."""


class Verdict(Enum):
    """What to do with a delivery that came."""

    NEW = 1
    """Hand it on."""
    IN_HAND = 2
    """The consumer still has it: what it says will count for this delivery."""
    DONE = 3
    """The consumer is done with it: say so again."""


class Ledger:
    """Offsets of one subscription in one incarnation of its stream."""

    def __init__(self, *, durable: bool) -> None:
        self._durable = durable
        self._in_hand: set[int] = set()
        self._expected: set[int] = set()
        self._done: set[int] = set()
        self._recent: deque[int] = deque(maxlen=DONE_MAX)
        """Durable: the latest that were done on this connection; their acknowledgements may still be on the way."""

    @property
    def in_hand(self) -> int:
        """How many deliveries are not settled."""
        return len(self._in_hand)

    @property
    def lowest_open(self) -> int | None:
        """Everything that came below it is done; None when all is."""
        return min((min(part) for part in (self._in_hand, self._expected) if part), default=None)

    def receive(self, offset: int) -> Verdict:
        """A delivery came."""
        if offset in self._in_hand:
            return Verdict.IN_HAND
        if offset in self._done:
            return Verdict.DONE
        self._expected.discard(offset)
        self._in_hand.add(offset)
        return Verdict.NEW

    def settle(self, offset: int, *, again: bool) -> bool:
        """The consumer said its last word; `again` expects another delivery. False when it was not in hand."""
        if offset not in self._in_hand:
            return False
        self._in_hand.discard(offset)
        if again:
            self._expected.add(offset)
        elif self._durable:
            self._recent.append(offset)
        elif len(self._done) < DONE_MAX:
            self._done.add(offset)
        return True

    def reconnected(self) -> None:
        """Acknowledgements that were on the way may be lost: what they said stays known until `forget_lost`."""
        self._done.update(self._recent)
        self._recent.clear()

    @property
    def knows_lost(self) -> bool:
        """Whether there is anything that `forget_lost` would forget."""
        return self._durable and bool(self._done)

    def forget_lost(self) -> None:
        """What the lost connection left open has come again by now, if at all."""
        if self._durable:
            self._done.clear()

    def forget_below(self, offset: int) -> None:
        """Nothing below `offset` can come again: a reconnect would go on there."""
        if self._done and not self._durable:
            self._done = {done for done in self._done if done >= offset}
