"""A subscription as a consumer holds it: deliveries in, words of them out, credit given back as they are settled."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from trunkline.api.v1 import events_pb2
from trunkline.api.v1.events_pb2 import (
    Acknowledgement,
    AddCredit,
    OpenSubscription,
    SubscribeRequest,
    SubscriptionConfig,
    SubscriptionNotice,
)
from trunkline.core.errors import TrunklineError

from ._consumer import consume
from ._delivery import Delivery, Said
from ._event import event_from
from ._fork import ForkGuard
from ._ledger import FIRST, LastWord, Ledger, Verdict
from ._place import Place
from ._resume import Mark, ResumePoint

log = logging.getLogger("trunkline.client")

GAPS_KEPT = 16
GONE_WITHIN_S = 2.0
"""How long leaving `async with` waits for the control plane to know."""
LOST_WORDS_KNOWN_S = 30.0
"""After a reconnect, an event that comes again although it was settled on the old connection is settled again in the same
way for so long, and not handed on: the word of it was lost on the way."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The stream has another history now, or records went by retention before they were delivered."""

    old_incarnation: int
    old_offset: int
    """How far the subscription had come."""
    incarnation: int
    next_offset: int
    """Where it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSpec:
    """What is subscribed to, and how."""

    namespace: str
    stream: str
    name: str
    """Empty: ephemeral."""
    config: SubscriptionConfig
    credit: int
    acknowledge: bool
    """False: deliveries need no word (ephemeral only)."""
    client: str
    on_gap: Callable[[Gap], None] | None = field(default=None)


class Speaker(Protocol):
    """The stream that all subscriptions of a connection share."""

    def wake(self) -> None:
        """There is something to say."""

    def close_subscription(self, subscription: Subscription) -> None:
        """Nothing more is wanted; `gone` is called when the control plane knows, or cannot be asked."""


class Subscription:
    """Iterate over it for deliveries. `async with` closes it; so does leaving a plain `async for`.

    A durable subscription goes on where it left off, whoever consumes it. An ephemeral one ends with the connection,
    and after a reconnect goes on where it was.
    """

    def __init__(self, speaker: Speaker, spec: SubscriptionSpec, guard: ForkGuard) -> None:
        self._speaker = speaker
        self._spec = spec
        self._guard = guard
        self._ledger = self._new_ledger()
        self._resume = ResumePoint()
        self._place = Place(self)
        self._said = Said()
        self._credit_back = 0
        self._charged: set[int] = set()
        """Offsets received on this connection whose credit is not given back yet."""
        self._incarnation = 0
        self._told_to = 0
        self._opened_at_s = 0.0
        self._received_to = 0
        self._queue: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._opened = asyncio.Event()
        self._gaps: deque[Gap] = deque(maxlen=GAPS_KEPT)
        self._entered = False
        self._stopped = False
        self._closed = False
        self._consumed: asyncio.Event | None = None
        self._error: TrunklineError | None = None
        self._gone = asyncio.Event()

    @property
    def name(self) -> str:
        """Empty for an ephemeral one."""
        return self._spec.name

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The latest gaps, oldest first."""
        return tuple(self._gaps)

    @property
    def in_hand(self) -> int:
        """Deliveries that are not settled, those that wait to be read included."""
        return self._ledger.in_hand

    @property
    def reached(self) -> int:
        """The offset up to which the control plane has said that there is nothing more for it. Ephemeral: every 5 s."""
        return self._told_to

    async def opened(self) -> None:
        """Return when the control plane has confirmed the subscription: what is published from now on is delivered."""
        self._guard.check()
        await self._opened.wait()
        if self._error is not None:
            raise self._error

    async def next(self) -> Delivery | None:
        """The next delivery; None when the subscription is closed. Raises what the control plane refuses it with."""
        self._guard.check()
        while not self._stopped and not self._queue:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        if self._stopped:
            return None
        delivery = self._queue.popleft()
        if not self._spec.acknowledge:
            delivery.settled = True
            self._ledger.settle(delivery.offset, again=False)
            self._give_credit(delivery.offset)
            self._speaker.wake()
        return delivery

    async def next_batch(self, max_events: int = 100, *, within_s: float = 1.0) -> list[Delivery]:
        """Up to `max_events` deliveries: what comes within `within_s` seconds of the first, for which it waits. Empty when
        the subscription is closed; raises what `next` does.
        """
        first = await self.next()
        batch = [] if first is None else [first]
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while 0 < len(batch) < max_events and (delivery := await self.next()) is not None:
                    batch.append(delivery)
        return batch

    async def consume(
        self, handler: Callable[[Delivery], Awaitable[None]], *, concurrency: int = 1, nack_delay_s: float | None = 1.0,
        finish_within_s: float = 10.0,
    ) -> None:  # fmt: skip
        """Handle deliveries, at most `concurrency` at a time, until closed or cancelled.

        A handler that returns acknowledges (unless it said something itself); one that raises is logged, and the event
        comes again after `nack_delay_s` (None: the subscription's backoff). At the end no more is taken, handlers get
        `finish_within_s` to finish, and what is not done then is given back.
        """
        self._guard.check()
        if self._consumed is not None:
            raise RuntimeError("the subscription is being consumed")
        self._consumed = asyncio.Event()
        try:
            await consume(
                self, handler, concurrency=concurrency, nack_delay_s=nack_delay_s, finish_within_s=finish_within_s
            )
        finally:
            self._end()
            self._consumed.set()

    def close(self) -> None:
        """Take no more; what is in hand and not settled is given back. Idempotent.

        `consume` lets its handlers finish first.
        """
        self._stopped = True
        self._arrived.set()
        if self._consumed is None:
            self._end()

    async def finished(self) -> None:
        """Return when it is closed and no handler runs any more."""
        if self._consumed is not None:
            await self._consumed.wait()

    def _end(self) -> None:
        self._stopped = True
        if not self._closed:
            self._closed = True
            self._opened.set()
            if not self._guard.forked:
                self._speaker.close_subscription(self)

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self._closed:  # else it is being consumed, and `finished` tells when that is over
            with suppress(TimeoutError):
                async with asyncio.timeout(GONE_WITHIN_S):
                    await self._gone.wait()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        try:
            while (delivery := await self.next()) is not None:
                yield delivery
        finally:
            if not self._entered:
                self.close()

    # What deliveries say.

    def say(
        self,
        place: Place,
        delivery: Delivery,
        outcome: Acknowledgement.Outcome.ValueType,
        *,
        delay_ms: int | None = None,
        reason: str = "",
    ) -> None:
        """What a delivery of this place says; see Settler."""
        self._guard.check()
        if place is not self._place or self._closed:
            return
        if outcome != Acknowledgement.OUTCOME_PROGRESS:
            word = FIRST
            if delivery.attempt > 1 or outcome == Acknowledgement.OUTCOME_TERM:
                word = LastWord(delivery.attempt, reason if outcome == Acknowledgement.OUTCOME_TERM else None)
            self._ledger.settle(delivery.offset, again=outcome == Acknowledgement.OUTCOME_NACK, word=word)
            self._give_credit(delivery.offset)
        self._said.add(outcome, delivery.offset, delay_ms=delay_ms, reason=reason)
        self._speaker.wake()

    def _give_credit(self, offset: int) -> None:
        if offset in self._charged:  # else it came on an earlier connection, which took its credit along
            self._charged.discard(offset)
            self._credit_back += 1

    # What the stream does with it.

    def opening(self, subscription_id: int) -> list[SubscribeRequest]:
        """What opens it (again)."""
        spec = self._spec
        ephemeral = not spec.name
        self._ledger.reconnected()
        self._opened_at_s = asyncio.get_running_loop().time()
        self._credit_back = 0
        self._charged.clear()
        request = OpenSubscription(
            subscription_id=subscription_id,
            namespace=spec.namespace,
            stream=spec.stream,
            name=spec.name,
            config=spec.config,
            resume_token=self._resume.token(self._lowest_open()) if ephemeral else b"",
            credit=spec.credit,
            client=spec.client,
            no_acknowledgement=not spec.acknowledge,
        )
        opened = [SubscribeRequest(open=request)]
        said = self._said.take(subscription_id)
        if said and not ephemeral:  # words that were waiting; an ephemeral one has no open deliveries yet
            opened.append(SubscribeRequest(acknowledgements=said))
        return opened

    def outgoing(self, subscription_id: int) -> tuple[list[Acknowledgement], AddCredit | None]:
        """What was said since the last call, and the credit for it."""
        credit, self._credit_back = self._credit_back, 0
        given = AddCredit(subscription_id=subscription_id, credit=credit) if credit else None
        return self._said.take(subscription_id), given

    def delivered(self, message: events_pb2.Delivery) -> None:
        """A delivery came."""
        offset = message.offset
        verdict = self._verdict_on(offset, message.attempt)
        self._charged.add(offset)
        if verdict is Verdict.DONE:
            self._give_credit(offset)
            self._speaker.wake()
        if verdict is not Verdict.NEW:
            return
        self._queue.append(
            Delivery(
                self._place,
                event=event_from(message.event),
                offset=offset,
                incarnation=self._incarnation,
                attempt=message.attempt,
                time_ns=message.time_ns,
            )
        )
        self._arrived.set()

    def _verdict_on(self, offset: int, attempt: int) -> Verdict:
        if self._ledger.knows_lost and asyncio.get_running_loop().time() - self._opened_at_s > LOST_WORDS_KNOWN_S:
            self._ledger.forget_lost()
        if not self._spec.acknowledge and offset < self._received_to:
            return Verdict.DONE
        self._received_to = offset + 1
        verdict = self._ledger.receive(offset, attempt)
        if verdict is Verdict.DONE:
            why_ended = self._ledger.last_word(offset).why_ended
            outcome = Acknowledgement.OUTCOME_ACK if why_ended is None else Acknowledgement.OUTCOME_TERM
            self._said.add(outcome, offset, delay_ms=None, reason=why_ended or "")
        return verdict

    def noticed(self, notice: SubscriptionNotice) -> None:
        """OPENED, BOOKMARK or GAP."""
        if notice.kind == SubscriptionNotice.KIND_GAP:
            self._gap(notice)
        elif notice.kind == SubscriptionNotice.KIND_OPENED:
            self._move_to(notice.incarnation)
            self._opened.set()
        self._told_to = max(self._told_to, notice.next_offset)
        if notice.resume_token:
            self._resume.add(Mark(notice.next_offset, notice.resume_token), self._lowest_open())
            self._ledger.forget_below(self._resume.begins_at())

    def gone(self) -> None:
        """It is closed, and so the control plane has heard all that was said before; or the connection is lost."""
        self._gone.set()

    def moved(self) -> None:
        """The control plane took it to another place: what is in hand, and what was said of it, is of the one before."""
        self._forget_place()
        self._received_to = 0

    def ended(self, error: TrunklineError) -> None:
        """The control plane refuses it for good, and knows nothing more of it."""
        self._error = error
        self._gone.set()
        self._arrived.set()
        self._opened.set()

    def _gap(self, notice: SubscriptionNotice) -> None:
        gap = Gap(notice.old_incarnation, notice.old_offset, notice.incarnation, notice.next_offset)
        self._gaps.append(gap)
        self._move_to(notice.incarnation)
        self._received_to = notice.next_offset
        log.warning("gap in the stream", extra={"subscription": self.name, "stream": self._spec.stream, "gap": gap})
        if self._spec.on_gap is not None:
            self._spec.on_gap(gap)

    def _move_to(self, incarnation: int) -> None:
        if incarnation == self._incarnation:
            return
        if self._incarnation:  # offsets mean other events now: what is in hand comes again, if at all
            self._forget_place()
            self._received_to = 0
        self._incarnation = incarnation

    def _forget_place(self) -> None:
        self._credit_back += len(self._charged)
        self._charged.clear()
        self._ledger = self._new_ledger()
        self._resume = ResumePoint()
        self._place = Place(self)
        self._said.clear()
        self._queue.clear()
        self._told_to = 0

    def _new_ledger(self) -> Ledger:
        return Ledger(durable=bool(self._spec.name))

    def _lowest_open(self) -> int | None:
        return self._ledger.lowest_open if self._spec.acknowledge else None
