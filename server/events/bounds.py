"""Bounds of every subscription; asserted relations between them."""

from __future__ import annotations

from dataclasses import dataclass

SET_ASIDE_MAX = 10_000
"""Set-aside events of one subscription. When reached, delivery pauses until some are released: none is dropped."""
HELD_MAX = 20_000
"""Events of one subscription that are open or set aside: whatever is said of each, a checkpoint holds all. When
reached, nothing new is delivered until some are done or released."""
SCANNED_UNSAVED_MAX = 10_000
"""Positions that may go by without a matching event before the floor is written once more."""

BLOCK_SPAN_MAX = 65_536
"""Offsets of one block of the journal."""

assert SET_ASIDE_MAX < HELD_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAhead:
    """How far a subscription looks and counts ahead, and when it parks what keeps it from that."""

    look_ahead_max: int = 100_000
    """Positions between the floor and the furthest event looked at; one block may lie across it."""
    ready_max: int = 1_024
    """Events looked at and not yet delivered; with fewer, one more block is looked at."""
    stall_ns: int = 250_000_000
    """As long as lanes move, no more than ready_max events are held in them, but for those of one block. When nothing was
    delivered for so long though something could be, it is four times as many, up to look_ahead_max: other keys may be
    free further on."""
    stall_over_ns: int = 1_000_000_000
    """When lanes have moved for so long, it is a fourth of that again."""
    stuck_ns: int = 60_000_000_000
    """A lane in which one event has been out for so long, while others wait for it, is parked."""
    stuck_look_ns: int = 10_000_000_000
    """Between two looks for such lanes."""
    parked_max: int = 1_000
    """Parked lanes of one subscription. When reached, it looks no further ahead than look_ahead_max until some go on."""
    readmit_max: int = 256
    """Events of a parked lane that are taken into memory at a time, but for those of one block."""
    reserve_min: int = 1_000
    reserve_max: int = 100_000
    """By how many offsets a checkpoint's delivered_to runs ahead of what is delivered."""
    count_ahead_min: int = 64
    """Redeliveries, and events of one lane that was parked, that a checkpoint counts before they are delivered.
    Redeliveries are more, up to ready_max, when consumers ask for more, or many are delivered between two checkpoints."""

    @property
    def reach_max(self) -> int:
        """Positions between the floor and what has been looked at: a block spans so many offsets at most, and of a gap before
        it no more is taken than this. So the bitmap of a checkpoint has no more bits."""
        return self.look_ahead_max + BLOCK_SPAN_MAX

    def __post_init__(self) -> None:
        assert self.readmit_max <= self.ready_max <= self.look_ahead_max
        assert self.reserve_min <= self.reserve_max
        assert self.count_ahead_min <= self.ready_max


DEFAULT = LookAhead()
