"""The consumers that share a subscription's work, in turn, as far as their credit goes."""

from __future__ import annotations

from collections import deque

CREDIT_MAX = (1 << 32) - 1
"""What a delivery can tell; more than that is not kept."""


class Consumer:
    """One that takes deliveries; `credit` is how many more it may be sent."""

    __slots__ = ("credit", "id", "paused")

    def __init__(self, consumer_id: int) -> None:
        self.id = consumer_id
        self.credit = 0
        self.paused = False


class Rotation:
    """Round robin over those that have credit and are not paused."""

    __slots__ = ("_by_id", "willing")

    def __init__(self) -> None:
        self._by_id: dict[int, Consumer] = {}
        self.willing: deque[Consumer] = deque()
        """The first is the next."""

    def __contains__(self, consumer_id: int) -> bool:
        return consumer_id in self._by_id

    @property
    def asked(self) -> int:
        """Credit of all of them."""
        return sum(consumer.credit for consumer in self.willing)

    def all(self) -> list[Consumer]:
        """Everybody, with credit or without."""
        return list(self._by_id.values())

    def add(self, consumer_id: int) -> None:
        """One more, without credit."""
        assert consumer_id not in self._by_id
        self._by_id[consumer_id] = Consumer(consumer_id)

    def give(self, consumer_id: int, credit: int) -> None:
        """Let it be sent `credit` more."""
        consumer = self._by_id[consumer_id]
        if consumer.credit == 0 and credit > 0 and not consumer.paused:
            self.willing.append(consumer)
        consumer.credit = min(consumer.credit + credit, CREDIT_MAX)

    def set_credit(self, consumer_id: int, credit: int) -> None:
        """Let it be sent exactly `credit` more."""
        consumer = self._by_id[consumer_id]
        if not consumer.paused and bool(consumer.credit) != bool(credit):
            if credit:
                self.willing.append(consumer)
            else:
                self.willing.remove(consumer)
        consumer.credit = min(credit, CREDIT_MAX)

    def pause(self, consumer_id: int, *, paused: bool) -> None:
        """Leave it out for a while, whatever its credit, or take it in again."""
        consumer = self._by_id[consumer_id]
        if consumer.paused == paused:
            return
        consumer.paused = paused
        if consumer.credit:
            if paused:
                self.willing.remove(consumer)
            else:
                self.willing.append(consumer)

    def credit(self, consumer_id: int) -> int:
        """What it may still be sent; 0 for one that is not there."""
        consumer = self._by_id.get(consumer_id)
        return 0 if consumer is None else consumer.credit

    def spend(self) -> Consumer:
        """Take one credit from the next in turn."""
        consumer = self.willing[0]
        consumer.credit -= 1
        if consumer.credit:
            self.willing.rotate(-1)
        else:
            self.willing.popleft()
        return consumer

    def remove(self, consumer_id: int) -> None:
        """It takes no more; nothing happens if it is not there."""
        consumer = self._by_id.pop(consumer_id, None)
        if consumer is not None and consumer.credit and not consumer.paused:
            self.willing.remove(consumer)
