"""What the subscription's state machine speaks of: limits, deliveries, entries, outcomes, counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from .bounds import DEFAULT, LookAhead
from .order import Ordering

NEVER = 1 << 63
"""Later than every time, higher than every offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A subscription's configuration, with defaults filled in."""

    ack_deadline_ns: int = 30_000_000_000
    max_deliveries: int = 20
    max_in_flight: int = 1_000
    ordering: Ordering = Ordering.PARALLEL
    backoff_ns: tuple[int, ...] = ()
    """How long an event waits before its second, third, ... delivery; the last stands for all further ones."""
    durable: bool = True
    """Without it there are no checkpoints, and none is waited for."""
    look_ahead: LookAhead = DEFAULT

    def backoff_after_ns(self, attempts: int) -> int:
        """How long an event waits that was delivered so often."""
        return self.backoff_ns[min(max(attempts, 1), len(self.backoff_ns)) - 1] if self.backoff_ns else 0


class Delivery(NamedTuple):
    """An event to be sent."""

    consumer: int
    offset: int
    attempt: int
    credit: int
    """What the consumer has left after it."""


class Settled(IntEnum):
    """What became of an acknowledgement."""

    DONE = 0
    LATE = 1
    """The delivery had been taken back, and the event went on to somebody else or aside."""
    REPEATED = 2
    """It had been settled before (or the offset is none of this subscription's events)."""
    NEVER_SENT = 3


class Entry:
    """An event that was delivered at least once, or may have been before a crash."""

    __slots__ = (
        "again_ms",
        "attempts",
        "consumer",
        "counted",
        "deadline_ns",
        "in_flight",
        "lapsed",
        "not_before_ns",
        "offset",
    )

    def __init__(self, offset: int, attempts: int, counted: int, again_ms: int = 0) -> None:
        self.offset = offset
        self.attempts = attempts
        self.counted = counted
        """The attempts that a durable checkpoint accounts for."""
        self.again_ms = again_ms
        """When somebody had it delivered again though it was done, in milliseconds since the epoch; 0 if nobody did. If it
        fails again, that tells its dead letter from the one before."""
        self.consumer = 0
        """Who has it, or had it last."""
        self.deadline_ns = 0
        self.not_before_ns = 0
        self.in_flight = False
        self.lapsed = False
        """Waiting because its deadline passed: its last consumer may still say that it is done."""


@dataclass(slots=True)
class Counts:
    """Totals since the state was made."""

    delivered: int = 0
    redelivered: int = 0
    done: int = 0
    lapsed: int = 0
    given_back: int = 0
    nacked: int = 0
    late: int = 0
    repeated: int = 0
    never_sent: int = 0
    set_aside: int = 0
    dead_lettered: int = 0
    """Set aside, and then published to the dead-letter stream."""
    expired: int = 0
    """Past their expirytime when they were to be delivered."""
    compacted: int = 0
    """Removed by compaction when they were to be delivered: a later event of their key stands for them."""
    missed: int = 0
    """Positions removed by retention before they were done."""
