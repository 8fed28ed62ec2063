"""The subscription's state machine against a slow one, through crashes at every step.

Proved of every history: at least once, no offset lost, attempts never under-told nor above the maximum, set aside and not
dropped, credit and the limit of deliveries in flight kept, and that what can be delivered is.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference.subscription import SlowSubscription, Where
from trunkline.server.events.bounds import LookAhead
from trunkline.server.events.delivery import Limits, Settled
from trunkline.server.events.order import Ordering
from trunkline.server.events.saving import Saving
from trunkline.server.events.subscription import SubscriptionState

MS = 1_000_000
EPOCH_NS = 1_700_000_000_000_000_000
CONSUMERS = (1, 2, 3)
OPEN = (Where.NEW, Where.OUT, Where.BACK)


class SubscriptionMachine(RuleBasedStateMachine):
    """Time is monotonic and goes on across crashes."""

    @initialize(
        deadline_ms=st.integers(1, 50),
        max_deliveries=st.integers(1, 4),
        max_in_flight=st.integers(1, 6),
        durable=st.booleans(),
        position=st.integers(0, 1_000),
        ordering=st.sampled_from(list(Ordering)),
        delivered=st.integers(0, 5),
        ahead_max=st.sampled_from([4, 12, 100_000]),
        parked_max=st.sampled_from([1, 1_000]),
        counted_max=st.sampled_from([1, 2, 64]),
    )
    def begin(self, **chosen: Any) -> None:
        self.begin_with(**chosen)

    def begin_with(
        self,
        *,
        deadline_ms: int,
        max_deliveries: int,
        max_in_flight: int,
        durable: bool,
        position: int,
        ordering: Ordering,
        delivered: int,
        ahead_max: int,
        parked_max: int,
        counted_max: int,
    ) -> None:
        self.now_ns = 5 * MS
        self.limits = Limits(
            ack_deadline_ns=deadline_ms * MS,
            max_deliveries=max_deliveries,
            max_in_flight=max_in_flight,
            ordering=ordering,
            durable=durable,
            look_ahead=LookAhead(
                look_ahead_max=ahead_max,
                ready_max=min(ahead_max, max(16, counted_max)),
                count_ahead_min=min(ahead_max, counted_max),
                readmit_max=min(ahead_max, 16),
                parked_max=parked_max,
                stuck_ns=40 * MS,
                stuck_look_ns=10 * MS,
            ),
        )
        self.state = SubscriptionState(self.limits, incarnation=7, position=position)
        self.slow = SlowSubscription(deadline_ms * MS, max_deliveries, max_in_flight)
        self.stream: list[tuple[int, int | None]] = []
        """Offsets, each with its key; None does not match."""
        self.end = position
        self.start = position
        self.durable = self.state.save(self.now_ns, self.time_ns).progress
        self.saving: Saving | None = None
        self.first = position
        self.released: set[int] = set()
        self.ever_parked: set[int] = set()
        self.detached = False
        self.early: set[int] = set()
        """Those released after a restart before they were looked at again."""
        self.done_in_durable: set[int] = set()
        self.done_in_saving: set[int] = set()
        self.append([1, 2, None, 1, 0])
        self.look_ahead(5)
        self.give_credit(1, 10)
        if durable:
            self.checkpoint()
        self.deliver(max(1, delivered))

    @property
    def time_ns(self) -> int:
        return EPOCH_NS + self.now_ns

    # Inputs.

    @rule(keys=st.lists(st.sampled_from([None, 0, 1, 1, 2]), min_size=1, max_size=12))
    def append(self, keys: list[int | None]) -> None:
        self.stream += [(self.end + i, key) for i, key in enumerate(keys)]
        self.end += len(keys)
        for offset, key in self.stream[-len(keys) :]:
            if key is not None:
                lane = {Ordering.PARALLEL: 0, Ordering.KEYED: key, Ordering.SEQUENTIAL: 1}[self.limits.ordering]
                self.slow.matching(offset, lane)

    @rule(size=st.integers(1, 12))
    def look_ahead(self, size: int) -> None:
        self.offer(self.state, min(self.state.next_offset + size, self.end))

    @rule()
    def make_way(self) -> None:
        self.state.make_way()
        self.detached |= self.limits.look_ahead.look_ahead_max < 100_000
        self.ever_parked |= self.parked(self.state).keys()

    def parked(self, state: SubscriptionState) -> dict[int, int]:
        return dict(state._order.parked)

    @rule(size=st.integers(1, 20))
    def bring_back(self, size: int) -> None:
        """Read on in the parked lanes that have nothing out."""
        for key, position in self.state.wanted_lanes():
            end = min(position + size, self.state.next_offset)
            found = [o for o, other in self.stream if other == key and position <= o < end]
            self.state.readmit(key, found, end, time_ns=self.time_ns)
            for event in map(self.slow.events.__getitem__, found):
                if event.where is Where.BACK and event.attempts >= self.limits.max_deliveries:
                    event.where = Where.ASIDE  # it may have been tried before the restart, as often as it may

    def offer(self, state: SubscriptionState, end: int) -> None:
        found = [(o, key) for o, key in self.stream if key is not None and state.next_offset <= o < end]
        keys = [key for _, key in found]
        state.offer([offset for offset, _ in found], end, time_ns=self.time_ns, keys=keys)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        offsets = data.draw(st.lists(st.integers(self.start, self.end), max_size=5, unique=True))
        known = [offset for offset in offsets if offset in self.state.set_aside and offset >= self.first]
        released = self.state.release(offsets, first_offset=self.first, now_ns=self.now_ns, time_ns=self.time_ns)
        assert released == len(known)
        self.released.update(known)
        self.early.update(offset for offset in known if offset >= self.state.next_offset)
        for offset in known:
            event = self.slow.events[offset]
            event.where, event.attempts, event.not_before_ns = Where.BACK, 0, self.now_ns
            event.lapsed, event.holder = False, 0  # nobody's: whoever had it before it was set aside cannot settle it
            event.released = True

    @rule(by=st.integers(1, 2))
    def retention(self, by: int) -> None:
        self.first = min(self.first + by, self.end)
        self.truncate()

    def truncate(self) -> None:
        self.state.truncate(self.first)
        for event in self.slow.events.values():
            if event.offset < self.first and event.offset not in self.state.set_aside:
                event.where = Where.DONE

    @rule(consumer=st.sampled_from(CONSUMERS), credit=st.integers(0, 5))
    def give_credit(self, consumer: int, credit: int) -> None:
        if consumer not in self.state.consumers:
            self.state.consumers.add(consumer)
        self.state.consumers.give(consumer, credit)
        self.slow.credit[consumer] = self.slow.credit.get(consumer, 0) + credit

    @rule(consumer=st.sampled_from(CONSUMERS), clean=st.booleans())
    def consumer_goes(self, consumer: int, clean: bool) -> None:
        self.state.remove_consumer(consumer, clean=clean, now_ns=self.now_ns, time_ns=self.time_ns)
        self.slow.credit.pop(consumer, None)
        for event in self.slow.out():
            if event.holder == consumer:
                self.slow.back(event, self.now_ns, counted=not clean)

    @rule(by_ms=st.one_of(st.none(), st.integers(0, 60)))
    def time_passes(self, by_ms: int | None) -> None:
        """None: until the next deadline, to the nanosecond."""
        if by_ms is None:
            due = [event.deadline_ns for event in self.slow.out()] or [self.now_ns]
            self.now_ns = max(self.now_ns, min(due))
        else:
            self.now_ns += by_ms * MS
        self.state.advance(self.now_ns, self.time_ns)
        self.slow.advance(self.now_ns)
        self.ever_parked |= self.parked(self.state).keys()

    @rule(
        data=st.data(),
        consumer=st.sampled_from((1, 1, 2, 3)),
        what=st.sampled_from(["ack", "ack", "ack", "nack", "term", "progress"]),
        delay_ms=st.sampled_from([0, 0, 7, 100]),
    )
    def settle(self, data: st.DataObject, consumer: int, what: str, delay_ms: int) -> None:
        out = [event.offset for event in self.slow.events.values() if event.deliveries]
        offset = data.draw(st.sampled_from(out[-6:]) if out else st.integers(0, self.end + 5))
        event = self.slow.holds(offset, consumer, lapsed=what in ("ack", "term"))
        if what == "ack":
            settled = self.state.ack(offset, consumer)
        elif what == "nack":
            settled = self.state.nack(
                offset, consumer, delay_ns=delay_ms * MS, now_ns=self.now_ns, time_ns=self.time_ns
            )
        elif what == "term":
            settled = self.state.term(offset, consumer, reason="no", time_ns=self.time_ns)
        else:
            settled = self.state.progress(offset, consumer, now_ns=self.now_ns)
        assert (settled is Settled.DONE) == (event is not None)
        if event is None:
            return
        if what == "ack":
            event.where = Where.DONE
        elif what == "nack":
            self.slow.back(event, self.now_ns + delay_ms * MS)
        elif what == "term":
            event.where = Where.ASIDE
        elif self.now_ns + self.limits.ack_deadline_ns - event.deadline_ns >= self.limits.ack_deadline_ns // 10:
            event.deadline_ns = self.now_ns + self.limits.ack_deadline_ns

    @rule(limit=st.integers(1, 10))
    def deliver(self, limit: int) -> None:
        deliveries = self.state.take(self.now_ns, limit=limit)
        for delivery in deliveries:
            self.slow.delivered(delivery.offset, delivery.consumer, delivery.attempt, delivery.credit, self.now_ns)
            if self.limits.durable:
                self.counted_before_delivered(delivery.offset, delivery.attempt)

    def counted_before_delivered(self, offset: int, attempt: int) -> None:
        """Recovery from the last durable checkpoint must know of this attempt, or of the event being done."""
        counted = {entry.offset: entry.attempts for entry in self.durable.open}
        if offset in counted:
            assert counted[offset] >= attempt
        else:
            parked = {lane.key: lane.from_offset for lane in self.durable.parked}
            lane = self.slow.events[offset].lane
            assert offset < parked.get(lane, self.end), "it is parked in the checkpoint, which does not name it"
            assert offset < self.durable.delivered_to
            assert attempt <= 1

    # Checkpoints and crashes.

    @precondition(lambda self: self.limits.durable and self.saving is None)
    @rule()
    def write_checkpoint(self) -> None:
        self.saving = self.state.save(self.now_ns, self.time_ns)
        self.done_in_saving = self.done()

    def done(self) -> set[int]:
        return {event.offset for event in self.slow.events.values() if event.where is Where.DONE}

    @precondition(lambda self: self.limits.durable and self.saving is None)
    @rule()
    def checkpoint(self) -> None:
        """All of it in one step, so that histories get further."""
        self.write_checkpoint()
        self.checkpoint_is_durable()

    @precondition(lambda self: self.saving is not None)
    @rule()
    def checkpoint_is_durable(self) -> None:
        assert self.saving is not None
        self.durable = self.saving.progress
        self.state.saved(self.saving)
        self.saving = None
        self.done_in_durable = self.done_in_saving

    @precondition(lambda self: self.limits.durable)
    @rule(kept=st.booleans(), clean=st.booleans())
    def restart(self, kept: bool, clean: bool) -> None:
        """A crash; a checkpoint on its way may have been kept. Or a clean stop."""
        if clean:
            self.durable = self.state.save(self.now_ns, self.time_ns, final=True).progress
            self.done_in_durable = self.done()
        elif self.saving is not None and kept:
            self.durable, self.done_in_durable = self.saving.progress, self.done_in_saving
        self.saving = None
        self.slow.credit.clear()
        self.look_again(self.recovered(), clean)
        self.state = self.recovered()
        self.early.clear()
        self.truncate()

    def recovered(self) -> SubscriptionState:
        return SubscriptionState.recover(
            self.limits, self.durable, end=self.end, now_ns=self.now_ns, time_ns=self.time_ns
        )

    def look_again(self, state: SubscriptionState, clean: bool) -> None:
        """What a recovered state says must be no better than what happened, and the slow one goes on from there."""
        state.truncate(self.first)
        self.offer(state, self.end)
        probe = SubscriptionProbe(state)
        for event in self.slow.events.values():
            where, attempts, not_before_ns = probe.of(event.offset, event.lane)
            if where is Where.BACK and not attempts and event.where is Where.NEW and event.lane in self.ever_parked:
                where = Where.NEW  # readmitted: it waited for its first delivery
            if event.offset < self.first:
                event.where = Where.ASIDE if where is Where.ASIDE else Where.DONE
                continue
            if event.offset in self.done_in_durable:
                assert where is Where.DONE, "done in the checkpoint, and not after it"
            if event.where is Where.DONE:
                assert where in (Where.DONE, Where.BACK, Where.ASIDE), "done, and as if it had never been delivered"
            elif event.where is Where.ASIDE:
                assert where is not Where.DONE, "set aside, then dropped"
            else:
                assert where is not Where.DONE, "lost"
            if clean and event.where is Where.NEW and where is Where.BACK and event.lane in self.ever_parked:
                assert attempts <= 1, "what was parked before all was looked at again counts as tried, at worst"
            elif clean:
                before = (
                    Where.BACK if event.where is Where.OUT and event.attempts < self.limits.max_deliveries else None
                )
                assert where is (before or (Where.ASIDE if event.where is Where.OUT else event.where))
                assert where in (Where.DONE, Where.ASIDE) or attempts == event.attempts
            elif where in (Where.NEW, Where.BACK):
                assert event.where in (Where.DONE, Where.ASIDE) or attempts >= event.attempts, "a delivery not counted"
            event.where, event.attempts, event.not_before_ns = where, attempts, not_before_ns
            event.lapsed, event.holder = False, 0

    # What must always hold.

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        if not hasattr(self, "state"):
            return
        state, slow = self.state, self.slow
        parked = self.parked(state)
        looked_at = [
            e
            for e in slow.events.values()
            if (e.offset < state.next_offset or e.offset in self.early) and e.offset < parked.get(e.lane, self.end)
        ]
        assert state.in_flight == len(slow.out())
        new, back = (sum(e.where is where for e in looked_at) for where in (Where.NEW, Where.BACK))
        assert state.ready + state.waiting == new + back
        if not self.ever_parked:  # what was parked waits for its first delivery as others wait for their second
            assert state.ready == new
        aside = {e.offset for e in slow.events.values() if e.where is Where.ASIDE}
        assert {e.offset for e in looked_at if e.where is Where.ASIDE} <= set(state.set_aside) <= aside
        open_ = {e.offset for e in looked_at if e.where in OPEN}
        lowest = min([*open_, state.next_offset])
        free = self.released | {e.offset for e in looked_at if e.lane in self.ever_parked}
        if self.detached:
            free |= {e.offset for e in looked_at if e.deliveries or e.attempts}
        assert lowest <= state.floor <= min(open_ - free, default=state.next_offset)

    @invariant()
    def what_can_be_delivered_is(self) -> None:
        if not hasattr(self, "state"):
            return
        looked_at = self.state.next_offset == self.end
        if looked_at:
            self.bring_back(len(self.stream) + 1)
        if looked_at and self.slow.could_deliver(self.now_ns):
            deliveries = self.state.take(self.now_ns, limit=1)
            assert deliveries or self.state.blocked, (
                "something is due, and neither delivered nor waits for a checkpoint"
            )
            for delivery in deliveries:
                self.slow.delivered(delivery.offset, delivery.consumer, delivery.attempt, delivery.credit, self.now_ns)
                if self.limits.durable:
                    self.counted_before_delivered(delivery.offset, delivery.attempt)


class SubscriptionProbe:
    """Where a recovered state, which has looked at everything, has an event: read from its final checkpoint."""

    def __init__(self, state: SubscriptionState) -> None:
        self.progress = state.save(0, 0, final=True).progress
        self.open = {entry.offset: entry for entry in self.progress.open}

    def of(self, offset: int, lane: int) -> tuple[Where, int, int]:
        progress = self.progress
        if any(entry.offset == offset for entry in progress.set_aside):
            return Where.ASIDE, 0, 0
        if offset in self.open:
            entry = self.open[offset]
            return Where.BACK, entry.attempts, entry.not_before_ns
        for parked in progress.parked:
            if parked.key == lane and offset >= parked.from_offset:
                return (Where.BACK, 1, 0) if offset < parked.tried_below else (Where.NEW, 0, 0)
        if progress.is_done(offset):
            return Where.DONE, 0, 0
        is_new = offset >= progress.delivered_to or progress.is_untried(offset)
        return (Where.NEW, 0, 0) if is_new else (Where.BACK, 1, 0)


class ParkingMachine(SubscriptionMachine):
    """Histories in which lanes are parked all the time: it looks four positions ahead, and few keys have most events."""

    def begin(self, **chosen: Any) -> None:
        """Not one of this machine's rules."""

    @initialize(
        max_deliveries=st.integers(1, 4),
        first=st.lists(st.sampled_from([1, 1, 1, 2, 0]), min_size=6, max_size=12),
        counted_max=st.sampled_from([1, 2, 64]),
    )
    def begin_parked(self, max_deliveries: int, first: list[int], counted_max: int) -> None:
        self.begin_with(
            deadline_ms=50,
            max_deliveries=max_deliveries,
            max_in_flight=6,
            durable=True,
            position=0,
            ordering=Ordering.KEYED,
            delivered=2,
            ahead_max=4,
            parked_max=1_000,
            counted_max=counted_max,
        )
        self.give_credit(1, 1_000)
        self.append(first)
        self.go_on()

    @rule()
    def go_on(self) -> None:
        """What a feed does in a turn, and a checkpoint."""
        self.bring_back(3)
        self.look_ahead(6)
        self.make_way()
        if self.saving is None:
            self.checkpoint()
        self.deliver(3)

    @rule(data=st.data())
    def acknowledge_some(self, data: st.DataObject) -> None:
        out = [event.offset for event in self.slow.out()]
        for offset in data.draw(st.lists(st.sampled_from(out), max_size=2, unique=True)) if out else ():
            holder = self.slow.events[offset].holder
            assert self.state.ack(offset, holder) is Settled.DONE
            self.slow.events[offset].where = Where.DONE


TestParking = ParkingMachine.TestCase
TestParking.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

TestSubscription = SubscriptionMachine.TestCase
TestSubscription.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
