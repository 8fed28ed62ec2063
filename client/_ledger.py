"""Which offsets a consumer has in hand, still expects again, or is done with.

Pure; tells repeats from news after a reconnect.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, NamedTuple

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


class LastWord(NamedTuple):
    """What a consumer said at last of an offset."""

    attempt: int
    """Of the delivery that it was said of."""
    why_ended: str | None = None
    """The reason of a termination; None for an acknowledgement."""


FIRST: Final = LastWord(1)
"""An acknowledgement of a first delivery: what is said of nearly every one."""


class Ledger:
    """Offsets of one subscription in one incarnation of its stream."""

    def __init__(self, *, durable: bool) -> None:
        self._durable = durable
        self._in_hand: set[int] = set()
        self._expected: set[int] = set()
        self._done: dict[int, LastWord] = {}
        self._recent: deque[tuple[int, LastWord]] = deque(maxlen=DONE_MAX)
        """Durable: the latest that were done on this connection; their acknowledgements may still be on the way."""

    @property
    def in_hand(self) -> int:
        """How many deliveries are not settled."""
        return len(self._in_hand)

    @property
    def lowest_open(self) -> int | None:
        """Everything that came below it is done; None when all is."""
        return min((min(part) for part in (self._in_hand, self._expected) if part), default=None)

    def receive(self, offset: int, attempt: int = 1) -> Verdict:
        """A delivery came."""
        if offset in self._in_hand:
            return Verdict.IN_HAND
        known = self._done.get(offset)
        if known is not None:
            # One that was settled and comes with no higher attempt is delivered anew: redriven, released, or sought to.
            if not self._durable or attempt > known.attempt:
                return Verdict.DONE
            del self._done[offset]
        self._expected.discard(offset)
        self._in_hand.add(offset)
        return Verdict.NEW

    def settle(self, offset: int, *, again: bool, word: LastWord = FIRST) -> bool:
        """The consumer said its last word; `again` expects another delivery. False when it was not in hand."""
        if offset not in self._in_hand:
            return False
        self._in_hand.discard(offset)
        if again:
            self._expected.add(offset)
        elif self._durable:
            self._recent.append((offset, word))
        elif len(self._done) < DONE_MAX:
            self._done[offset] = word
        return True

    def reconnected(self) -> None:
        """Words that were on the way may be lost: what they said stays known until `forget_lost`."""
        self._done.update(self._recent)
        self._recent.clear()

    def last_word(self, offset: int) -> LastWord:
        """What was said of one that is DONE."""
        return self._done[offset]

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
            self._done = {done: word for done, word in self._done.items() if done >= offset}
