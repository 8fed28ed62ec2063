"""A subscription at work: events in from the dispatcher, deliveries out to its consumers, acknowledgements back."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import TrunklineError

from .consumer import Consumer
from .delivery import NEVER, Delivery, Settled
from .dispatcher import Dispatcher, history_cut
from .event_block import EventBlock
from .order import Ordering
from .subscription import SubscriptionState

log = logging.getLogger(__name__)

PUMP_DELIVERIES = 512
"""Sent for one subscription before others have their turn."""
PUMP_BLOCKS = 64
"""Looked at for one subscription before others have their turn."""
CLIENTS_UNCHECKED_MAX = 64
"""Names of calls that pulled, beyond twice the deliveries in flight, before those that hold nothing are forgotten."""
_Ack = events_pb2.Acknowledgement


class Feed:
    """A follower of its stream's dispatcher. `checkpoint` is called when a durable one has something to save."""

    def __init__(
        self,
        dispatcher: Dispatcher[Any],
        state: SubscriptionState,
        clock: Clock,
        *,
        key: str,
        created_revision: int = 0,
        filters: Sequence[str],
        key_attribute: str = "",
        checkpoint: Callable[[Feed], None] | None = None,
    ) -> None:
        self.state = state
        self.key = key
        self.filters = tuple(filters)
        self.created_revision = created_revision
        self.consumers: dict[int, Consumer] = {}
        self.client_of: dict[int, str] = {}
        """Those that pulled and hold deliveries, by id."""
        self.untold_gap: tuple[int, int] | None = None
        """The place it stood at before its stream's history changed, until a consumer has been told."""
        self._dispatcher = dispatcher
        self._clock = clock
        self._group = dispatcher.matcher.join(filters)
        self._key_attribute = key_attribute
        self._checkpoint = checkpoint
        self._known_aside = state.counts.set_aside
        self._loading: dict[int, Delivery] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = NEVER
        self._closed = False

    # Its life.

    def open(self) -> None:
        """Begin."""
        self._dispatcher.attach(self)

    def close(self) -> None:
        """Send nothing more; what is in flight stays so."""
        if self._closed:
            return
        self._closed = True
        self._dispatcher.detach(self)
        self._dispatcher.matcher.leave(self._group)
        if self._timer is not None:
            self._timer.cancel()

    def end(self, error: TrunklineError | None) -> None:
        """Close, and tell the consumers."""
        self.close()
        for consumer in list(self.consumers.values()):
            consumer.end(error)
        self.consumers.clear()

    @property
    def is_closed(self) -> bool:
        """It is gone, or the server stops."""
        return self._closed

    @property
    def lag(self) -> int:
        """Positions between the floor and the stream's end."""
        return max(0, self._dispatcher.end - self.state.floor)

    @property
    def has_more(self) -> bool:
        """Whether something is about to be delivered, after a read or a checkpoint."""
        state = self.state
        return bool(self._loading) or state.blocked or (state.wants() and state.next_offset < self._dispatcher.end)

    # Consumers.

    def join(self, consumer: Consumer, credit: int) -> None:
        """One more consumer."""
        self.consumers[consumer.id] = consumer
        self._tell_gap()
        self.state.consumers.add(consumer.id)
        self.add_credit(consumer.id, credit)

    def add_credit(self, consumer_id: int, credit: int) -> None:
        """Let a consumer be sent `credit` more."""
        self.state.consumers.give(consumer_id, credit)
        self.wake()

    def set_credit(self, consumer_id: int, credit: int) -> None:
        """Let a consumer be sent exactly `credit` more, whatever it had."""
        self.state.consumers.set_credit(consumer_id, credit)
        self.wake()

    def give_back(self, delivery: Delivery) -> None:
        """A delivery that was not begun, or is not to count: it goes out again."""
        self._return(delivery)
        self.wake()

    def leave(self, consumer_id: int, *, clean: bool) -> None:
        """A consumer is gone; what it had goes to the others."""
        self.consumers.pop(consumer_id, None)
        self.state.remove_consumer(consumer_id, clean=clean, now_ns=self._clock.now_ns(), time_ns=self._clock.time_ns())
        self.wake()

    def retire(self, consumer_id: int, left_over: Sequence[Delivery] = ()) -> None:
        """A call that pulled is answered: it takes no more and keeps what it was given, but for `left_over`."""
        consumer = self.consumers.pop(consumer_id, None)
        self.state.consumers.remove(consumer_id)
        for delivery in left_over:
            self._return(delivery)
        if consumer is not None and consumer.client:
            self.client_of[consumer_id] = consumer.client
            if len(self.client_of) > 2 * self.state.in_flight + CLIENTS_UNCHECKED_MAX:
                self._forget_clients()
        self.wake()

    def clients(self) -> list[str]:
        """Names of those that consume or hold deliveries."""
        self._forget_clients()
        names = {consumer.client for consumer in self.consumers.values()} | set(self.client_of.values())
        return sorted(name for name in names if name)

    def _forget_clients(self) -> None:
        """Those that hold nothing any more."""
        holders = self.state.holders()
        self.client_of = {consumer: name for consumer, name in self.client_of.items() if consumer in holders}

    # Settling.

    def settle(
        self, outcome: int, offsets: Sequence[int], consumer_id: int | None, *, delay_ns: int = 0, reason: str = ""
    ) -> list[int]:
        """Acknowledgements; `consumer_id` None stands for one that pulled. Returns the offsets that were not open."""
        state, now_ns, time_ns = self.state, self._clock.now_ns(), self._clock.time_ns()
        not_open: list[int] = []
        for offset in offsets:
            if outcome == _Ack.OUTCOME_ACK:
                settled = state.ack(offset, consumer_id)
            elif outcome == _Ack.OUTCOME_NACK:
                settled = state.nack(offset, consumer_id, delay_ns=delay_ns, now_ns=now_ns, time_ns=time_ns, why=reason)
            elif outcome == _Ack.OUTCOME_TERM:
                settled = state.term(offset, consumer_id, reason=reason, time_ns=time_ns)
            else:
                assert outcome == _Ack.OUTCOME_PROGRESS
                settled = state.progress(offset, consumer_id, now_ns=now_ns)
            if settled is not Settled.DONE:
                not_open.append(offset)
        self.wake()
        return not_open

    def acknowledge(self, message: events_pb2.Acknowledgement, consumer_id: int | None) -> list[int]:
        """See settle."""
        delay_ns = convert.ms_from(message, "delay", 0) * 1_000_000
        return self.settle(message.outcome, message.offsets, consumer_id, delay_ns=delay_ns, reason=message.reason)

    def release(self, offsets: Sequence[int]) -> int:
        """Give set-aside events (all if none is named) back to delivery; returns how many."""
        released = self.state.release(
            list(offsets or self.state.set_aside),
            first_offset=self._dispatcher.first_offset,
            now_ns=self._clock.now_ns(),
            time_ns=self._clock.time_ns(),
        )
        self.wake()
        return released

    # Moving.

    def wake(self) -> None:
        """Something changed: go on in the next turn of the loop."""
        self._dispatcher.wake(self)

    def on_saved(self) -> None:
        """See Checkpointed."""
        self.wake()

    def pump(self) -> bool:
        now_ns = self._clock.now_ns()
        self.state.advance(now_ns, self._clock.time_ns())
        self._respect_readiness()
        self._send_loaded()
        more = self._look_ahead()
        deliveries = self.state.take(now_ns, limit=PUMP_DELIVERIES)
        if deliveries:
            self._send(deliveries)
        self._tell()
        self._arm(now_ns)
        return more or len(deliveries) == PUMP_DELIVERIES

    def _respect_readiness(self) -> None:
        """A consumer whose stream is full is left out until it is ready; its credit is kept."""
        rotation = self.state.consumers
        for consumer in self.consumers.values():
            rotation.pause(consumer.id, paused=not consumer.ready)

    def _look_ahead(self) -> bool:
        """Offer the state what it wants. True: it wants more than one turn gives."""
        state, dispatcher = self.state, self._dispatcher
        if not state.consumers.willing:
            return False
        for _ in range(PUMP_BLOCKS):
            position = state.next_offset
            if position >= dispatcher.end or not state.wants():
                return False
            block = dispatcher.block_at(position)
            if block is None:
                dispatcher.load(position, self)
                return False
            self._offer(block, position)
        return True

    def _offer(self, block: EventBlock, position: int) -> None:
        indexes = self._dispatcher.matcher.indexes(block, self._group)
        offsets = block.offsets
        if isinstance(indexes, range) and len(indexes) == block.count:
            matching: Sequence[int] = offsets
        else:
            matching = [offsets[index] for index in indexes]
        before = 0 if position <= block.start else bisect_left(matching, position)
        time_ns = self._clock.time_ns()
        if self.state.limits.ordering is not Ordering.KEYED:
            self.state.offer(matching[before:] if before else matching, block.end, time_ns=time_ns)
            return
        keys = block.keys(self._key_attribute)
        taken = [keys[index] for index in indexes[before:]]
        self.state.offer(matching[before:], block.end, time_ns=time_ns, keys=taken)

    def _send(self, deliveries: Sequence[Delivery]) -> None:
        """Put each delivery to its consumer; those whose event is not at hand are sent when it has been read."""
        touched: dict[int, Consumer] = {}
        block: EventBlock | None = None
        for delivery in deliveries:
            offset = delivery.offset
            if block is None or not block.start <= offset < block.end:
                block = self._dispatcher.block_at(offset)
            if block is None:
                self._loading[offset] = delivery
                self._dispatcher.load(offset, self)
                continue
            suffix = block.suffix_at(offset)
            consumer = self.consumers.get(delivery.consumer)
            if suffix is None:
                self.state.ack(offset, delivery.consumer)  # the record is not there any more: nothing to deliver
                continue
            if consumer is None:
                self._return(delivery)
                continue
            consumer.put(delivery, suffix)
            touched[consumer.id] = consumer
        for consumer in touched.values():
            consumer.flush()

    def _send_loaded(self) -> None:
        """Send what waited for its event to be read, unless it was taken back meanwhile."""
        if self._loading:
            deliveries = [delivery for delivery in self._loading.values() if self.state.holds(delivery)]
            self._loading.clear()
            self._send(deliveries)

    def _return(self, delivery: Delivery) -> None:
        """A delivery that was not sent after all."""
        if self.state.holds(delivery):
            self.state.give_back(
                delivery.offset, clean=True, now_ns=self._clock.now_ns(), time_ns=self._clock.time_ns()
            )

    def _tell(self) -> None:
        """Let the checkpoints know that there is something to save, and people that something was set aside."""
        if self._checkpoint is not None and self.state.dirty:
            self._checkpoint(self)
        if self._known_aside != self.state.counts.set_aside:
            self._known_aside = self.state.counts.set_aside
            log.warning("events set aside", extra={"subscription": self.key, "events": len(self.state.set_aside)})

    def _arm(self, now_ns: int) -> None:
        """Wake when the next deadline comes."""
        due_ns = self.state.next_deadline_ns()
        if due_ns >= self._timer_ns and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ns = due_ns
        if due_ns < NEVER:
            delay_s = max(0.0, (due_ns - now_ns) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_ns = None, NEVER
        self.wake()

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
        self._loading.clear()
        self.untold_gap = old
        self._tell_gap()
        self.wake()

    def _end_those_beyond(self, cut: int) -> None:
        for consumer in list(self.consumers.values()):
            if any(offset >= cut for offset in self.state.held_by(consumer.id)):
                self.leave(consumer.id, clean=False)
                consumer.end(history_cut(cut))

    def _tell_gap(self) -> None:
        """Tell those who are pushed to that delivery goes on elsewhere; once somebody has been told, it is done."""
        if self.untold_gap is None:
            return
        new = (self.state.incarnation, self.state.floor)
        told = [consumer for consumer in self.consumers.values() if consumer.id > 0]
        for consumer in told:
            consumer.gap(self.untold_gap, new)
        if told:
            self.untold_gap = None

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
        for consumer in list(self.consumers.values()):
            self.leave(consumer.id, clean=True)
            consumer.end(error)
