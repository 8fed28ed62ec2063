"""In which order a subscription's events go out: all at once, one at a time, or one at a time of each key (lanes.py).

Both kinds know what was looked at and is not done, and so the floor. An event is *out* from when it may be delivered until
it is done, set aside or removed; in lanes those of its key are *held* behind it meanwhile, whatever becomes of it: its
redeliveries, its delays and its consumers.

An open event that keeps the floor back for too long may be *detached*: a checkpoint names it by itself then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

NO_KEY = 0
"""What an event without a key has; it waits for none and none for it."""
NONE_PARKED: Final[Mapping[int, int]] = MappingProxyType({})


class Ordering(IntEnum):
    """How much order a subscription keeps. Values are the contract's."""

    PARALLEL = 1
    """None: up to the limit of deliveries in flight."""
    KEYED = 2
    """One event at a time of each key; keys do not wait for one another."""
    SEQUENTIAL = 3
    """One event at a time."""


class Parked(NamedTuple):
    """A lane's key, and the events that are held no more."""

    key: int
    offsets: list[int]


class Order(Protocol):
    """What was looked at and is not done."""

    ready: deque[int]
    """Events that are out and were never delivered."""
    held: int
    """Events behind others of their key."""

    @property
    def parked(self) -> Mapping[int, int]:
        """Keys of which nothing is looked at from an offset on; see Lanes."""

    def enter(self, offset: int, key: int, *, released: bool) -> bool:
        """An event that was looked at (in ascending order), or released: whether it is out, or else held."""

    def opened(self, offset: int) -> None:
        """An event that is out, and was not released, is delivered or waits to be."""

    def leave(self, offset: int) -> int | None:
        """An event that was out is done, or aside: the one that is out in its place."""

    def key_of(self, offset: int) -> int:
        """The key of one that is not done; NO_KEY if nobody needs it."""

    def drop_below(self, first_offset: int) -> tuple[list[int], list[int]]:
        """What is not open below this offset is gone: which that is, and which are out in its place."""

    def floor(self, next_offset: int) -> int:
        """The lowest that is not done; below it only released and detached ones are. `next_offset` if all are."""

    def detach(self) -> Parked | None:
        """Let the floor pass what keeps it back, and park its lane. None if that cannot be."""

    def untold(self) -> Iterable[int]:
        """Those that are not done, but for some that are open."""

    def blocking(self) -> list[tuple[int, int]]:
        """Those that others wait for, and how many wait for each, the most first."""


class AnyOrder:
    """Every event is out as soon as it is looked at."""

    __slots__ = ("_open", "_opened", "held", "ready")

    def __init__(self, open_: Container[int]) -> None:
        """`open_` are the events that are delivered or wait to be delivered again."""
        self.ready: deque[int] = deque()
        self.held = 0
        self._open = open_
        self._opened: deque[int] = deque()

    @property
    def parked(self) -> Mapping[int, int]:
        return NONE_PARKED

    def enter(self, offset: int, key: int, *, released: bool) -> bool:
        return True

    def opened(self, offset: int) -> None:
        self._opened.append(offset)

    def leave(self, offset: int) -> int | None:
        return None

    def key_of(self, offset: int) -> int:
        return NO_KEY

    def drop_below(self, first_offset: int) -> tuple[list[int], list[int]]:
        dropped = []
        while self.ready and self.ready[0] < first_offset:
            dropped.append(self.ready.popleft())
        return dropped, []

    def floor(self, next_offset: int) -> int:
        opened = self._opened
        while opened and opened[0] not in self._open:
            opened.popleft()
        if opened:
            return opened[0]
        return self.ready[0] if self.ready else next_offset

    def detach(self) -> Parked | None:
        self.floor(0)
        if not self._opened:
            return None
        self._opened.popleft()
        return Parked(NO_KEY, [])

    def untold(self) -> Iterable[int]:
        return self.ready

    def blocking(self) -> list[tuple[int, int]]:
        return []
