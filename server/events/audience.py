"""Who consumes a subscription, and what they say of deliveries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trunkline.api import convert
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import TrunklineError

from .consumer import Consumer
from .delivery import Delivery, Settled
from .dispatcher import Dispatcher, history_cut
from .subscription import SubscriptionState

CLIENTS_UNCHECKED_MAX = 64
"""Names of calls that pulled, beyond twice the deliveries in flight, before those that hold nothing are forgotten."""
_Ack = events_pb2.Acknowledgement


class Audience(ABC):
    """A subscription's state and its consumers; `wake` is to be called whenever something has changed."""

    def __init__(self, dispatcher: Dispatcher[Any], state: SubscriptionState, clock: Clock) -> None:
        self.state = state
        self.consumers: dict[int, Consumer] = {}
        self.client_of: dict[int, str] = {}
        """Those that pulled and hold deliveries, by id."""
        self.untold_gap: tuple[int, int] | None = None
        """The place it stood at before its stream's history changed, until a consumer has been told."""
        self._dispatcher = dispatcher
        self._clock = clock

    @abstractmethod
    def wake(self) -> None:
        """Something changed: go on in the next turn of the loop."""

    @abstractmethod
    def settled(self) -> None:
        """Events were settled, or a consumer takes more: go on if there is anything to go on with."""

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
        self.settled()

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

    def _end_those_beyond(self, cut: int) -> None:
        held_by = self.state.held_by
        beyond = [one for one in self.consumers.values() if any(offset >= cut for offset in held_by(one.id))]
        self._dismiss(beyond, history_cut(cut), clean=False)

    def _dismiss(self, consumers: Sequence[Consumer], error: TrunklineError, *, clean: bool) -> None:
        """They have to come again."""
        for consumer in consumers:
            self.leave(consumer.id, clean=clean)
            consumer.end(error)

    def clients(self) -> list[str]:
        """Names of those that consume or hold deliveries."""
        self._forget_clients()
        names = {consumer.client for consumer in self.consumers.values()} | set(self.client_of.values())
        return sorted(name for name in names if name)

    def name_of(self, consumer_id: int) -> str:
        """A consumer's name for itself; for one that pulled, the one its call gave."""
        consumer = self.consumers.get(consumer_id)
        return (self.client_of.get(consumer_id, "") if consumer is None else consumer.client) or "a consumer"

    def in_flight_by_client(self) -> Counter[str]:
        """Deliveries that stand open, by the name of who has them."""
        found: Counter[str] = Counter()
        for consumer_id, count in self.state.holders().items():
            found[self.name_of(consumer_id)] += count
        return found

    def _forget_clients(self) -> None:
        """Those that hold nothing any more."""
        holders = self.state.holders()
        self.client_of = {consumer: name for consumer, name in self.client_of.items() if consumer in holders}

    # Settling.

    def settle(
        self,
        outcome: int,
        offsets: Sequence[int],
        consumer_id: int | None,
        *,
        delay_ns: int | None = None,
        reason: str = "",
    ) -> list[tuple[int, Settled]]:
        """Acknowledgements; `consumer_id` None stands for one that pulled. Returns offsets that were not open, and why.

        `delay_ns` None stands for the subscription's backoff.
        """
        state, now_ns, time_ns = self.state, self._clock.now_ns(), self._clock.time_ns()
        not_open: list[tuple[int, Settled]] = []
        for offset in offsets:
            if outcome == _Ack.OUTCOME_ACK:
                settled = state.ack(offset, consumer_id)
            elif outcome == _Ack.OUTCOME_NACK:
                settled = state.nack(
                    offset, consumer_id, delay_ns=delay_ns, now_ns=now_ns, time_ns=time_ns, reason=reason
                )
            elif outcome == _Ack.OUTCOME_TERM:
                settled = state.term(offset, consumer_id, reason=reason, time_ns=time_ns)
            else:
                assert outcome == _Ack.OUTCOME_PROGRESS
                settled = state.progress(offset, consumer_id, now_ns=now_ns)
            if settled is not Settled.DONE:
                not_open.append((offset, settled))
        self.settled()
        return not_open

    def acknowledge(self, message: events_pb2.Acknowledgement, consumer_id: int | None) -> list[tuple[int, Settled]]:
        """See settle."""
        delay_ns = convert.ms_from(message, "delay", 0) * 1_000_000 if message.HasField("delay") else None
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

    def _return(self, delivery: Delivery) -> None:
        """A delivery that was not sent after all."""
        if self.state.holds(delivery):
            self.state.give_back(
                delivery.offset, clean=True, now_ns=self._clock.now_ns(), time_ns=self._clock.time_ns()
            )

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
