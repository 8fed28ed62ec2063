"""A subscription told slowly: one plain record per event, no queue, no heap, no bitmap.

It is given the same inputs as the state machine and its deliveries, and says what is wrong with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Where(Enum):
    """Where an event is."""

    NEW = "never delivered"
    OUT = "in flight"
    BACK = "waiting to be delivered again"
    ASIDE = "set aside"
    DONE = "done"


@dataclass
class Slow:
    """One event."""

    offset: int
    where: Where = Where.NEW
    attempts: int = 0
    holder: int = 0
    deadline_ns: int = 0
    not_before_ns: int = 0
    lapsed: bool = False
    lane: int = 0
    """Of events with the same one, but for 0, one is delivered at a time, in their order."""
    released: bool = False
    """It was set aside, and others of its lane may have passed it."""
    deliveries: int = 0
    """Ever, crashes included: what a consumer may have seen."""


@dataclass
class SlowSubscription:
    """All events of a subscription."""

    ack_deadline_ns: int
    max_deliveries: int
    max_in_flight: int
    events: dict[int, Slow] = field(default_factory=dict)
    credit: dict[int, int] = field(default_factory=dict)

    def matching(self, offset: int, lane: int) -> None:
        """It is to be delivered."""
        self.events[offset] = Slow(offset, lane=lane)

    def of_lane(self, lane: int) -> list[Slow]:
        """What of a lane is neither done nor aside."""
        undone = (Where.NEW, Where.OUT, Where.BACK)
        return [event for event in self.events.values() if event.lane == lane and event.where in undone]

    def out(self) -> list[Slow]:
        """What is in flight."""
        return [event for event in self.events.values() if event.where is Where.OUT]

    def floor(self, scanned_to: int) -> int:
        """The first event that is neither done nor aside."""
        open_ = [e.offset for e in self.events.values() if e.where in (Where.NEW, Where.OUT, Where.BACK)]
        return min(open_, default=scanned_to)

    def delivered(self, offset: int, consumer: int, attempt: int, credit: int, now_ns: int) -> None:
        """A delivery was handed out: everything about it must be right."""
        event = self.events[offset]
        assert event.where in (Where.NEW, Where.BACK), f"{offset} was delivered though {event.where.value}"
        assert now_ns >= event.not_before_ns, f"{offset} was delivered before its time"
        assert len(self.out()) < self.max_in_flight, "more in flight than allowed"
        if event.lane:
            others = [other for other in self.of_lane(event.lane) if other is not event]
            assert all(other.where is not Where.OUT for other in others), f"two of one lane at a time: {offset}"
            before = [o.offset for o in others if o.offset < offset and not o.released]
            assert event.released or not before, f"{offset} was delivered before {before} of its lane"
        assert self.credit[consumer] > 0, f"{consumer} had no credit"
        self.credit[consumer] -= 1
        assert credit == self.credit[consumer], "the credit told is not what is left"
        event.attempts += 1
        event.deliveries += 1
        assert attempt == event.attempts, f"{offset} was told to be attempt {attempt}, it is {event.attempts}"
        assert attempt <= self.max_deliveries, f"{offset} was delivered too often"
        event.where, event.holder, event.lapsed = Where.OUT, consumer, False
        event.deadline_ns = now_ns + self.ack_deadline_ns

    def back(self, event: Slow, not_before_ns: int, *, counted: bool = True) -> None:
        """A delivery came back."""
        event.attempts -= not counted
        event.lapsed = False
        event.not_before_ns = not_before_ns
        event.where = Where.ASIDE if event.attempts >= self.max_deliveries else Where.BACK

    def advance(self, now_ns: int) -> None:
        """Take back what stood open for too long."""
        for event in self.out():
            if event.deadline_ns <= now_ns:
                self.back(event, now_ns)
                event.lapsed = event.where is Where.BACK

    def holds(self, offset: int, consumer: int, *, lapsed: bool) -> Slow | None:
        """The event, if this consumer may settle it."""
        event = self.events.get(offset)
        if event is None or event.holder != consumer:
            return None
        if event.where is Where.OUT or (lapsed and event.where is Where.BACK and event.lapsed):
            return event
        return None

    def could_deliver(self, now_ns: int) -> bool:
        """Whether something must be delivered now, if checkpoints allow it."""

        def is_due(event: Slow) -> bool:
            return event.where is Where.NEW or (event.where is Where.BACK and event.not_before_ns <= now_ns)

        # Of a lane the first must be due; after releases it is not known here which that is, so that all must be.
        due = [e for e in self.events.values() if is_due(e) and (not e.lane or all(map(is_due, self.of_lane(e.lane))))]
        return bool(due) and len(self.out()) < self.max_in_flight and any(self.credit.values())
