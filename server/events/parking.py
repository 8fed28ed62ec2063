"""Parks what keeps a subscription from looking further, and takes it in again: see Lanes."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from .delivery import Entry
from .lanes import Lanes
from .order import NO_KEY, Ordering
from .places import Places
from .progress import ParkedLane


class ParkedPlaces(Places):
    """Places whose lanes are parked when they are stuck. A parked event is nowhere but in the stream."""

    def make_way(self) -> None:
        """Let the floor pass what is stuck, and let go of what is held, if that keeps the subscription from looking further."""
        while self.is_stretched:
            found = self._order.detach()
            if found is None:
                break
            self._let_go(*found)
        # What was readmitted lies below the floor, which says nothing of it.
        while self.held >= self.limits.look_ahead.look_ahead_max and isinstance(self._order, Lanes):
            found = self._order.park_longest()
            if found is None:
                break
            self._let_go(*found)

    def park_stuck(self, now_ns: int) -> None:
        """Park lanes that have been stuck for too long; looks every `stuck_look_ns`."""
        if now_ns < self._stuck_look_ns or not isinstance(self._order, Lanes):
            return
        self._stuck_look_ns = now_ns + self.limits.look_ahead.stuck_look_ns
        for key, offsets in self._order.park_stuck(now_ns, self.limits.look_ahead.stuck_ns):
            self._let_go(key, offsets)

    def _let_go(self, key: int, offsets: Sequence[int]) -> None:
        self._changes += 1
        self._held_max = self.limits.look_ahead.ready_max  # what had stopped is out of the way
        if self._recovered is not None and key in self._order.parked:
            # What lies further on has not been looked at since the restart.
            self._tried_below[key] = max(self._tried_below.get(key, 0), self._recovered.tried_below)
        for offset in offsets:
            entry = self._held_back.pop(offset, None)
            if entry is not None:
                self._keep_parked(entry, key)

    def wanted_lanes(self) -> list[tuple[int, int]]:
        """Parked keys with nothing out, each with the offset from which on to read: give what is found to `readmit`."""
        order = self._order
        if not isinstance(order, Lanes) or not order.wanted:
            return []
        for key in [key for key in order.wanted if order.parked[key] >= self.next_offset]:
            self._unpark(order, key)
        return [(key, order.parked[key]) for key in order.wanted if order.parked[key] < self.next_offset]

    def readmit(self, key: int, offsets: Sequence[int], scanned_to: int, *, time_ns: int) -> None:
        """A wanted key's events from its offset up to `scanned_to`, which is at most what has been looked at."""
        order = self._order
        assert isinstance(order, Lanes)
        assert scanned_to <= self.next_offset
        taken = []
        for offset in offsets:
            entry = self._parked_entries.pop(offset, (None, NO_KEY))[0]
            if offset in self.set_aside:
                continue
            if entry is None and offset < self._tried_below.get(key, 0):
                entry = Entry(offset, 1, 1)
            if entry is not None and entry.attempts >= self.limits.max_deliveries:
                why = f"delivered {entry.attempts} times; at last it may have been tried"
                self._put_aside(entry, why, time_ns, key)
                continue
            taken.append(offset)
            if entry is not None:
                self._held_back[offset] = entry
        out = order.readmit(key, taken, scanned_to)
        if scanned_to == self.next_offset:
            self._unpark(order, key)
        self._changes += 1
        if out is not None:
            self._go_out(out, self._held_back.pop(out, None), released=True)

    def following(self) -> list[int]:
        """Events of parked lanes that were taken in again and come next: a checkpoint has to count them, some at a time."""
        ahead = self.limits.look_ahead
        limit = ahead.ready_max - len(self._held_back)  # a checkpoint names each
        if not isinstance(self._order, Lanes) or limit <= 0:
            return []
        return self._order.following(ahead.count_ahead_min, limit, told=self._held_back)

    def count_following(self, counted: Mapping[int, int]) -> None:
        """A checkpoint that counts these attempts is durable: those that are still held wait for nothing but their turn."""
        order = self._order
        if not isinstance(order, Lanes) or not order.has_readmitted:
            return
        for offset, attempts in counted.items():
            if offset not in self._open and offset not in self._held_back and order.is_readmitted(offset):
                self._held_back[offset] = Entry(offset, 0, attempts)

    def _unpark(self, order: Lanes, key: int) -> None:
        """Unless what was looked at before a restart has not all been looked at again: a checkpoint counts it as done."""
        if self._recovered is None:
            order.unpark(key)
            self._tried_below.pop(key, None)
            if self._parked_entries:  # what is left there was removed by compaction
                left = [offset for offset, (_, of_key) in self._parked_entries.items() if of_key == key]
                for offset in left:
                    del self._parked_entries[offset]
            self._changes += 1

    @property
    def parked(self) -> int:
        """Lanes that are parked."""
        return len(self._order.parked)

    def parked_behind(self) -> list[tuple[int, int]]:
        """Events that are out of parked lanes, each with the offset from which on its lane is to be read again."""
        return self._order.parked_behind() if isinstance(self._order, Lanes) else []

    @property
    def looks_for_stuck(self) -> bool:
        """Whether `park_stuck` has to look."""
        return self.held > 0 and self.limits.ordering is Ordering.KEYED

    def _restore_parked(self, parked: Sequence[ParkedLane]) -> None:
        if isinstance(self._order, Lanes):
            self._order.restore({lane.key: lane.from_offset for lane in parked})
            self._tried_below = {lane.key: lane.tried_below for lane in parked if lane.tried_below}
            self._parked_before = self._told[0] = frozenset(lane.key for lane in parked)
            self._recorded = set(self._told[0])

    def _is_parked(self, key: int, entry: Entry) -> bool:
        return isinstance(self._order, Lanes) and self._order.passes_over(key, entry.offset)

    def _parked_now(self, counted: Container[int]) -> tuple[ParkedLane, ...]:
        """For a checkpoint that says of those it counts, and of what was tried, that they wait in their lane."""
        if not isinstance(self._order, Lanes):
            return ()
        tried, held = self._tried_below, self._held_back
        to_come = self._order.to_come(lambda offset: offset in held or offset in counted)
        return tuple(ParkedLane(key, start, tried.get(key, 0)) for key, start in to_come.items())
