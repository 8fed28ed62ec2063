"""What a subscription has done, as values: the content of its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class OpenDelivery(NamedTuple):
    """An event whose count of attempts is not 1, or that is put off, or that was released from the set-aside list.

    An offset below the checkpoint's floor is one that was released.
    """

    offset: int
    attempts: int
    not_before_ns: int
    """Nanoseconds since the epoch; 0 for at once."""


class SetAside(NamedTuple):
    """An event that is delivered no more until somebody releases it."""

    offset: int
    attempts: int
    reason: str
    time_ns: int
    """When it was set aside, in nanoseconds since the epoch."""


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

    @property
    def end(self) -> int:
        """Above every offset of which something is said."""
        furthest = max((entry.offset + 1 for entry in self.open), default=0)
        return max(self.delivered_to, self.floor + 8 * len(self.done), furthest)

    def is_done(self, offset: int) -> bool:
        """Whether the offset needs no delivery."""
        place = offset - self.floor
        if place < 0:
            return True
        return place < len(self.done) * 8 and bool(self.done[place >> 3] >> (place & 7) & 1)

    def moved_to(self, incarnation: int, first_offset: int) -> Progress:
        """The same for a stream whose incarnation changed and whose new history begins at `first_offset`.

        Records below it are those that were there before, so what was done of them stays done; from it on nothing is.
        """
        bits = int.from_bytes(self.done, "little") & ((1 << max(0, first_offset - self.floor)) - 1)
        return Progress(
            incarnation=incarnation,
            floor=min(self.floor, first_offset),
            done=_bytes(bits),
            delivered_to=min(self.delivered_to, first_offset),
            open=tuple(entry for entry in self.open if entry.offset < first_offset),
            set_aside=tuple(entry for entry in self.set_aside if entry.offset < first_offset),
        )


def bitmap(size: int, missing: Iterable[int], *, behind: Progress | None = None, floor: int = 0) -> bytes:
    """`size` bits that are set, but for those at the places `missing`; then what `behind` says from there on.

    `floor` is the offset of the first bit. Zero bytes at the end are left out.
    """
    bits = bytearray(b"\xff") * (size >> 3)
    if size & 7:
        bits.append((1 << (size & 7)) - 1)
    for place in missing:
        bits[place >> 3] &= ~(1 << (place & 7)) & 0xFF
    if behind is None:
        return bytes(bits.rstrip(b"\0"))
    rest = int.from_bytes(behind.done, "little") >> (floor + size - behind.floor)
    return _bytes(int.from_bytes(bits, "little") | rest << size)


def _bytes(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
