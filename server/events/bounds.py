"""Bounds of every subscription; asserted relations between them."""

from __future__ import annotations

LOOK_AHEAD_MAX = 100_000
"""Positions between the floor and the furthest event looked at; one block may lie across it."""
REACH_MAX = LOOK_AHEAD_MAX + 65_536
"""Positions between the floor and what has been looked at: a block spans so many offsets at most, and of a gap before it
no more is taken than this. So the bitmap of a checkpoint has no more bits."""
READY_MAX = 1_024
"""Events looked at and not yet delivered; with fewer, one more block is looked at."""
SET_ASIDE_MAX = 10_000
"""Set-aside events of one subscription. When reached, delivery pauses until some are released: none is dropped."""
STALL_NS = 250_000_000
"""As long as lanes move, no more than READY_MAX events are held in them, but for those of one block. When nothing was
delivered for so long though something could be, it is four times as many, up to LOOK_AHEAD_MAX: other keys may be free
further on."""
STALL_OVER_NS = 1_000_000_000
"""When lanes have moved for so long, it is a fourth of that again."""
STUCK_NS = 60_000_000_000
"""A lane in which one event has been out for so long, while others wait for it, is parked."""
STUCK_LOOK_NS = 10_000_000_000
"""Between two looks for such lanes."""
PARKED_MAX = 1_000
"""Parked lanes of one subscription. When reached, it looks no further ahead than LOOK_AHEAD_MAX until some go on."""
READMIT_MAX = 256
"""Events of a parked lane that are taken into memory at a time, but for those of one block."""
HELD_MAX = 20_000
"""Events of one subscription that are open or set aside: whatever is said of each, a checkpoint holds all. When
reached, nothing new is delivered until some are done or released."""
RESERVE_MIN = 1_000
RESERVE_MAX = 100_000
"""By how many offsets a checkpoint's delivered_to runs ahead of what is delivered."""
SCANNED_UNSAVED_MAX = 10_000
"""Positions that may go by without a matching event before the floor is written once more."""

assert READY_MAX <= LOOK_AHEAD_MAX
assert SET_ASIDE_MAX < HELD_MAX
assert RESERVE_MIN <= RESERVE_MAX
