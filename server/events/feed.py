"""A subscription at work: events in from the dispatcher, deliveries out to its consumers, acknowledgements back."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from trunkline.core.clock import Clock
from trunkline.core.errors import SubscriptionMoved, TrunklineError

from .audience import Audience
from .consumer import Consumer
from .delivery import NEVER, Delivery
from .dispatcher import Dispatcher
from .event_block import EventBlock
from .latest import LatestPerKey, LatestSearch
from .order import NO_KEY, Ordering
from .settings import SubscriptionSettings
from .subscription import SubscriptionState
from .wake_up import WakeUp

log = logging.getLogger(__name__)

PUMP_DELIVERIES = 512
"""Sent for one subscription before others have their turn."""
PUMP_BLOCKS = 64
"""Looked at for one subscription before others have their turn."""
PUMP_LANES = 4
"""Parked lanes that are read for one subscription before others have their turn."""


class Feed(Audience):
    """A follower of its stream's dispatcher. A durable one calls `checkpoint` when it has something to save, and, if it has
    a dead-letter stream, `bury` when an event is set aside."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        state: SubscriptionState,
        clock: Clock,
        *,
        key: str,
        created_revision: int = 0,
        settings: SubscriptionSettings,
        checkpoint: Callable[[Feed], None] | None = None,
        bury: Callable[[Feed], None] | None = None,
        latest: LatestPerKey | None = None,
    ) -> None:
        """`latest` is what is taken of each key, if that has been found already."""
        super().__init__(dispatcher, state, clock)
        self.key = key
        self.settings = settings
        self.created_revision = created_revision
        self.looked_at = 0
        """Events that were looked at since the start, and how many of them the filters took."""
        self.matched = 0
        self.maybe_lettered_below = state.delivered_to
        """Of what lies below, a dead letter may have been published by a process that could not say so any more."""
        self._latest = LatestPerKey.of(state, found=latest)
        self._new_search = partial(LatestSearch, dispatcher, on_found=self.wake, on_failure=self.fail)
        self._search = self._new_search(settings)
        self._group = dispatcher.matcher.join(settings.filters, settings.attribute_filters)
        self._checkpoint = checkpoint
        self._bury = bury
        self._known_aside, self._closed = 0, False
        self._loading: dict[int, Delivery] = {}
        self._sent_to: dict[int, Consumer] = {}
        self._wake_up = WakeUp(self.wake)

    # Its life.

    def open(self) -> None:
        """Begin."""
        self._dispatcher.attach(self)
        self._known_aside = self.state.counts.set_aside
        self._bury_aside()

    def configure(self, settings: SubscriptionSettings, bury: Callable[[Feed], None] | None) -> None:
        """Go on with another configuration; filters hold for what was not looked at yet."""
        matcher, group = self._dispatcher.matcher, self._group
        self._group = matcher.join(settings.filters, settings.attribute_filters)
        matcher.leave(group)
        self.settings, self._bury = settings, bury
        if self._latest is not None:  # which is the latest of a key follows from the filters: as after a restart
            self._latest, self._search = LatestPerKey(self._latest.below), self._new_search(settings)
        limits = settings.limits(durable=self.state.limits.durable, look_ahead=self.state.limits.look_ahead)
        self.state.configure(limits, self._clock.now_ns())
        self._bury_aside()
        self.wake()

    def close(self) -> None:
        """Send nothing more; what is in flight stays so."""
        if self._closed:
            return
        self._closed = True
        self._dispatcher.detach(self)
        self._dispatcher.matcher.leave(self._group)
        self._wake_up.cancel()

    def end(self, error: TrunklineError | None) -> None:
        """Close, and tell the consumers."""
        self.close()
        for consumer in list(self.consumers.values()):
            consumer.end(error)
        self.consumers.clear()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    @property
    def lag(self) -> int:
        """Positions between the floor and the stream's end."""
        return max(0, self._dispatcher.end - self.state.floor)

    @property
    def has_more(self) -> bool:
        """Whether something is about to be delivered, after a read or a checkpoint."""
        state = self.state
        behind = state.next_offset < self._dispatcher.end
        return bool(self._loading) or state.blocked or (behind and state.wants())

    # Moving.

    def wake(self) -> None:
        """Something changed: go on in the next turn of the loop."""
        self._dispatcher.wake(self)

    def settled(self) -> None:
        if self.state.next_offset < self._dispatcher.end or not self.state.is_idle:
            self.wake()
        elif not self._closed:  # there is nothing to send
            self._tell()

    def on_saved(self) -> None:
        """See Checkpointed."""
        self.settled()

    def pump(self) -> bool:
        now_ns, time_ns = self._clock.now_ns(), self._clock.time_ns()
        self.state.advance(now_ns, time_ns)
        self._respect_readiness()
        self._send_loaded(time_ns)
        more = self._look_ahead(now_ns, time_ns)
        deliveries = self.state.take(now_ns, limit=PUMP_DELIVERIES)
        if deliveries:
            more = more or len(deliveries) == PUMP_DELIVERIES
            more = self._send(deliveries, time_ns) or more or (self.state.is_stretched and self.state.can_deliver)
        self._tell()
        self._wake_up.set(self.state.next_deadline_ns(), now_ns)
        return more

    def flush(self) -> None:
        for consumer in self._sent_to.values():
            consumer.flush()
        self._sent_to.clear()

    def _respect_readiness(self) -> None:
        """A consumer whose stream is full is left out until it is ready; its credit is kept."""
        rotation = self.state.consumers
        for consumer in self.consumers.values():
            rotation.pause(consumer.id, paused=not consumer.ready)

    def _look_ahead(self, now_ns: int, time_ns: int) -> bool:
        """Offer the state what it wants. True: it wants more than one turn gives."""
        state, dispatcher = self.state, self._dispatcher
        if not state.consumers.willing:
            return False
        if self._latest is not None and not self._search.knows(self._latest, state):
            return False
        more = self._bring_back(time_ns)
        state.make_way()
        state.look_further(now_ns)
        for _ in range(PUMP_BLOCKS):
            if self._latest is not None:
                self._skip(self._latest, time_ns)
            position = state.next_offset
            if position >= dispatcher.end or not state.wants():
                return more
            block = dispatcher.block_at(position)
            if block is None:
                dispatcher.load(position, self)
                return more
            self._offer(block, position, time_ns)
        return True

    def _skip(self, latest: LatestPerKey, time_ns: int) -> None:
        """Pass what is not the latest of its key."""
        if self.state.next_offset < latest.below:
            self.state.skip_to(latest.following(self.state.next_offset), time_ns=time_ns)
        elif self.state.latest_from is None:
            self._latest = None

    def _bring_back(self, time_ns: int) -> bool:
        """Read on in parked lanes that have nothing out. True: there is more to read than one turn gives."""
        state, dispatcher = self.state, self._dispatcher
        wanted = state.wanted_lanes()
        if not wanted:
            return False
        waits = 0
        for key, position in wanted[:PUMP_LANES]:
            offsets: list[int] = []
            for _ in range(PUMP_BLOCKS):
                if position >= state.next_offset or len(offsets) >= state.limits.look_ahead.readmit_max:
                    break
                block = dispatcher.block_at(position)
                if block is None:
                    dispatcher.load(position, self)
                    waits += 1
                    break
                end = min(block.end, state.next_offset)
                offsets += self._of_key(block, key, position, end)
                position = end
            state.readmit(key, offsets, position, time_ns=time_ns)
        return len(state.wanted_lanes()) > waits

    def _of_key(self, block: EventBlock, key: int, first: int, end: int) -> list[int]:
        """The offsets of a key's events that the subscription takes."""
        keys, offsets = block.keys(self.settings.key_attribute), block.offsets
        indexes = self._indexes(block)
        return [offsets[index] for index in indexes if keys[index] == key and first <= offsets[index] < end]

    def _indexes(self, block: EventBlock) -> Sequence[int]:
        """Which events of a block it takes."""
        indexes = self._dispatcher.matcher.indexes(block, self._group)
        return indexes if self._latest is None else self._latest.taken(block, indexes)

    def _offer(self, block: EventBlock, position: int, time_ns: int) -> None:
        indexes = self._indexes(block)
        offsets = block.offsets
        if isinstance(indexes, range) and len(indexes) == block.count:
            matching: Sequence[int] = offsets
        else:
            matching = [offsets[index] for index in indexes]
        before = 0 if position <= block.start else bisect_left(matching, position)
        self.looked_at += block.count
        self.matched += len(matching)
        # Before the first of them may lie a gap of any size.
        end = min(block.end, self.state.reach(matching[before] if before < len(matching) else block.end))
        if before or end < block.end:
            after = bisect_left(matching, end)
            matching, indexes = matching[before:after], indexes[before:after]
        if self.state.limits.ordering is not Ordering.KEYED:
            self.state.offer(matching, end, time_ns=time_ns)
            return
        keys = block.keys(self.settings.key_attribute)
        self.state.offer(matching, end, time_ns=time_ns, keys=[keys[index] for index in indexes])

    def _send(self, deliveries: Sequence[Delivery], time_ns: int) -> bool:
        """Put each delivery to its consumer; those whose event is not at hand are sent when it has been read, and what goes to
        the same consumer comes behind them. True: some were past their time or gone, and others may have their credit."""
        touched = self._sent_to
        block: EventBlock | None = None
        counts = self.state.counts
        passed = counts.expired + counts.compacted
        behind = {delivery.consumer for delivery in self._loading.values()}
        for delivery in deliveries:
            offset = delivery.offset
            if delivery.consumer in behind:
                self._loading[offset] = delivery
                continue
            if block is None or not block.start <= offset < block.end:
                block = self._dispatcher.block_at(offset)
            if block is None:
                self._loading[offset] = delivery
                behind.add(delivery.consumer)
                self._dispatcher.load(offset, self)
                continue
            suffix = block.suffix_at(offset)
            consumer = self.consumers.get(delivery.consumer)
            if consumer is None:
                self._return(delivery)
                continue
            if suffix is None:
                self.state.vanish(delivery)
                continue
            if block.expiries and block.expiries.get(offset, NEVER) <= time_ns:
                self.state.expire(delivery)
                continue
            consumer.put(delivery, suffix)
            touched[consumer.id] = consumer
        for consumer in touched.values():
            consumer.send()
        return counts.expired + counts.compacted != passed

    def _send_loaded(self, time_ns: int) -> None:
        """Send what waited for its event to be read, unless it was taken back meanwhile."""
        if self._loading:
            deliveries = [delivery for delivery in self._loading.values() if self.state.holds(delivery)]
            self._loading.clear()
            self._send(deliveries, time_ns)

    def _tell(self) -> None:
        """Let the checkpoints know that there is something to save, and people that something was set aside."""
        if self._checkpoint is not None and self.state.dirty:
            self._checkpoint(self)
        if self._known_aside != self.state.counts.set_aside:
            self._known_aside = self.state.counts.set_aside
            log.warning("events set aside", extra={"subscription": self.key, "events": len(self.state.set_aside)})
            self._bury_aside()

    def _bury_aside(self) -> None:
        if self._bury is not None and self.state.set_aside:
            self._bury(self)

    def move(self, incarnation: int, cut: int) -> None:
        """Deliveries in flight are taken back: what they were of may not be there any more.

        Whoever has one from beyond the cut has to come again: an acknowledgement of it may be on its way, and the next
        event at its offset is another one.
        """
        if self.state.incarnation == incarnation:
            return
        self._end_those_beyond(cut)
        if self._closed:
            return
        old = (self.state.incarnation, self.state.floor)
        now_ns, time_ns = self._clock.now_ns(), self._clock.time_ns()
        progress = self.state.save(now_ns, time_ns, final=True).progress.moved_to(incarnation, cut)
        rotation, counts = self.state.consumers, self.state.counts
        self.state = SubscriptionState.recover(
            self.state.limits, progress, end=self._dispatcher.end, now_ns=now_ns, time_ns=time_ns, changed=True
        )
        self.state.consumers, self.state.counts = rotation, counts
        self._latest = LatestPerKey.of(self.state)
        self._loading.clear()
        self.untold_gap = old
        self._tell_gap()
        self.wake()

    def seek(self, offset: int, latest: LatestPerKey | None = None) -> int:
        """Go on at `offset`: what lies before is done, nothing from it on but what `latest` leaves out. Gives the old floor.

        Consumers are told to come again: what they have in hand belongs to the place before.
        """
        old = self.state
        state = SubscriptionState(old.limits, incarnation=old.incarnation, position=offset)
        state.set_aside = {o: aside for o, aside in old.set_aside.items() if o < offset}
        state.counts = old.counts
        state.latest_below = 0 if latest is None else latest.below
        moved = SubscriptionMoved("the subscription was moved to another place: open it again")
        self._dismiss(list(self.consumers.values()), moved, clean=True)
        self.state, self._latest = state, latest
        self.maybe_lettered_below = max(self.maybe_lettered_below, old.delivered_to)
        self._loading.clear()
        self.client_of.clear()
        self.wake()
        return old.floor

    def redeliver(self, keys: Mapping[int, int]) -> list[int]:
        """See Places.redeliver."""
        not_done = self.state.redeliver(keys, now_ns=self._clock.now_ns(), time_ns=self._clock.time_ns())
        self.wake()
        return not_done

    def key_at(self, block: EventBlock, offset: int) -> int | None:
        """The key hash of an event that the subscription takes; None for any other."""
        indexes = self._dispatcher.matcher.indexes(block, self._group)
        place = bisect_left(indexes, offset, key=block.offsets.__getitem__)
        if place == len(indexes) or block.offsets[indexes[place]] != offset:
            return None
        if self.state.limits.ordering is not Ordering.KEYED:
            return NO_KEY
        return block.keys(self.settings.key_attribute)[indexes[place]]

    # What the dispatcher says.

    def missing(self, first_offset: int) -> None:
        """Retention has passed this subscription."""
        old = self.state.floor
        if self.state.truncate(first_offset):
            log.warning("subscription missed events", extra={"subscription": self.key, "from": old})
            incarnation = self.state.incarnation
            for consumer in self.consumers.values():
                consumer.gap((incarnation, old), (incarnation, first_offset))

    def fail(self, error: TrunklineError) -> None:
        """The stream cannot be read: whoever consumes has to come again."""
        log.warning("subscription cannot read its stream", extra={"subscription": self.key, "reason": error.code})
        self._dismiss(list(self.consumers.values()), error, clean=True)
