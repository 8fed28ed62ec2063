"""What is due at a time, and when to look again: no clock, no chance, no I/O.

Times are milliseconds of the wall clock. A schedule's own times are compared with how far it has come, which only grows: a
clock that is set back makes it wait, and one that is set forward makes it late.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from trunkline.core.errors import InvalidArgument

from .fold import Fired, ScheduleEntity
from .rule import Times

SLACK = 64
"""Entries of deleted schedules that the heap may hold beside as many as there are schedules."""
ATTEMPTED_MAX = 1_000
"""Times of one schedule that may have been published and are looked for: the last ones."""


class Pace(NamedTuple):
    """See SchedulesConfig; in milliseconds."""

    misfire_after_ms: int
    remember_ms: int
    retry_ms_max: int
    retry_ms_min: int = 100


class Live:
    """One schedule at work: further than what control remembers of it, by what was published since."""

    __slots__ = (
        "_pace", "_remembered_count", "_remembered_ms", "_times", "attempted_ms", "entity", "failures", "fired",
        "is_gone", "last_error", "look_ms", "next_ms", "owes",
    )  # fmt: skip

    def __init__(self, entity: ScheduleEntity, pace: Pace, *, attempted_ms: int) -> None:
        """`attempted_ms`: events of times up to this one may have been published, though control does not say so."""
        self.entity = entity
        self.fired = entity.fired
        self.attempted_ms = attempted_ms
        self.failures = 0
        """In a row."""
        self.last_error = ""
        self.is_gone = False
        """It was deleted."""
        self.owes = False
        """Control has to be told of it."""
        self.next_ms: int | None = None
        """Its first time that is not handled; None when there is none any more."""
        self.look_ms: int | None = None
        """When it is due: `next_ms`, or the next attempt if that is later."""
        self._pace = pace
        self._remembered_ms: int | None = None
        self._remembered_count = entity.fired.count
        self._times: Times | None = None
        try:
            self._times = entity.spec.times(entity.created_ms)
        except InvalidArgument as error:  # made by a program that knew other zones: it waits for one that does
            self.last_error = str(error)
        self._move()

    @property
    def is_finished(self) -> bool:
        """Nothing is left to publish."""
        return self.next_ms is None and self._times is not None

    def attempted(self) -> list[int]:
        """Times that are not handled and whose events may be in the stream nevertheless."""
        if self._times is None or self.attempted_ms <= self.fired.handled_ms:
            return []
        return self._times.between(self.fired.handled_ms, self.attempted_ms, limit=ATTEMPTED_MAX)

    def found(self, offsets: dict[int, int]) -> None:
        """Which of the attempted times have an event, and where."""
        self.attempted_ms = 0
        if offsets:
            self.failures, self.last_error = 0, ""
        for due_ms, offset in sorted(offsets.items()):
            self._handle(due_ms, offset)

    def choose(self, now_ms: int) -> int | None:
        """The time to publish now; None when there is none. What went by before it is passed over."""
        if self._times is None or self.is_finished:
            return None
        due_ms = self._times.latest(self.fired.handled_ms, now_ms)
        if due_ms is not None and self.entity.spec.skips and now_ms - due_ms > self._pace.misfire_after_ms:
            self._handle(due_ms, None)
            return None
        return due_ms

    def published(self, due_ms: int, offset: int) -> None:
        """The event of a time is in the stream."""
        self.attempted_ms = self.failures = 0
        self.last_error = ""
        self._handle(due_ms, offset)

    def failed(self, error: str, now_ms: int) -> None:
        """It could not be published, or that is not known: try again after a pause that grows."""
        self.last_error = error
        pause_ms = min(self._pace.retry_ms_max, self._pace.retry_ms_min << min(self.failures, 20))
        self.failures += 1
        if self.next_ms is not None:
            self.look_ms = max(self.next_ms, now_ms + pause_ms)

    def remember(self, now_ms: int) -> bool:
        """Whether control has to be told now: of the end, and of what was published, but not too often."""
        if self.is_finished:
            self.owes = True
        elif self.fired.count != self._remembered_count:
            last_ms = self._remembered_ms
            if last_ms is None or not 0 <= now_ms - last_ms < self._pace.remember_ms:
                self.owes = True
        return self.owes

    def remembered(self, fired: Fired, now_ms: int) -> None:
        """Control was told that it had come so far."""
        self.owes = False
        self._remembered_ms, self._remembered_count = now_ms, fired.count

    def _handle(self, due_ms: int, offset: int | None) -> None:
        """A time is done, with an event at `offset` or without one; those before it are passed over."""
        assert due_ms > self.fired.handled_ms
        if offset is None:
            self.fired = replace(self.fired, handled_ms=due_ms)
        else:
            self.fired = Fired(handled_ms=due_ms, fired_ms=due_ms, offset=offset, count=self.fired.count + 1)
        self._move()

    def _move(self) -> None:
        limit = self.entity.spec.max_count
        is_over = self._times is None or 0 < limit <= self.fired.count
        self.next_ms = None if is_over or self._times is None else self._times.after(self.fired.handled_ms)
        self.look_ms = self.next_ms


class Planner:
    """Every schedule by key, and a heap of when each is due. What was taken is not looked at before it is put back."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._lives: dict[str, Live] = {}
        self._heap: list[tuple[int, int, Live]] = []
        self._entered = 0

    def __len__(self) -> int:
        return len(self._lives)

    def get(self, key: str) -> Live | None:
        """The schedule of a key."""
        return self._lives.get(key)

    def lives(self) -> list[Live]:
        """Every schedule."""
        return list(self._lives.values())

    def add(self, entity: ScheduleEntity, *, attempted_ms: int = 0) -> Live:
        """A schedule was made, or is gone on with. See Live."""
        self.remove(entity.key)
        live = self._lives[entity.key] = Live(entity, self._pace, attempted_ms=attempted_ms)
        self.put_back(live)
        return live

    def remove(self, key: str) -> Live | None:
        """A schedule was deleted; returns what it was."""
        live = self._lives.pop(key, None)
        if live is not None:
            live.is_gone = True
        if len(self._heap) > 2 * len(self._lives) + SLACK:
            self._heap = [entry for entry in self._heap if not entry[2].is_gone]
            heapify(self._heap)
        return live

    def first_ms(self) -> int | None:
        """When the next one is due; None when none will be."""
        while self._heap and self._heap[0][2].is_gone:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ms: int, *, limit: int) -> list[Live]:
        """Those that are due, at most `limit`, the longest due first."""
        taken: list[Live] = []
        while len(taken) < limit and (first_ms := self.first_ms()) is not None and first_ms <= now_ms:
            taken.append(heappop(self._heap)[2])
        return taken

    def put_back(self, live: Live) -> None:
        """It is looked at again when it is due."""
        if not live.is_gone and live.look_ms is not None:
            self._entered += 1
            heappush(self._heap, (live.look_ms, self._entered, live))
