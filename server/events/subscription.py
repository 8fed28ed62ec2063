"""One subscription as a state machine: which event goes to whom next, and what is done.

No I/O, no clock, no bytes: offsets, keys, consumers and times come in, deliveries come out. Every event that matches is
in exactly one place: held (behind another of its lane), ready (never delivered), in flight (with a consumer), waiting (to be
delivered again), set aside, or done.

Attempts are counted before delivering. A durable subscription delivers nothing that a durable checkpoint does not
count already: first deliveries lie below `reserved_to`, a later attempt waits until a checkpoint has counted it.

What a consumer that goes had in flight is given back at once. When its stream broke, the attempt stays counted (the
event may be what broke it); when it closed its subscription, the attempt is taken back (it was not begun).
"""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice

from . import bounds
from .delivery import NEVER, Delivery, Entry, Limits, Settled
from .order import Ordering
from .parking import ParkedPlaces
from .progress import Progress, done_bitmap, untried_bitmap
from .recovered import Recovered
from .rotation import Rotation
from .saving import Saving, count_ahead, open_deliveries, parked_deliveries, reserve

TOLD_MAX = 16
"""Checkpoints on their way of which is remembered one by one what they say is parked."""


class SubscriptionState(ParkedPlaces):
    """See the module. `now_ns` is monotonic everywhere, `time_ns` is since the epoch."""

    def __init__(self, limits: Limits, *, incarnation: int, position: int) -> None:
        """A new subscription whose first event is at `position` or later."""
        super().__init__(limits, position)
        self.incarnation = incarnation
        self.latest_below = 0
        """See Progress."""
        self.reserved_to = position if limits.durable else NEVER
        self.consumers = Rotation()
        self._saved_changes = 0
        self._saved_floor = position
        self._delivered_unsaved = 0
        self._delivered_saved = 0
        self._low = False
        self._saves = 0

    @classmethod
    def recover(
        cls, limits: Limits, progress: Progress, *, end: int, now_ns: int, time_ns: int, changed: bool = False
    ) -> SubscriptionState:
        """Go on from a checkpoint (or, `changed`, from what is no checkpoint yet). Nothing at or above `end` was delivered."""
        state = cls(limits, incarnation=progress.incarnation, position=progress.floor)
        state.delivered_to = min(progress.delivered_to, max(end, progress.floor))
        state.reserved_to = min(state.delivered_to, progress.first_untried) if limits.durable else NEVER
        state.latest_below = progress.latest_below
        state.set_aside = {entry.offset: entry for entry in progress.set_aside}
        state._changes = int(changed)
        state._recovered = Recovered(
            progress, new_from=state.delivered_to, end=max(end, progress.floor), now_ns=now_ns, time_ns=time_ns
        )
        state._restore_parked(progress.parked)
        for entry, key in state._recovered.take_released():
            if state._is_parked(key, entry):
                state._parked_entries[entry.offset] = entry, key
            else:
                state._enter(entry.offset, entry, key, time_ns, released=True)
        if state.next_offset >= state._recovered.end:
            state._recovered = None
        return state

    def configure(self, limits: Limits, now_ns: int) -> None:
        """Go on with other limits, and the same order. A shorter deadline holds for what is in flight, too."""
        assert (limits.ordering, limits.durable) == (self.limits.ordering, self.limits.durable)
        self.limits = limits
        self._deadlines.shorten(now_ns + limits.ack_deadline_ns)

    # What can be seen.

    @property
    def can_deliver(self) -> bool:
        """Whether a consumer could be sent something, if there is something."""
        return (
            bool(self.consumers.willing)
            and self.in_flight < self.limits.max_in_flight
            and len(self.set_aside) < bounds.SET_ASIDE_MAX
        )

    @property
    def latest_from(self) -> int | None:
        """From here to `latest_below`, only the latest event of each key is taken; None when nothing lies there any more."""
        if not self.latest_below:
            return None
        first = min([self.floor, *self._order.parked.values()])
        return first if first < self.latest_below else None

    def held_by(self, consumer: int) -> list[int]:
        """The offsets in flight at a consumer."""
        return [entry.offset for entry in self._open.values() if entry.in_flight and entry.consumer == consumer]

    def holders(self) -> Counter[int]:
        """The consumers that have something in flight, and how much."""
        return Counter(entry.consumer for entry in self._open.values() if entry.in_flight)

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery that was handed out still stands."""
        entry = self._open.get(delivery.offset)
        return (
            entry is not None
            and entry.in_flight
            and entry.consumer == delivery.consumer
            and entry.attempts == delivery.attempt
        )

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

    def expire(self, delivery: Delivery) -> None:
        """What was to be sent is past its time: done, and the consumer has its credit back."""
        self._pass(delivery)
        self.counts.expired += 1

    def vanish(self, delivery: Delivery) -> None:
        """What was to be sent is not there any more: done, and the consumer has its credit back."""
        self._pass(delivery)
        self.counts.compacted += 1

    def _pass(self, delivery: Delivery) -> None:
        self._close(self._open[delivery.offset])
        self._changes += 1
        self.consumers.give(delivery.consumer, 1)

    def nack(
        self, offset: int, consumer: int | None, *, delay_ns: int | None, now_ns: int, time_ns: int, reason: str = ""
    ) -> Settled:
        """Not done: deliver again, no sooner than after `delay_ns`; None stands for the subscription's backoff."""
        entry = self._held(offset, consumer, lapsed=False)
        if entry is None:
            return self._unsettled(offset)
        self._land(entry)
        self.counts.nacked += 1
        if delay_ns is None:
            delay_ns = self.limits.backoff_after_ns(entry.attempts)
        self._changes += delay_ns > 0
        why = f"it was refused by its consumer: {reason}" if reason else "it was refused by its consumer"
        self._wait(entry, now_ns + delay_ns, time_ns, why)
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
            delay_ns = self.limits.backoff_after_ns(entry.attempts)
            self._changes += delay_ns > 0
            self._wait(entry, now_ns + delay_ns, time_ns, "it was not acknowledged in time")
        if self.looks_for_stuck:
            self.park_stuck(now_ns)

    def next_deadline_ns(self) -> int:
        """When to call `advance` and `take` though nothing else happens; NEVER if there is no need to."""
        lapse_ns = self._deadlines.first_ns()
        if self.looks_for_stuck:
            lapse_ns = min(lapse_ns, self._stuck_look_ns)
        return min(lapse_ns, self._waiting.look_ns(), self._stalls_ns()) if self.can_deliver else lapse_ns

    # Delivering.

    def take(self, now_ns: int, *, limit: int = bounds.DEFAULT.ready_max) -> list[Delivery]:
        """Hand out what may be sent now: what waits first, then what is new, to consumers in turn by their credit."""
        out: list[Delivery] = []
        if not self.can_deliver:
            return out
        room = min(limit, self.limits.max_in_flight - self.in_flight)
        deadline_ns = now_ns + self.limits.ack_deadline_ns
        willing = self.consumers.willing
        ahead = None
        if self._waiting:  # what comes to wait from now on has its turn with the next call
            ahead = self._ahead(room) if self.limits.durable else 0
        while len(out) < room and willing:
            entry = self._next(now_ns, ahead)
            if entry is None:
                break
            consumer = self.consumers.spend()
            self._launch(entry, consumer.id, deadline_ns)
            out.append(Delivery(consumer.id, entry.offset, entry.attempts, consumer.credit))
        if out:
            self._moved(now_ns)
        self._delivered_unsaved += len(out)
        low = self.limits.look_ahead.reserve_min // 2
        self._low = self.limits.durable and self.reserved_to - self.delivered_to < low
        return out

    def _next(self, now_ns: int, ahead: int | None) -> Entry | None:
        """One to hand out; see Waiting.pop_due for `ahead`, which is None when nothing waits."""
        if ahead is not None:
            waiting = self._waiting.pop_due(now_ns, ahead=ahead)
            # Lanes keep their order by themselves.
            if waiting is not None or (self._waiting.goes_first and self.limits.ordering is Ordering.PARALLEL):
                return waiting
        ready = self._order.ready
        is_new = bool(ready) and ready[0] < self.reserved_to
        if is_new and len(self._open) + len(self._held_back) + len(self.set_aside) < bounds.HELD_MAX:
            offset = ready.popleft()
            entry = self._open[offset] = Entry(offset, 0, 1)
            self._order.opened(offset)
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

    # Checkpoints.

    @property
    def blocked(self) -> bool:
        """Whether there is something to deliver that no durable checkpoint counts yet."""
        ready = self._order.ready
        beyond = bool(ready) and ready[0] >= self.reserved_to
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
        counted, following = ({}, ()) if final else (self._waiting.next_attempts(), self.following())
        counted |= dict.fromkeys(following, 1)
        undone = chain(self._open, self._order.untold())
        behind = None if self._recovered is None else self._recovered.progress
        entries = (*self._open.values(), *self._held_back.values(), *(Entry(offset, 0, 1) for offset in following))
        key_of = self._order.key_of
        looked_at = range(floor, self.next_offset)
        delivered_to = self._reserve(final)
        open_ = open_deliveries(
            entries,
            looked_at,
            counted,
            key_of,
            delivered_to=delivered_to,
            now_ns=now_ns,
            time_ns=time_ns,
            final=final,
        )
        open_ += parked_deliveries(self._parked_entries.values(), now_ns=now_ns, time_ns=time_ns)
        if self._recovered is not None:
            open_ += self._recovered.open_deliveries(now_ns, time_ns)
        parked = self._parked_now(counted)
        self._saves += 1
        if parked:
            self._told[self._saves] = frozenset(lane.key for lane in parked)
            self._recorded |= self._told[self._saves]
        if len(self._told) > TOLD_MAX:  # a disk that fails fills no memory: what was told first counts with the last
            self._told = {self._saves: frozenset(self._recorded)}
        progress = Progress(
            incarnation=self.incarnation,
            floor=floor,
            done=done_bitmap(floor, self.next_offset, undone, behind=behind),
            delivered_to=delivered_to,
            open=tuple(open_),
            set_aside=tuple(self.set_aside.values()),
            untried=self._untried(floor, behind) if final else b"",
            parked=parked,
            latest_below=0 if self.latest_from is None else self.latest_below,
        )
        return Saving(self, self._saves, progress, counted, self._changes, self._delivered_unsaved)

    def _reserve(self, final: bool) -> int:
        if final:
            return self.delivered_to
        if not (self._low or self.blocked):
            return max(self.delivered_to, self.reserved_to)
        ahead = self._ahead(self.limits.max_in_flight - self.in_flight)
        soon = max(islice(self._order.ready, ahead), default=0)
        furthest = max(soon + 1, self.delivered_to)
        return max(self.reserved_to, furthest + reserve(self._delivered_unsaved, self.limits.look_ahead))

    def _ahead(self, room: int) -> int:
        """How many events to count before they are delivered."""
        delivered = max(self._delivered_saved, self._delivered_unsaved)
        return count_ahead(delivered, self.limits.look_ahead, asked=min(room, self.consumers.asked))

    def _untried(self, floor: int, behind: Progress | None) -> bytes:
        """What lies below delivered_to and was never delivered: only lanes hold such."""
        if self.limits.ordering is Ordering.PARALLEL:
            return b""
        tried = (self._held_back, self._open)
        untried = [
            o for o in self._order.untold() if floor <= o < self.delivered_to and not any(o in known for known in tried)
        ]
        return untried_bitmap(floor, self.next_offset, untried, behind=behind)

    def saved(self, saving: Saving) -> None:
        """A checkpoint is durable: what it counts may be delivered. What another state counted is nothing to this one."""
        if saving.of is not self:
            return
        self._saved_changes = saving.changes
        self._saved_floor = saving.progress.floor
        self._delivered_saved = saving.delivered
        self._delivered_unsaved = max(0, self._delivered_unsaved - saving.delivered)
        self.reserved_to = max(self.reserved_to, saving.progress.delivered_to)
        self._low = False
        self._told = {serial: keys for serial, keys in self._told.items() if serial >= saving.serial}
        self._recorded = set().union(*self._told.values())
        self._waiting.count(saving.counted)
        self.count_following(saving.counted)
