"""Pipelined publishing: many requests in flight on one stream, batched per turn of the loop, resent after a
reconnect."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from trunkline.api.status import failure_from
from trunkline.api.v1.events_pb2 import CloudEvent, PublishStreamRequest, PublishStreamResponse
from trunkline.core.errors import DeadlineExceeded, InvalidArgument, TrunklineError, Unreachable
from trunkline.core.model import Sync

from ._backoff import Backoff
from ._duplex import Duplex
from ._edge import Edge
from ._errors import is_transient
from ._event import Event, event_to
from ._link import Link
from ._numbering import UNANSWERED_MAX, Numbering, Verdict, after
from ._publish import Published, named_events, published_from, sync_to
from ._tasks import Tasks

log = logging.getLogger("trunkline.client")

BATCH_EVENTS_MAX = 1_000
BATCH_BYTES_MAX = 512 * 1024
"""A batch is closed when it holds so much; one event may be larger."""
RESEND_AFTER_S = 0.2
"""A batch that failed for a passing reason is sent again after so long."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """Whoever sent a run of events of a batch."""

    first: int
    count: int
    answer: asyncio.Future[Published]


@dataclass(slots=True, eq=False)
class _Batch:
    """Events that go out in one request."""

    expiry: asyncio.TimerHandle | None = None
    sequence: int = 0
    """Tells its answer apart: another one at each attempt."""
    first_sequence: int = 0
    in_doubt: bool = False
    """See Numbered."""
    events: list[Event] = field(default_factory=list)
    messages: list[CloudEvent] = field(default_factory=list)
    bytes: int = 0
    waiting: list[_Waiting] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.events)

    def has_room(self, count: int, size: int) -> bool:
        return len(self.events) + count <= BATCH_EVENTS_MAX and self.bytes + size <= BATCH_BYTES_MAX

    def add(
        self, events: list[Event], messages: list[CloudEvent], size: int, answer: asyncio.Future[Published]
    ) -> None:
        self.waiting.append(_Waiting(len(self.events), len(events), answer))
        self.events += events
        self.messages += messages
        self.bytes += size


class Publisher:
    """Publishes to one stream without waiting for each answer. Use it with `async with`; leaving waits for all answers.

    Events of one publisher are appended in the order of the calls, as long as no request fails. With a `producer` they are
    numbered: none is appended before those of earlier calls, whatever fails, and the first request that fails for good
    ends the publisher. What comes behind it fails with OutOfOrderSequence; all fail with ProducerFenced when another
    publisher of the name has begun.
    """

    silent_after_s: float | None = None

    def __init__(
        self, link: Link, edge: Edge, backoff: Backoff, tasks: Tasks, *, namespace: str, stream: str, source: str,
        require: Sync | None, in_flight_max: int, timeout_s: float, producer: str | None = None, epoch: int | None = None,
    ) -> None:  # fmt: skip
        self._edge = edge
        self._guard = link.guard
        self._tasks = tasks
        self._namespace = namespace
        self._stream_name = stream
        self._source = source
        self._require = sync_to(require)
        self._in_flight_max = in_flight_max
        self._timeout_s = timeout_s
        self._in_flight = 0
        self._last_sequence = 0
        self._gathering: _Batch | None = None
        self._ready: deque[_Batch] = deque()
        self._sent: dict[int, _Batch] = {}
        self._room = asyncio.Event()
        self._closed = False
        self._producer = producer
        self._epoch = epoch
        self._numbering: Numbering | None = None
        self._ended: TrunklineError | None = None
        """Why a producer takes no more."""
        self._resending: asyncio.TimerHandle | None = None
        self._last_error: TrunklineError | None = None
        self._running: asyncio.Task[None] | None = None
        self._stream: Duplex[PublishStreamRequest, PublishStreamResponse] = Duplex(
            link, lambda stubs: stubs.events.PublishStream, self, backoff
        )

    @property
    def in_flight(self) -> int:
        """Events that were sent and are not answered."""
        return self._in_flight

    @property
    def closed(self) -> bool:
        """It takes no more."""
        return self._closed or self._ended is not None

    @property
    def epoch(self) -> int | None:
        """The producer's; None without one, and before it is opened. It grows when the stream had forgotten the producer."""
        return None if self._numbering is None else self._numbering.epoch

    async def publish(self, events: Event | Iterable[Event]) -> Published:
        """Send and wait for the answer."""
        return await (await self.send(events))

    async def send(self, events: Event | Iterable[Event]) -> asyncio.Future[Published]:
        """Wait for room only; the future has the answer, or the error that came instead.

        Events given together are appended together or not at all.
        """
        self._guard.check()
        if self._running is None:
            raise RuntimeError(
                "the publisher is not open: use it inside `async with trunkline.publisher() as publisher`"
            )
        named = named_events(events, source=self._source, edge=self._edge)
        if len(named) > min(BATCH_EVENTS_MAX, self._in_flight_max):
            raise InvalidArgument.of(
                "events", f"at most {min(BATCH_EVENTS_MAX, self._in_flight_max)} at once", len(named)
            )
        messages = [event_to(event) for event in named]
        while self._in_flight + len(named) > self._in_flight_max and not self.closed:
            self._room.clear()
            await self._room.wait()
        if self._ended is not None:
            raise after(self._ended)
        if self._closed:
            raise Unreachable("the publisher is closed")
        answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        size = sum(message.ByteSize() for message in messages)
        self._batch_with_room(len(named), size).add(named, messages, size, answer)
        self._in_flight += len(named)
        self._stream.wake()
        return answer

    async def flush(self) -> None:
        """Return when all that was sent before is answered, well or not."""
        answers = [waiting.answer for batch in self._unanswered() for waiting in batch.waiting]
        if answers:
            await asyncio.wait(answers)

    async def close(self) -> None:
        """Wait for all answers (each has its deadline), then end the stream. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._room.set()
        try:
            await self.flush()
        finally:
            if self._running is not None:
                self._running.cancel()
            if self._resending is not None:
                self._resending.cancel()
            for batch in self._unanswered():
                self._fail(batch, Unreachable("the publisher is closed"))

    async def __aenter__(self) -> Self:
        if self._producer is not None:
            # Later starts have later epochs: as good as the clocks of those who share the name.
            epoch = self._edge.clock.time_ns() // 1_000_000 if self._epoch is None else self._epoch
            self._numbering = Numbering(self._producer, epoch)
        self._running = self._tasks.spawn(self._stream.run(), name=f"publisher to {self._stream_name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # What the stream asks.

    def opening(self) -> Sequence[PublishStreamRequest]:
        again = list(self._sent.values())
        self._sent.clear()
        for batch in again:
            batch.in_doubt = True  # its answer went down with the last stream
        return [self._request(batch) for batch in again] + list(self.outgoing())

    def outgoing(self) -> Sequence[PublishStreamRequest]:
        requests: list[PublishStreamRequest] = []
        while self._numbering is None or len(self._sent) < UNANSWERED_MAX:
            batch = self._ready.popleft() if self._ready else self._gathering
            if batch is None:
                break
            if batch is self._gathering:
                self._gathering = None
            requests.append(self._request(batch))
        return requests

    def received(self, response: PublishStreamResponse) -> None:
        batch = self._sent.get(response.sequence)
        if batch is None:
            return  # expired meanwhile, or answered before a reconnect
        if not response.HasField("error"):
            self._last_error = None
            self._answered(batch, published_from(response, self._stream_name, batch.events))
            return
        error = failure_from(response.error)
        if self._numbering is not None:
            self._refused(self._numbering, batch, error)
        elif is_transient(error):
            self._last_error = error
            asyncio.get_running_loop().call_later(RESEND_AFTER_S, self._resend, batch)
        else:
            self._fail(batch, error)

    def lost(self, error: TrunklineError) -> None:
        self._last_error = error
        if is_transient(error):
            return
        if self._numbering is not None:
            self._end(error)
        for batch in list(self._sent.values()):
            self._fail(batch, error)

    # What only a producer does.

    def _refused(self, numbering: Numbering, batch: _Batch, error: TrunklineError) -> None:
        is_first = batch is next(iter(self._sent.values()))
        match numbering.verdict(batch, error, is_first=is_first):
            case Verdict.RESEND:
                self._last_error = error
                if self._resending is None:
                    self._resending = asyncio.get_running_loop().call_later(RESEND_AFTER_S, self._resend_all)
            case Verdict.BEGIN_ANEW:
                log.info("the stream has forgotten the producer", extra={"producer": numbering.producer})
                numbering.begin_anew(self._sent.values())
                self._resend_all()
            case Verdict.END:
                self._end(error, batch)

    def _resend_all(self) -> None:
        """All that is unanswered, in order: what is behind a request that was refused was refused with it."""
        if self._resending is not None:
            self._resending.cancel()
            self._resending = None
        self._ready.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        self._stream.wake()

    def _end(self, error: TrunklineError, refused: _Batch | None = None) -> None:
        """Take no more. Those behind a request that was refused are told that; without one, all are told why."""
        self._ended = error
        for batch in self._unanswered():
            self._fail(batch, error if refused in (None, batch) else after(error))
        self._room.set()

    # Batches.

    def _batch_with_room(self, count: int, size: int) -> _Batch:
        if self._gathering is not None and not self._gathering.has_room(count, size):
            self._ready.append(self._gathering)
            self._gathering = None
        if self._gathering is None:
            batch = self._gathering = _Batch()
            batch.expiry = asyncio.get_running_loop().call_later(self._timeout_s, self._expire, batch)
        return self._gathering

    def _unanswered(self) -> list[_Batch]:
        return [*self._sent.values(), *self._ready, *([self._gathering] if self._gathering else [])]

    def _request(self, batch: _Batch) -> PublishStreamRequest:
        """Another attempt."""
        self._last_sequence += 1
        batch.sequence = self._last_sequence
        self._sent[batch.sequence] = batch
        request = PublishStreamRequest(
            namespace=self._namespace,
            stream=self._stream_name,
            require_sync=self._require,
            sequence=batch.sequence,
            events=batch.messages,
        )
        if self._numbering is not None:
            self._numbering.number(batch)
            request.producer = self._numbering.producer
            request.producer_epoch = self._numbering.epoch
            request.first_sequence = batch.first_sequence
        return request

    def _resend(self, batch: _Batch) -> None:
        if self._sent.pop(batch.sequence, None) is not None:
            self._ready.append(batch)
            self._stream.wake()

    def _expire(self, batch: _Batch) -> None:
        error = self._last_error or DeadlineExceeded(f"no answer within {self._timeout_s:g} s")
        if self._numbering is not None:
            self._end(error)  # what is behind it may have been published, or not: that is all there is to say of any
        else:
            self._fail(batch, error)

    def _answered(self, batch: _Batch, published: Published) -> None:
        for waiting in batch.waiting:
            if not waiting.answer.done():
                part = published.events[waiting.first : waiting.first + waiting.count]
                waiting.answer.set_result(replace(published, events=part))
        self._settle(batch)

    def _fail(self, batch: _Batch, error: TrunklineError) -> None:
        for waiting in batch.waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        self._settle(batch)

    def _settle(self, batch: _Batch) -> None:
        if batch.expiry is not None:
            batch.expiry.cancel()
        self._sent.pop(batch.sequence, None)
        if batch in self._ready:
            self._ready.remove(batch)
        if self._gathering is batch:
            self._gathering = None
        self._in_flight -= len(batch.events)
        self._room.set()
        if self._numbering is not None and (self._ready or self._gathering is not None):
            self._stream.wake()  # there is room for one more request
