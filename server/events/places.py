"""Where every event of a subscription is, from when it was looked at until it is done.

Held (behind another of its lane), ready (never delivered), open (in flight, or waiting to be delivered again), set aside: in
exactly one of them. No consumers, no checkpoints: `SubscriptionState` adds those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from trunkline.core.errors import LimitExceeded

from . import bounds
from .deadlines import Deadlines
from .delivery import NEVER, Counts, Entry, Limits
from .lanes import Lanes
from .order import NO_KEY, AnyOrder, Order, Ordering
from .progress import SetAside
from .recovered import Recovered
from .waiting import Waiting


class Places:
    """See the module. `time_ns` is since the epoch, all other times are monotonic."""

    def __init__(self, limits: Limits, position: int) -> None:
        """Of a new subscription whose first event is at `position` or later."""
        self.limits = limits
        self.next_offset = position
        """Everything below has been looked at."""
        self.delivered_to = position
        """Above every offset that was delivered."""
        self.counts = Counts()
        self.set_aside: dict[int, SetAside] = {}
        self.in_flight = 0
        """Deliveries that stand open."""
        self._open: dict[int, Entry] = {}
        self._held_back: dict[int, Entry] = {}
        """Of those that are held: what was tried before a restart."""
        self._order = self._new_order()
        self._parked_entries: dict[int, tuple[Entry, int]] = {}
        """Of events that are parked with their lane: what was tried more than once before a restart, and the key."""
        self._tried_below: dict[int, int] = {}
        """By key: what of it is parked and lies below this may have been delivered once."""
        self._told: dict[int, frozenset[int]] = {}
        """The keys that checkpoints say are parked: of the last durable one, and those that may be by now."""
        self._recorded: set[int] = set()
        """All of them: of their events no attempt is counted ahead."""
        self._parked_before: frozenset[int] = frozenset()
        """Keys that the checkpoint says are parked from which it was recovered."""
        self._stuck_look_ns = 0
        self._held_max = self.limits.look_ahead.ready_max
        self._held_max_ns = 0
        """When that was changed."""
        self._moved_ns = 0
        self._deadlines = Deadlines()
        self._waiting = Waiting(self._open)
        self._recovered: Recovered | None = None
        self._changes = 0

    def _new_order(self) -> Order:
        ordering = self.limits.ordering
        if ordering is Ordering.PARALLEL:
            return AnyOrder(self._open)
        parked_max = self.limits.look_ahead.parked_max
        return Lanes(self._open, one=ordering is Ordering.SEQUENTIAL, parked_max=parked_max)

    @property
    def floor(self) -> int:
        """Everything below is done, apart from what was released from the set-aside list."""
        return self._order.floor(self.next_offset)

    @property
    def waiting(self) -> int:
        """Events that wait to be delivered again."""
        return len(self._open) - self.in_flight + len(self._held_back)

    @property
    def ready(self) -> int:
        """Events that were looked at and never delivered."""
        return len(self._order.ready) + self.held - len(self._held_back)

    @property
    def held(self) -> int:
        """Events behind others of their lane."""
        return self._order.held

    @property
    def ready_now(self) -> int:
        """Those among them that could be delivered."""
        return len(self._order.ready)

    @property
    def is_idle(self) -> bool:
        """Whether of what was looked at nothing is to be delivered, now or later, but what is in flight."""
        order = self._order
        return not (order.ready or order.held or self._waiting or order.parked)

    def blocking(self) -> list[tuple[int, int]]:
        """Events that others of their lane wait for, and how many wait for each, the most first."""
        return self._order.blocking()

    def entry_at(self, offset: int) -> Entry | None:
        """Of an event that was delivered and is not done."""
        return self._open.get(offset)

    def next_redelivery_ns(self) -> int:
        """When the first that waits may be delivered again; NEVER if none waits for a time."""
        return self._waiting.first_ns()

    # Events.

    def wants(self) -> bool:
        """Whether to look at more of the stream. One lane needs no more than a few; among many, others may be free."""
        known = self.ready if self.limits.ordering is Ordering.SEQUENTIAL else len(self._order.ready)
        if known >= self.limits.look_ahead.ready_max or self.is_stretched:
            return False
        return self.limits.ordering is not Ordering.KEYED or self.held < self._held_max

    @property
    def is_stretched(self) -> bool:
        """Whether it looks no further because of how far it has looked: `make_way` may help when something was delivered."""
        looked_to = self.next_offset
        return looked_to - self._order.floor(looked_to) >= self.limits.look_ahead.look_ahead_max

    def reach(self, following: int) -> int:
        """Up to where may be looked when the next event lies at `following`."""
        floor = self.floor
        return (following if floor == self.next_offset else floor) + self.limits.look_ahead.reach_max

    def skip_to(self, following: int, *, time_ns: int) -> None:
        """Nothing is taken before this offset."""
        target = min(following, self.reach(following))
        if target > self.next_offset:
            self.offer((), target, time_ns=time_ns)

    def look_further(self, now_ns: int) -> None:
        """Let more be held, if nothing was delivered for too long."""
        if not self._moved_ns:
            self._moved_ns = now_ns
        elif self._stalls_ns() <= now_ns:
            self._held_max = min(4 * self._held_max, self.limits.look_ahead.look_ahead_max)
            self._moved_ns = self._held_max_ns = now_ns

    def _moved(self, now_ns: int) -> None:
        """Something was delivered."""
        self._moved_ns = now_ns
        ahead = self.limits.look_ahead
        if self._held_max > ahead.ready_max and now_ns - self._held_max_ns >= ahead.stall_over_ns:
            self._held_max = max(self._held_max // 4, ahead.ready_max)
            self._held_max_ns = now_ns

    def _stalls_ns(self) -> int:
        """When to look further if nothing is delivered until then; NEVER if that is not what it waits for."""
        ahead = self.limits.look_ahead
        waits = self.limits.ordering is Ordering.KEYED and self._held_max <= self.held < ahead.look_ahead_max
        return self._moved_ns + ahead.stall_ns if waits else NEVER

    def offer(
        self, offsets: Sequence[int], scanned_to: int, *, time_ns: int, keys: Iterable[int] = repeat(NO_KEY)
    ) -> None:
        """The matching offsets among [next_offset, scanned_to), ascending; `keys` of each, where they keep an order."""
        assert scanned_to >= self.next_offset
        recovered = self._recovered
        if recovered is None and self.limits.ordering is Ordering.PARALLEL:
            self._order.ready.extend(offsets)
        else:
            parked = self._order.parked
            for offset, key in zip(offsets, keys, strict=False):
                if parked and offset >= parked.get(key, NEVER):
                    self._pass_over(offset, key)
                elif recovered is None or recovered.is_new(offset):
                    self._enter(offset, None, key, time_ns)
                elif (entry := recovered.take(offset)) is not None:
                    self._enter(offset, entry, key, time_ns)
            if recovered is not None and scanned_to >= recovered.end:
                self._recovered = None
        self.next_offset = scanned_to

    def _pass_over(self, offset: int, key: int) -> None:
        """One that is parked with its lane: what a checkpoint says of it is kept."""
        recovered = self._recovered
        if recovered is None:
            return
        # Of a lane that the checkpoint says is parked nothing was delivered that it does not name.
        named = key in self._parked_before or recovered.is_new(offset)
        entry = recovered.take_said(offset) if named else recovered.take(offset)
        if entry is not None and named:
            self._parked_entries[offset] = entry, key
        elif entry is not None:
            self._keep_parked(entry, key)

    def _keep_parked(self, entry: Entry, key: int) -> None:
        """Of a lane those that were tried come first, so that a number tells them from the others."""
        if entry.attempts > 1 or entry.not_before_ns or entry.again_ms:
            self._parked_entries[entry.offset] = entry, key
        elif entry.attempts:
            self._tried_below[key] = max(self._tried_below.get(key, 0), entry.offset + 1)

    def _enter(self, offset: int, entry: Entry | None, key: int, time_ns: int, *, released: bool = False) -> None:
        """One that was looked at, or released; the entry is of one that was tried."""
        if entry is not None and entry.attempts >= self.limits.max_deliveries:
            self._put_aside(entry, f"delivered {entry.attempts} times; at last it may have been tried", time_ns, key)
        elif self._order.enter(offset, key, released=released):
            self._go_out(offset, entry, released=released)
        elif entry is not None:
            self._held_back[offset] = entry

    def _go_out(self, offset: int, entry: Entry | None, *, released: bool = False) -> None:
        if entry is None and not self._is_counted_late(offset):
            self._order.ready.append(offset)
            return
        if entry is None:
            entry, released = Entry(offset, 0, 0), True
        if not released:
            self._order.opened(offset)
        self._open[offset] = entry
        self._waiting.push(entry, entry.not_before_ns)

    def _is_counted_late(self, offset: int) -> bool:
        """Whether a restart would read it again with its lane: then a checkpoint has to name it before it is delivered."""
        order = self._order
        if not isinstance(order, Lanes):
            return False
        return order.is_readmitted(offset) or (bool(self._recorded) and order.key_of(offset) in self._recorded)

    def truncate(self, first_offset: int) -> bool:
        """Retention removed what lies below `first_offset`. True if something was missed."""
        missed = max(0, first_offset - self.next_offset)
        missed += sum(offset < first_offset for offset in self._order.parked.values())
        for offset in [offset for offset in self._parked_entries if offset < first_offset]:
            del self._parked_entries[offset]
        dropped, following = self._order.drop_below(first_offset)
        missed += len(dropped)
        for offset in dropped:
            self._held_back.pop(offset, None)
        for offset in following:
            self._go_out(offset, self._held_back.pop(offset, None))
        for entry in [entry for entry in self._open.values() if entry.offset < first_offset]:
            self._close(entry)
            missed += 1
        self.next_offset = max(self.next_offset, first_offset)
        self.delivered_to = max(self.delivered_to, first_offset)
        self.counts.missed += missed
        self._changes += missed > 0
        return missed > 0

    def _land(self, entry: Entry) -> None:
        self.in_flight -= entry.in_flight
        entry.in_flight = entry.lapsed = False

    def _close(self, entry: Entry) -> None:
        self._land(entry)
        del self._open[entry.offset]
        if self._waiting.uncounted:
            self._waiting.forget(entry.offset)
        following = self._order.leave(entry.offset)
        if following is not None:
            self._go_out(following, self._held_back.pop(following, None))

    def _wait(self, entry: Entry, not_before_ns: int, time_ns: int, why: str) -> None:
        """Deliver again at `not_before_ns`, or set aside if that has been done often enough."""
        if entry.attempts >= self.limits.max_deliveries:
            self._set_aside(entry, f"delivered {entry.attempts} times; at last {why}", time_ns)
            return
        self._waiting.push(entry, not_before_ns)

    def _set_aside(self, entry: Entry, reason: str, time_ns: int) -> None:
        key = self._order.key_of(entry.offset)
        self._close(entry)
        self._put_aside(entry, reason, time_ns, key)

    def _put_aside(self, entry: Entry, reason: str, time_ns: int, key: int) -> None:
        self.set_aside[entry.offset] = SetAside(entry.offset, entry.attempts, reason, time_ns, key, entry.again_ms)
        self.counts.set_aside += 1
        self._changes += 1

    def release(self, offsets: Sequence[int], *, first_offset: int, now_ns: int, time_ns: int) -> int:
        """Give set-aside events back to delivery, attempts counted anew, but for those below `first_offset`; how many."""
        released = 0
        for offset in offsets:
            if offset >= first_offset and (aside := self.set_aside.pop(offset, None)) is not None:
                self._enter_again(offset, aside.key, aside.again_ms, now_ns, time_ns)
                released += 1
        self._changes += released
        return released

    def _enter_again(self, offset: int, key: int, again_ms: int, now_ns: int, time_ns: int) -> None:
        entry = Entry(offset, 0, 0, again_ms)
        entry.not_before_ns = now_ns
        self._enter(offset, entry, key, time_ns, released=True)

    def redeliver(self, keys: Mapping[int, int], *, now_ns: int, time_ns: int) -> list[int]:
        """Deliver events (offsets with their keys) again though they are done; gives those that are not done.

        LimitExceeded when more would be open than a checkpoint holds; then nothing has changed.
        """
        not_open = set(self._order.untold())
        parked = self._order.parked
        not_open.update(o for o, key in keys.items() if o >= parked.get(key, NEVER))
        not_done = [o for o in keys if o >= self.next_offset or o in self._open or o in not_open]
        again = sorted(keys.keys() - set(not_done))
        if len(self._open) + len(self._held_back) + len(self.set_aside) + len(again) > bounds.HELD_MAX:
            raise LimitExceeded("subscription_held_max", bounds.HELD_MAX)
        for offset in again:
            self.set_aside.pop(offset, None)
            self._enter_again(offset, keys[offset], time_ns // 1_000_000, now_ns, time_ns)
        self._changes += len(again)
        return not_done

    def bury(self, aside: SetAside) -> None:
        """Its dead letter is durable: it is done, unless it was released meanwhile."""
        if self.set_aside.get(aside.offset) is aside:
            del self.set_aside[aside.offset]
            self.counts.dead_lettered += 1
            self._changes += 1
