"""What a subscription has done, as values: the content of its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from trunkline.core.bitmap import all_but, only


class OpenDelivery(NamedTuple):
    """An event whose count of attempts is not 1, or that is put off, or that was released from the set-aside list.

    An offset below the checkpoint's floor is one that was released.
    """

    offset: int
    attempts: int
    not_before_ns: int
    """Nanoseconds since the epoch; 0 for at once."""
    key: int = 0
    """The lane of one that was released: it is not looked at again."""
    again_ms: int = 0
    """See Entry."""


class SetAside(NamedTuple):
    """An event that is delivered no more until somebody releases it."""

    offset: int
    attempts: int
    reason: str
    time_ns: int
    """When it was set aside, in nanoseconds since the epoch."""
    key: int = 0
    """The lane it stood in."""
    again_ms: int = 0
    """See Entry."""


class ParkedLane(NamedTuple):
    """A key whose events are passed over."""

    key: int
    from_offset: int
    tried_below: int
    """What of it lies below this may have been delivered once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What survives of a subscription. Every offset below `floor` is done, apart from those in `open`."""

    incarnation: int
    floor: int
    done: bytes = b""
    """Bit i of byte b: offset floor + 8 b + i is done."""
    delivered_to: int
    """Nothing at or above this was ever delivered. What is below it and not done counts as tried once, unless it stands
    in `open`."""
    open: tuple[OpenDelivery, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    parked: tuple[ParkedLane, ...] = ()
    """Everything of these keys from an offset on is still to come, whatever is said of it otherwise."""
    latest_below: int = 0
    """Of what lies below, only the latest event of each key is to be delivered; 0 when there is no such place ahead."""
    untried: bytes = b""
    """Bit i of byte b: offset floor + 8 b + i was held in its lane and never delivered, though it lies below delivered_to.
    Said by the last checkpoint of a clean stop alone: others count what is held as tried."""

    @property
    def end(self) -> int:
        """Above every offset of which something is said."""
        furthest = max((entry.offset + 1 for entry in self.open), default=0)
        return max(self.delivered_to, self.floor + 8 * len(self.done), furthest)

    def is_done(self, offset: int) -> bool:
        """Whether the offset needs no delivery."""
        return offset < self.floor or _is_set(self.done, offset - self.floor)

    def is_untried(self, offset: int) -> bool:
        """Whether the offset was surely never delivered, wherever it lies."""
        return _is_set(self.untried, offset - self.floor)

    @property
    def first_untried(self) -> int:
        """The lowest offset of which `untried` says so; `delivered_to` if there is none."""
        bits = int.from_bytes(self.untried, "little")
        return self.floor + (bits & -bits).bit_length() - 1 if bits else self.delivered_to

    def moved_to(self, incarnation: int, first_offset: int) -> Progress:
        """The same for a stream whose incarnation changed and whose new history begins at `first_offset`.

        Records below it are those that were there before, so what was done of them stays done; from it on nothing is.
        """
        kept = (1 << max(0, first_offset - self.floor)) - 1
        return Progress(
            incarnation=incarnation,
            floor=min(self.floor, first_offset),
            done=_bytes(int.from_bytes(self.done, "little") & kept),
            untried=_bytes(int.from_bytes(self.untried, "little") & kept),
            delivered_to=min(self.delivered_to, first_offset),
            latest_below=min(self.latest_below, first_offset),
            open=tuple(entry for entry in self.open if entry.offset < first_offset),
            set_aside=tuple(entry for entry in self.set_aside if entry.offset < first_offset),
            parked=tuple(
                lane._replace(tried_below=min(lane.tried_below, first_offset))
                for lane in self.parked
                if lane.from_offset < first_offset
            ),
        )


def done_bitmap(floor: int, end: int, undone: Iterable[int], *, behind: Progress | None = None) -> bytes:
    """Offsets from `floor` to below `end` but for those undone; from `end` on what `behind` says."""
    return _with_rest(all_but(floor, end, undone), floor, end, behind, b"" if behind is None else behind.done)


def untried_bitmap(floor: int, end: int, untried: Iterable[int], *, behind: Progress | None = None) -> bytes:
    """These offsets; from `end` on what `behind` says."""
    return _with_rest(only(floor, end, untried), floor, end, behind, b"" if behind is None else behind.untried)


def _with_rest(bits: bytes, floor: int, end: int, behind: Progress | None, said: bytes) -> bytes:
    if behind is None:
        return bits
    rest = int.from_bytes(said, "little") >> (end - behind.floor)
    return _bytes(int.from_bytes(bits, "little") | rest << (end - floor))


def _is_set(bits: bytes, place: int) -> bool:
    return 0 <= place < len(bits) * 8 and bool(bits[place >> 3] >> (place & 7) & 1)


def _bytes(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
