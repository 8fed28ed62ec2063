"""One subscription as a state machine: which event goes to whom next, and what is done.

No I/O, no clock, no bytes: offsets, consumers and times come in, deliveries come out. Every event that matches is in
exactly one place: ready (looked at, never delivered), in flight (with a consumer), waiting (to be delivered again), set
aside, or done.

Attempts are counted before delivering. A durable subscription delivers nothing that a durable checkpoint does not
count already: first deliveries lie below `reserved_to`, a later attempt waits until a checkpoint has counted it.

What a consumer that goes had in flight is given back at once. When its stream broke, the attempt stays counted (the
event may be what broke it); when it closed its subscription, the attempt is taken back (it was not begun).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from . import bounds
from .deadlines import Deadlines
from .delivery import NEVER, Counts, Delivery, Entry, Limits, Settled
from .progress import Progress, SetAside, bitmap
from .recovered import Recovered
from .rotation import Rotation
from .saving import Saving, open_deliveries, reserve
from .waiting import Waiting


class SubscriptionState:
    """See the module. `now_ns` is monotonic everywhere, `time_ns` is since the epoch."""

    def __init__(self, limits: Limits, *, incarnation: int, position: int) -> None:
        """A new subscription whose first event is at `position` or later."""
        self.limits = limits
        self.incarnation = incarnation
        self.next_offset = position
        """Everything below has been looked at."""
        self.delivered_to = position
        """Above every offset that was delivered."""
        self.reserved_to = position if limits.durable else NEVER
        self.counts = Counts()
        self.set_aside: dict[int, SetAside] = {}
        self.consumers = Rotation()
        self.in_flight = 0
        """Deliveries that stand open."""
        self._ready: deque[int] = deque()
        self._open: dict[int, Entry] = {}
        self._order: deque[int] = deque()
        self._deadlines = Deadlines()
        self._waiting = Waiting(self._open)
        self._recovered: Recovered | None = None
        self._changes = 0
        self._saved_changes = 0
        self._saved_floor = position
        self._delivered_unsaved = 0
        self._low = False

    @classmethod
    def recover(
        cls, limits: Limits, progress: Progress, *, end: int, now_ns: int, time_ns: int, changed: bool = False
    ) -> SubscriptionState:
        """Go on from a checkpoint (or, `changed`, from what is no checkpoint yet). Nothing at or above `end` was delivered."""
        state = cls(limits, incarnation=progress.incarnation, position=progress.floor)
        state.delivered_to = min(progress.delivered_to, max(end, progress.floor))
        state.reserved_to = state.delivered_to if limits.durable else NEVER
        state.set_aside = {entry.offset: entry for entry in progress.set_aside}
        state._changes = int(changed)
        state._recovered = Recovered(progress, now_ns=now_ns, time_ns=time_ns)
        for entry in state._recovered.take_released():
            state._reopen(entry, time_ns)
        return state

    # What can be seen.

    @property
    def floor(self) -> int:
        """Everything below is done, apart from what was released from the set-aside list."""
        order, entries = self._order, self._open
        while order and order[0] not in entries:
            order.popleft()
        if order:
            return order[0]
        return self._ready[0] if self._ready else self.next_offset

    @property
    def waiting(self) -> int:
        """Events that wait to be delivered again."""
        return len(self._open) - self.in_flight

    @property
    def ready(self) -> int:
        """Events that were looked at and never delivered."""
        return len(self._ready)

    @property
    def can_deliver(self) -> bool:
        """Whether a consumer could be sent something, if there is something."""
        return (
            bool(self.consumers.willing)
            and self.in_flight < self.limits.max_in_flight
            and len(self.set_aside) < bounds.SET_ASIDE_MAX
        )

    def held_by(self, consumer: int) -> list[int]:
        """The offsets in flight at a consumer."""
        return [entry.offset for entry in self._open.values() if entry.in_flight and entry.consumer == consumer]

    def holders(self) -> set[int]:
        """The consumers that have something in flight."""
        return {entry.consumer for entry in self._open.values() if entry.in_flight}

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery that was handed out still stands."""
        entry = self._open.get(delivery.offset)
        return (
            entry is not None
            and entry.in_flight
            and entry.consumer == delivery.consumer
            and entry.attempts == delivery.attempt
        )

    # Events.

    def wants(self) -> bool:
        """Whether to look at more of the stream."""
        return len(self._ready) < bounds.READY_MAX and self.next_offset - self.floor < bounds.LOOK_AHEAD_MAX

    def offer(self, offsets: Sequence[int], scanned_to: int, *, time_ns: int) -> None:
        """The matching offsets among [next_offset, scanned_to), ascending."""
        assert scanned_to >= self.next_offset
        if self._recovered is None:
            self._ready.extend(offsets)
        else:
            for offset in offsets:
                self._offer_recovered(self._recovered, offset, time_ns)
            if scanned_to >= self._recovered.end:
                self._recovered = None
        self.next_offset = scanned_to

    def _offer_recovered(self, recovered: Recovered, offset: int, time_ns: int) -> None:
        if offset >= self.delivered_to:
            self._ready.append(offset)
        elif (entry := recovered.take(offset)) is not None:
            self._order.append(offset)
            self._reopen(entry, time_ns)

    def _reopen(self, entry: Entry, time_ns: int) -> None:
        self._open[entry.offset] = entry
        self._wait(entry, entry.not_before_ns, time_ns, "it may have been tried")

    def truncate(self, first_offset: int) -> bool:
        """Retention removed what lies below `first_offset`. True if something was missed."""
        missed = max(0, first_offset - self.next_offset)
        while self._ready and self._ready[0] < first_offset:
            self._ready.popleft()
            missed += 1
        for entry in [entry for entry in self._open.values() if entry.offset < first_offset]:
            self._close(entry)
            missed += 1
        self.next_offset = max(self.next_offset, first_offset)
        self.delivered_to = max(self.delivered_to, first_offset)
        self.counts.missed += missed
        self._changes += missed > 0
        return missed > 0

    # Consumers.

    def remove_consumer(self, consumer: int, *, clean: bool, now_ns: int, time_ns: int) -> int:
        """A consumer is gone: give back what it had, and return how much that was. See the module for `clean`."""
        self.consumers.remove(consumer)
        held = self.held_by(consumer)
        for offset in held:
            self.give_back(offset, clean=clean, now_ns=now_ns, time_ns=time_ns)
        return len(held)

    def give_back(self, offset: int, *, clean: bool, now_ns: int, time_ns: int) -> None:
        """A delivery in flight comes back; `clean` if the attempt is not to count."""
        entry = self._open[offset]
        assert entry.in_flight
        self.counts.given_back += 1
        if clean:
            entry.attempts -= 1
            self._changes += 1
        self._land(entry)
        self._wait(entry, now_ns, time_ns, "its consumer went away")

    # Settling. `consumer` None stands for whoever pulled it.

    def ack(self, offset: int, consumer: int | None) -> Settled:
        """Done."""
        entry = self._held(offset, consumer, lapsed=True)
        if entry is None:
            return self._unsettled(offset)
        self._close(entry)
        self.counts.done += 1
        self._changes += 1
        return Settled.DONE

    def nack(self, offset: int, consumer: int | None, *, delay_ns: int, now_ns: int, time_ns: int) -> Settled:
        """Not done: deliver again, no sooner than after `delay_ns`."""
        entry = self._held(offset, consumer, lapsed=False)
        if entry is None:
            return self._unsettled(offset)
        self._land(entry)
        self.counts.nacked += 1
        self._changes += delay_ns > 0
        self._wait(entry, now_ns + delay_ns, time_ns, "it was refused by its consumer")
        return Settled.DONE

    def term(self, offset: int, consumer: int | None, *, reason: str, time_ns: int) -> Settled:
        """Never deliver again: set it aside."""
        entry = self._held(offset, consumer, lapsed=True)
        if entry is None:
            return self._unsettled(offset)
        self._set_aside(entry, reason or "ended by its consumer", time_ns)
        return Settled.DONE

    def progress(self, offset: int, consumer: int | None, *, now_ns: int) -> Settled:
        """Still at it: the deadline begins anew."""
        entry = self._held(offset, consumer, lapsed=False)
        if entry is None:
            return self._unsettled(offset)
        deadline_ns = now_ns + self.limits.ack_deadline_ns
        # A consumer that says so in a loop must not fill the queue of deadlines.
        if deadline_ns - entry.deadline_ns >= self.limits.ack_deadline_ns // 10:
            self._deadlines.arm(entry, deadline_ns, in_flight=self.in_flight)
        return Settled.DONE

    def _held(self, offset: int, consumer: int | None, *, lapsed: bool) -> Entry | None:
        """The entry, if this consumer has it in flight (or, with `lapsed`, had it last and nobody has had it since)."""
        entry = self._open.get(offset)
        if entry is None or not (entry.in_flight or (lapsed and entry.lapsed)):
            return None
        mine = entry.consumer < 0 if consumer is None else entry.consumer == consumer
        return entry if mine else None

    def _unsettled(self, offset: int) -> Settled:
        if offset in self._open or offset in self.set_aside:
            self.counts.late += 1
            return Settled.LATE
        if offset >= self.delivered_to:
            self.counts.never_sent += 1
            return Settled.NEVER_SENT
        self.counts.repeated += 1
        return Settled.REPEATED

    # Time.

    def advance(self, now_ns: int, time_ns: int) -> None:
        """Take back what stood unacknowledged for too long."""
        while (entry := self._deadlines.pop_due(now_ns)) is not None:
            self._land(entry)
            self.counts.lapsed += 1
            entry.lapsed = True
            self._wait(entry, now_ns, time_ns, "it was not acknowledged in time")

    def next_deadline_ns(self) -> int:
        """When to call `advance` and `take` though nothing else happens; NEVER if there is no need to."""
        lapse_ns = self._deadlines.first_ns()
        return min(lapse_ns, self._waiting.first_ns()) if self.can_deliver else lapse_ns

    # Delivering.

    def take(self, now_ns: int, *, limit: int = bounds.READY_MAX) -> list[Delivery]:
        """Hand out what may be sent now: what waits first, then what is new, to consumers in turn by their credit."""
        out: list[Delivery] = []
        if not self.can_deliver:
            return out
        room = min(limit, self.limits.max_in_flight - self.in_flight)
        deadline_ns = now_ns + self.limits.ack_deadline_ns
        willing = self.consumers.willing
        while len(out) < room and willing:
            entry = self._next(now_ns)
            if entry is None:
                break
            consumer = self.consumers.spend()
            self._launch(entry, consumer.id, deadline_ns)
            out.append(Delivery(consumer.id, entry.offset, entry.attempts, consumer.credit))
        self._delivered_unsaved += len(out)
        self._low = self.limits.durable and self.reserved_to - self.delivered_to < bounds.RESERVE_MIN // 2
        return out

    def _next(self, now_ns: int) -> Entry | None:
        if self._waiting and (waiting := self._waiting.pop_due(now_ns, durable=self.limits.durable)) is not None:
            return waiting
        is_new = bool(self._ready) and self._ready[0] < self.reserved_to
        if is_new and len(self._open) + len(self.set_aside) < bounds.HELD_MAX:
            offset = self._ready.popleft()
            entry = self._open[offset] = Entry(offset, 0, 1)
            self._order.append(offset)
            if offset >= self.delivered_to:
                self.delivered_to = offset + 1
            return entry
        return None

    def _launch(self, entry: Entry, consumer: int, deadline_ns: int) -> None:
        entry.attempts += 1
        entry.consumer = consumer
        entry.in_flight = True
        entry.lapsed = False
        self.in_flight += 1
        self.counts.delivered += 1
        self.counts.redelivered += entry.attempts > 1
        self._deadlines.arm(entry, deadline_ns, in_flight=self.in_flight)

    def _land(self, entry: Entry) -> None:
        self.in_flight -= entry.in_flight
        entry.in_flight = entry.lapsed = False

    def _close(self, entry: Entry) -> None:
        self._land(entry)
        del self._open[entry.offset]
        if self._waiting.uncounted:
            self._waiting.uncounted.pop(entry.offset, None)

    def _wait(self, entry: Entry, not_before_ns: int, time_ns: int, why: str) -> None:
        """Deliver again at `not_before_ns`, or set aside if that has been done often enough."""
        if entry.attempts >= self.limits.max_deliveries:
            self._set_aside(entry, f"delivered {entry.attempts} times; at last {why}", time_ns)
            return
        self._waiting.push(entry, not_before_ns)

    def _set_aside(self, entry: Entry, reason: str, time_ns: int) -> None:
        self._close(entry)
        self.set_aside[entry.offset] = SetAside(entry.offset, entry.attempts, reason, time_ns)
        self.counts.set_aside += 1
        self._changes += 1

    def release(self, offsets: Sequence[int], *, first_offset: int, now_ns: int, time_ns: int) -> int:
        """Give set-aside events back to delivery, attempts counted anew, but for those below `first_offset`; how many."""
        released = 0
        for offset in offsets:
            if offset >= first_offset and self.set_aside.pop(offset, None) is not None:
                entry = Entry(offset, 0, 0)
                entry.not_before_ns = now_ns
                self._reopen(entry, time_ns)
                released += 1
        self._changes += released
        return released

    # Checkpoints.

    @property
    def blocked(self) -> bool:
        """Whether there is something to deliver that no durable checkpoint counts yet."""
        beyond = bool(self._ready) and self._ready[0] >= self.reserved_to
        return self.can_deliver and (beyond or bool(self._waiting.uncounted))

    @property
    def dirty(self) -> bool:
        """Whether a checkpoint would say something new, or is waited for."""
        if not self.limits.durable:
            return False
        waited_for = self._changes != self._saved_changes or self._low or self.blocked
        return waited_for or self.floor - self._saved_floor >= bounds.SCANNED_UNSAVED_MAX

    @property
    def touched(self) -> bool:
        """Whether the last checkpoint that was written, if any, is not exact."""
        saved = (self._saved_floor, self._saved_changes, self.reserved_to)
        return (self.floor, self._changes, self.delivered_to) != saved

    def save(self, now_ns: int, time_ns: int, *, final: bool = False) -> Saving:
        """What to write now; counts ahead what may be delivered next, unless it is the `final` one of a clean stop."""
        floor = self.floor
        counted = {} if final else self._waiting.next_attempts()
        missing = [offset - floor for offset in (*self._open, *self._ready) if floor <= offset < self.next_offset]
        behind = None if self._recovered is None else self._recovered.progress
        open_ = open_deliveries(self._open.values(), floor, counted, now_ns=now_ns, time_ns=time_ns, final=final)
        if self._recovered is not None:
            open_ += self._recovered.open_deliveries(now_ns, time_ns)
        progress = Progress(
            incarnation=self.incarnation,
            floor=floor,
            done=bitmap(self.next_offset - floor, missing, behind=behind, floor=floor),
            delivered_to=self._reserve(final),
            open=tuple(open_),
            set_aside=tuple(self.set_aside.values()),
        )
        return Saving(progress, counted, self._changes, self._delivered_unsaved)

    def _reserve(self, final: bool) -> int:
        if final:
            return self.delivered_to
        if not (self._low or self.blocked):
            return max(self.delivered_to, self.reserved_to)
        furthest = self._ready[-1] + 1 if self._ready else self.delivered_to
        return max(self.reserved_to, furthest + reserve(self._delivered_unsaved))

    def saved(self, saving: Saving) -> None:
        """A checkpoint is durable: what it counts may be delivered. Of another incarnation it counts nothing."""
        if saving.progress.incarnation != self.incarnation:
            return
        self._saved_changes = saving.changes
        self._saved_floor = saving.progress.floor
        self._delivered_unsaved = max(0, self._delivered_unsaved - saving.delivered)
        self.reserved_to = max(self.reserved_to, saving.progress.delivered_to)
        self._low = False
        self._waiting.count(saving.counted)
