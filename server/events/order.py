"""In which order a subscription's events go out: all at once, one at a time, or one at a time of each key.

Both kinds know what was looked at and is not done, and so the floor. An event is *out* from when it may be delivered until
it is done, set aside or removed; in lanes those of its key are *held* behind it meanwhile, whatever becomes of it: its
redeliveries, its delays and its consumers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from enum import IntEnum
from itertools import chain
from typing import Protocol

NO_KEY = 0
"""What an event without a key has; it waits for none and none for it."""
_ONE_LANE = 1


class Ordering(IntEnum):
    """How much order a subscription keeps. Values are the contract's."""

    PARALLEL = 1
    """None: up to the limit of deliveries in flight."""
    KEYED = 2
    """One event at a time of each key; keys do not wait for one another."""
    SEQUENTIAL = 3
    """One event at a time."""


class Order(Protocol):
    """What was looked at and is not done."""

    ready: deque[int]
    """Events that are out and were never delivered."""
    held: int
    """Events behind others of their key."""

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
        """The lowest that is not done; below it only released ones are. `next_offset` if all are."""

    def untold(self) -> Iterable[int]:
        """Those that are not open: ready or held."""

    def blocking(self) -> list[tuple[int, int]]:
        """Those that others wait for, and how many wait for each, the most first."""


def order_of(ordering: Ordering, open_: Container[int]) -> Order:
    """An empty one; `open_` are the events that are delivered or wait to be delivered again."""
    return AnyOrder(open_) if ordering is Ordering.PARALLEL else Lanes(one=ordering is Ordering.SEQUENTIAL)


class AnyOrder:
    """Every event is out as soon as it is looked at."""

    __slots__ = ("_open", "_opened", "held", "ready")

    def __init__(self, open_: Container[int]) -> None:
        self.ready: deque[int] = deque()
        self.held = 0
        self._open = open_
        self._opened: deque[int] = deque()

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

    def untold(self) -> Iterable[int]:
        return self.ready

    def blocking(self) -> list[tuple[int, int]]:
        return []


class Lanes:
    """A queue for each key that has an event out; with `one`, all have the same key."""

    __slots__ = ("_entered", "_keys", "_lanes", "_one", "held", "ready")

    def __init__(self, *, one: bool) -> None:
        self.ready: deque[int] = deque()
        self.held = 0
        self._one = one
        self._keys: dict[int, int] = {}  # of every event that is not done
        self._lanes: dict[int, deque[int]] = {}
        self._entered: deque[int] = deque()

    def enter(self, offset: int, key: int, *, released: bool) -> bool:
        key = _ONE_LANE if self._one else key
        if not released:
            self._entered.append(offset)
        self._keys[offset] = key
        if key == NO_KEY:
            return True
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque()
            return True
        lane.append(offset)
        self.held += 1
        return False

    def opened(self, offset: int) -> None:
        """It stands in its lane already."""

    def leave(self, offset: int) -> int | None:
        key = self._keys.pop(offset)
        if key == NO_KEY:
            return None
        lane = self._lanes[key]
        if lane:
            self.held -= 1
            return lane.popleft()
        del self._lanes[key]
        return None

    def key_of(self, offset: int) -> int:
        return self._keys[offset]

    def drop_below(self, first_offset: int) -> tuple[list[int], list[int]]:
        dropped = list(self._drop_held(first_offset))
        gone = [offset for offset in self.ready if offset < first_offset]
        self.ready = deque(offset for offset in self.ready if offset >= first_offset)
        following = [self.leave(offset) for offset in gone]
        return dropped + gone, [offset for offset in following if offset is not None]

    def _drop_held(self, first_offset: int) -> Iterator[int]:
        for key, lane in self._lanes.items():
            if any(offset < first_offset for offset in lane):  # not the first alone: a released one may stand last
                self._lanes[key] = deque(offset for offset in lane if offset >= first_offset)
                for offset in lane:
                    if offset < first_offset:
                        del self._keys[offset]
                        self.held -= 1
                        yield offset

    def floor(self, next_offset: int) -> int:
        entered = self._entered
        while entered and entered[0] not in self._keys:
            entered.popleft()
        return entered[0] if entered else next_offset

    def untold(self) -> Iterable[int]:
        return chain(self.ready, *self._lanes.values())

    def blocking(self) -> list[tuple[int, int]]:
        held = set(chain(*self._lanes.values()))
        out = [(offset, key) for offset, key in self._keys.items() if key != NO_KEY and offset not in held]
        return sorted(
            ((offset, len(lane)) for offset, key in out if (lane := self._lanes[key])),
            key=lambda one: (-one[1], one[0]),
        )
