"""Lanes: a queue for each key that has an event out, which stands first in it.

A lane that is stuck is *parked*: the events behind its first are let go, and one number, the offset of the first of them, says
that everything of this key from there on is still to come. What is looked at of the key meanwhile is passed over. When the
lane is empty it is *wanted*: its events are read again and readmitted, some at a time, until it has caught up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from .order import NO_KEY, Parked

ONE_LANE = 1


class Lanes:
    """See Order. With `one`, all events have the same key, and nothing is parked: others could not go on."""

    __slots__ = (
        "_entered",
        "_keys",
        "_lanes",
        "_loose",
        "_one",
        "_open",
        "_parked",
        "_parked_max",
        "_readmitted",
        "_released",
        "_watched",
        "held",
        "ready",
        "wanted",
    )

    def __init__(self, open_: Container[int], *, one: bool, parked_max: int) -> None:
        """`open_` are the events that are delivered or wait to be delivered again."""
        self.ready: deque[int] = deque()
        self.held = 0
        self.wanted: set[int] = set()
        """Keys that are parked and have nothing out."""
        self._one = one
        self._open = open_
        self._keys: dict[int, int] = {}  # of every event that is not done
        self._lanes: dict[int, deque[int]] = {}
        self._entered: deque[int] = deque()
        self._loose: set[int] = set()  # that keep the floor back no more, though they may stand in _entered
        self._released: set[int] = set()
        self._readmitted: set[int] = set()
        self._parked: dict[int, int] = {}
        self._parked_max = parked_max
        self._watched: dict[int, tuple[int, int]] = {}  # by key: what was out at the last look, and since when

    @property
    def parked(self) -> Mapping[int, int]:
        """By key the offset from which on nothing of it is in memory."""
        return self._parked

    def enter(self, offset: int, key: int, *, released: bool) -> bool:
        key = ONE_LANE if self._one else key
        if released:
            self._released.add(offset)
        else:
            self._entered.append(offset)
        self._keys[offset] = key
        return key == NO_KEY or self._join(key, offset)

    def _join(self, key: int, offset: int) -> bool:
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque((offset,))
            self.wanted.discard(key)
            return True
        lane.append(offset)
        self.held += 1
        return False

    def opened(self, offset: int) -> None:
        """It stands in its lane already."""

    def leave(self, offset: int) -> int | None:
        key = self._keys.pop(offset)
        self._released.discard(offset)
        self._readmitted.discard(offset)
        self._loose.discard(offset)
        if key == NO_KEY:
            return None
        lane = self._lanes[key]
        lane.popleft()
        if lane:
            self.held -= 1
            return lane[0]
        del self._lanes[key]
        if key in self._parked:
            self.wanted.add(key)
        return None

    def key_of(self, offset: int) -> int:
        return self._keys[offset]

    def drop_below(self, first_offset: int) -> tuple[list[int], list[int]]:
        dropped = list(self._drop_held(first_offset))
        gone = [offset for offset in self.ready if offset < first_offset]
        self.ready = deque(offset for offset in self.ready if offset >= first_offset)
        following = [self.leave(offset) for offset in gone]
        for key, offset in self._parked.items():
            self._parked[key] = max(offset, first_offset)
        return dropped + gone, [offset for offset in following if offset is not None]

    def _drop_held(self, first_offset: int) -> Iterator[int]:
        for key, lane in self._lanes.items():
            behind = list(islice(lane, 1, None))
            if any(offset < first_offset for offset in behind):  # not the first alone: a released one may stand last
                self._lanes[key] = deque([lane[0], *(offset for offset in behind if offset >= first_offset)])
                for offset in behind:
                    if offset < first_offset:
                        self._forget(offset)
                        yield offset

    def _forget(self, offset: int) -> None:
        del self._keys[offset]
        self._released.discard(offset)
        self._readmitted.discard(offset)
        self.held -= 1

    def floor(self, next_offset: int) -> int:
        entered, loose = self._entered, self._loose
        while entered and (entered[0] not in self._keys or entered[0] in loose):
            loose.discard(entered.popleft())
        return entered[0] if entered else next_offset

    def untold(self) -> Iterable[int]:
        return chain(self.ready, *self._lanes.values())

    def blocking(self) -> list[tuple[int, int]]:
        found = [(lane[0], len(lane) - 1) for lane in self._lanes.values() if len(lane) > 1]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    # Parking.

    def detach(self) -> Parked | None:
        self.floor(0)
        if not self._entered or self._one:
            return None
        key = self._keys[self._entered[0]]
        if key != NO_KEY:
            return self._park(key)
        if self._entered[0] not in self._open:
            return None
        self._loose.add(self._entered[0])
        return Parked(NO_KEY, [])

    def park_longest(self) -> Parked | None:
        """Park the lane that holds the most, so that something is let go of. None if that cannot be."""
        by_length = sorted(self._lanes, key=lambda key: len(self._lanes[key]), reverse=True)
        for key in () if self._one else by_length:
            behind = islice(self._lanes[key], 1, None)
            if any(offset not in self._released for offset in behind) and (found := self._park(key)) is not None:
                return found
        return None

    def park_stuck(self, now_ns: int, stuck_ns: int) -> list[Parked]:
        """Park lanes in which the same event has been out for so long, as far as looks like this one saw it."""
        watched, self._watched = self._watched, {}
        parked: list[Parked] = []
        for key, lane in list(self._lanes.items()):
            if len(lane) > 1 and not self._one:
                first, since_ns = watched.get(key, (-1, now_ns))
                since_ns = since_ns if first == lane[0] else now_ns
                self._watched[key] = lane[0], since_ns
                if now_ns - since_ns >= stuck_ns and (found := self._park(key)) is not None:
                    parked.append(found)
        return parked

    def _park(self, key: int) -> Parked | None:
        """Let go of what a lane holds, but for what was released; None if that cannot be."""
        lane = self._lanes[key]
        if lane[0] not in self._open or (len(self._parked) >= self._parked_max and key not in self._parked):
            return None
        let_go = [offset for offset in islice(lane, 1, None) if offset not in self._released]
        if let_go:
            lane = self._lanes[key] = deque(o for o in lane if o == lane[0] or o in self._released)
            self._parked[key] = min(let_go)
            for offset in let_go:
                self._forget(offset)
        self._loose.update(lane)
        return Parked(key, let_go)

    def restore(self, parked: Mapping[int, int]) -> None:
        """Go on with what a checkpoint says is parked."""
        self._parked = dict(parked)
        self.wanted = set(parked)

    def passes_over(self, key: int, offset: int) -> bool:
        """Whether the event is parked with its lane."""
        start = self._parked.get(key)
        return start is not None and offset >= start

    def readmit(self, key: int, offsets: Sequence[int], scanned_to: int) -> int | None:
        """Events of a wanted key, read again up to `scanned_to`: which is out now."""
        self._parked[key] = scanned_to
        out = None
        for offset in offsets:
            self._keys[offset] = key
            self._readmitted.add(offset)
            if self._join(key, offset):
                out = offset
        return out

    def unpark(self, key: int) -> None:
        """It has caught up with what was looked at."""
        del self._parked[key]
        self.wanted.discard(key)

    def parked_behind(self) -> list[tuple[int, int]]:
        """What is out of parked lanes, each with the offset from which on its key is parked."""
        return sorted((self._lanes[key][0], start) for key, start in self._parked.items() if key in self._lanes)

    def is_readmitted(self, offset: int) -> bool:
        """Whether it came by `readmit`."""
        return offset in self._readmitted

    @property
    def has_readmitted(self) -> bool:
        """Whether anything that came by `readmit` is not done."""
        return bool(self._readmitted)

    def following(self, lane_max: int, limit: int, *, told: Container[int]) -> list[int]:
        """What is among the next `lane_max` of a lane that was readmitted and was not told; no more than `limit`."""
        found: list[int] = []
        for _, behind in self._readmitted_behind():
            of_lane = [offset for offset in islice(behind, lane_max) if offset not in told]
            found += of_lane[: max(0, limit - len(found))]
        return found

    def to_come(self, is_told: Callable[[int], bool]) -> dict[int, int]:
        """By key the offset from which on all that is not out is to be read again after a restart: the first not told."""
        found = dict(self._parked)
        for key, behind in self._readmitted_behind():
            first = next((offset for offset in behind if not is_told(offset)), None)
            if first is not None:
                found[key] = first
        return found

    def _readmitted_behind(self) -> Iterator[tuple[int, Iterator[int]]]:
        """By key what came by `readmit` and is not out, as it will come."""
        for key in {self._keys[offset] for offset in self._readmitted}:
            yield key, (offset for offset in islice(self._lanes[key], 1, None) if offset in self._readmitted)
