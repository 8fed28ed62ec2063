"""Streams and subscriptions in memory. Time is an argument, in nanoseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from trunkline.api import convert
from trunkline.api.attribute_filters import AttributeFilters
from trunkline.api.v1.events_pb2 import CloudEvent, PublishedRange, StartPosition, SubscriptionConfig
from trunkline.core.errors import PositionMismatch, SequenceReused
from trunkline.core.fanout import matches
from trunkline.core.sequences import NumberedRun, Producers

ACK_DEADLINE_MS_DEFAULT = 30_000
MAX_DELIVERIES_DEFAULT = 20
KEY_ATTRIBUTE = "partitionkey"


@dataclass(frozen=True, slots=True)
class Record:
    """One event of a stream."""

    offset: int
    time_ns: int
    topic: str
    event: CloudEvent


Takes = Callable[[Record], bool]
PRODUCERS_MAX = 1_000
FOR_EVER = 1 << 62


class MemoryStream:
    """An append-only list of events; `(source, id)`, and what a producer numbered, is recognised for ever. One that is to be
    compacted keeps them all, too, as the server does for a while."""

    def __init__(self) -> None:
        self.incarnation = 1
        self.first_offset = 0
        self.records: list[Record] = []
        self._offsets: dict[tuple[str, str], int] = {}
        self.forget_producers()

    def forget_producers(self) -> None:
        """As a stream does when its dedupe window has passed."""
        self._producers = Producers(producers_max=PRODUCERS_MAX, window_ns=FOR_EVER, events_max=FOR_EVER)

    @property
    def next_offset(self) -> int:
        """What the next event gets."""
        return self.first_offset + len(self.records)

    def append(self, events: list[CloudEvent], *, time_ns: int) -> list[PublishedRange]:
        """Where the events are; those that were there before are not appended again."""
        runs: list[PublishedRange] = []
        for event in events:
            known = self._offsets.get((event.source, event.id))
            offset = self.next_offset if known is None else known
            if known is None:
                self._offsets[event.source, event.id] = offset
                self.records.append(Record(offset, time_ns, topic_of(event), event))
            last = runs[-1] if runs else None
            if last is not None and last.duplicate == (known is not None) and last.offset + last.count == offset:
                last.count += 1
            else:
                runs.append(PublishedRange(offset=offset, count=1, duplicate=known is not None))
        return runs

    def append_numbered(
        self, run: NumberedRun, events: list[CloudEvent], *, time_ns: int, expected_offset: int | None
    ) -> list[PublishedRange]:
        """Where the events of a producer are; refused as a stream does: see trunkline.core.sequences, and SequenceReused."""
        repeated = self._producers.repeated(run)
        known = [place.offset + index for place in repeated for index in range(place.count)]
        for index, (offset, event) in enumerate(zip(known, events, strict=False)):
            stored = self.get(offset).event if offset >= self.first_offset else event
            if (stored.source, stored.id) != (event.source, event.id):
                raise SequenceReused(f"sequence {run.first_sequence + index} stands for another event")
        runs = [PublishedRange(offset=place.offset, count=place.count, duplicate=True) for place in repeated]
        fresh = events[len(known) :]
        if fresh:
            if expected_offset not in (None, self.next_offset):
                raise PositionMismatch(f"the next event gets offset {self.next_offset}", next=str(self.next_offset))
            part = run.part(len(known), run.count)
            assert part is not None
            self._producers.enter(part, self.next_offset, time_ns)
            self._producers.settle(run.producer, self.next_offset + len(fresh))
            runs.append(PublishedRange(offset=self.next_offset, count=len(fresh), duplicate=False))
            for event in fresh:
                self.records.append(Record(self.next_offset, time_ns, topic_of(event), event))
        return runs

    def expect(self, events: list[CloudEvent], expected_offset: int) -> None:
        """PositionMismatch when the first of the events that are new would get another offset."""
        if expected_offset != self.next_offset and any((one.source, one.id) not in self._offsets for one in events):
            raise PositionMismatch(f"the next event gets offset {self.next_offset}", next=str(self.next_offset))

    def get(self, offset: int) -> Record:
        """The record at an offset that is kept."""
        return self.records[offset - self.first_offset]

    def remove_before(self, offset: int) -> None:
        """Retention: keep nothing below."""
        keep_from = min(max(offset - self.first_offset, 0), len(self.records))
        del self.records[:keep_from]
        self.first_offset += keep_from

    def begin_anew(self) -> None:
        """Another history: as after a restore from a backup, or an unclean start of a stream that is not synced."""
        self.incarnation += 1
        self.first_offset = 0
        self.records.clear()
        self._offsets.clear()
        self.forget_producers()

    def latest_per_key(self, takes: Takes) -> frozenset[int]:
        """The offsets of the last events of each key among those that a subscription takes."""
        taken = [record for record in self.records if takes(record)]
        return frozenset({key: r.offset for r in taken if (key := text_of(r.event, KEY_ATTRIBUTE))}.values())

    def start(self, position: StartPosition) -> int:
        """The offset at which a new subscription begins."""
        match position.WhichOneof("start"):
            case "earliest" | "last_per_key":
                return self.first_offset
            case "offset":
                return max(position.offset, self.first_offset)
            case "time":
                when_ns = convert.time_ns_from(position.time)
                return next((record.offset for record in self.records if record.time_ns >= when_ns), self.next_offset)
        return self.next_offset


@dataclass(slots=True)
class OpenDelivery:
    """A delivery that is not acknowledged."""

    consumer: object
    deadline_ns: int


@dataclass(slots=True)
class MemorySubscription:
    """What a subscription has done, and what is to be delivered again."""

    stream: MemoryStream
    config: SubscriptionConfig
    filters: Takes
    incarnation: int
    next_offset: int
    open: dict[int, OpenDelivery] = field(default_factory=dict)
    again: dict[int, int] = field(default_factory=dict)
    """Offsets to deliver again, and not before when."""
    attempts: dict[int, int] = field(default_factory=dict)
    set_aside: dict[int, str] = field(default_factory=dict)
    """Offsets, and why."""
    bury: Callable[[Record, int, str], None] | None = None
    """Given what would be set aside, its attempts and why, where there is a stream for dead letters."""
    held: list[int] = field(default_factory=list)
    """Offsets behind others of their lane."""
    latest: frozenset[int] | None = None
    """With the start `last_per_key`: what is taken of what was there ..."""
    latest_below: int = 0
    """... below this offset."""

    @property
    def ack_deadline_ns(self) -> int:
        """How long a delivery may stand open."""
        return convert.ms_from(self.config, "ack_deadline", ACK_DEADLINE_MS_DEFAULT) * 1_000_000

    def gap(self) -> tuple[int, int] | None:
        """The incarnation and offset that were lost, when the stream no longer has what comes next."""
        old = self.incarnation, self.next_offset
        if self.incarnation == self.stream.incarnation and self.next_offset >= self.stream.first_offset:
            return None
        if self.incarnation != self.stream.incarnation:
            self.open.clear()
            self.again.clear()
            self.attempts.clear()
            self.held.clear()
        self.incarnation, self.next_offset = self.stream.incarnation, self.stream.first_offset
        return old

    def take(self, consumer: object, *, now_ns: int) -> tuple[Record, int] | None:
        """The next delivery and its attempt, from now on open at this consumer."""
        offset = self._next(now_ns)
        if offset is None:
            return None
        attempt = self.attempts.get(offset, 0) + 1
        self.attempts[offset] = attempt
        self.open[offset] = OpenDelivery(consumer, now_ns + self.ack_deadline_ns)
        return self.stream.get(offset), attempt

    def _next(self, now_ns: int) -> int | None:
        for offset, not_before_ns in sorted(self.again.items()):
            if not_before_ns <= now_ns:
                del self.again[offset]
                return offset
        self.held = [offset for offset in self.held if offset >= self.stream.first_offset]
        busy = {self._lane(offset) for offset in (*self.open, *self.again)} - {None}
        for offset in self.held:
            lane = self._lane(offset)
            if lane not in busy:
                self.held.remove(offset)
                return offset
            busy.add(lane)
        while self.next_offset < self.stream.next_offset and len(self.held) < HELD_MAX:
            record = self.stream.get(self.next_offset)
            self.next_offset += 1
            if not self._takes(record):
                continue
            if self._lane(record.offset) not in busy:
                return record.offset
            self.held.append(record.offset)
        return None

    def _takes(self, record: Record) -> bool:
        if self.latest is not None and record.offset < self.latest_below:
            return record.offset in self.latest
        return self.filters(record)

    def _lane(self, offset: int) -> str | None:
        """Of events with the same one, one is delivered at a time."""
        if self.config.ordering == SubscriptionConfig.ORDERING_SEQUENTIAL:
            return ""
        if self.config.ordering != SubscriptionConfig.ORDERING_KEYED:
            return None
        if offset < self.stream.first_offset:
            return None  # it is kept no more
        return text_of(self.stream.get(offset).event, self.config.key_attribute or KEY_ATTRIBUTE)

    def _backoff_ns(self, offset: int) -> int:
        delays = self.config.backoff
        return delays[min(self.attempts[offset], len(delays)) - 1].ToNanoseconds() if delays else 0

    def settle(self, offset: int, outcome: int, *, delay_ms: int | None, reason: str, now_ns: int) -> bool:
        """Take a consumer's word. False when no delivery stands open there."""
        if offset not in self.open:
            return False
        if outcome == PROGRESS:
            self.open[offset].deadline_ns = now_ns + self.ack_deadline_ns
            return True
        del self.open[offset]
        if outcome == NACK:
            delay_ns = self._backoff_ns(offset) if delay_ms is None else delay_ms * 1_000_000
            why = f"it was refused by its consumer: {reason}" if reason else "it was refused by its consumer"
            self._put_off(offset, now_ns + delay_ns, why)
        elif outcome == TERM:
            self._set_aside(offset, reason or "ended by its consumer")
        return True

    def _put_off(self, offset: int, not_before_ns: int, why: str) -> None:
        """Deliver again, or no more if that has been done often enough."""
        attempts = self.attempts[offset]
        if attempts >= (self.config.max_deliveries or MAX_DELIVERIES_DEFAULT):
            self._set_aside(offset, f"delivered {attempts} times; at last {why}")
        else:
            self.again[offset] = not_before_ns

    def _set_aside(self, offset: int, reason: str) -> None:
        if self.bury is None:
            self.set_aside[offset] = reason
        elif offset >= self.stream.first_offset:
            self.bury(self.stream.get(offset), self.attempts[offset], reason)

    def give_back(self, consumer: object, *, clean: bool, now_ns: int) -> None:
        """The consumer is gone; `clean` if it said so: then it had not begun with what comes back."""
        for offset, delivery in list(self.open.items()):
            if delivery.consumer is consumer:
                del self.open[offset]
                self.attempts[offset] -= clean
                self._put_off(offset, now_ns, "its consumer went away")

    def overdue(self, now_ns: int) -> None:
        """Deliveries that stood open for too long come again."""
        for offset, delivery in list(self.open.items()):
            if delivery.deadline_ns <= now_ns:
                del self.open[offset]
                self._put_off(offset, now_ns + self._backoff_ns(offset), "it was not acknowledged in time")


HELD_MAX = 10_000
"""Events behind others of their lane, before no more is looked at."""
ACK, NACK, TERM, PROGRESS = 1, 2, 3, 4
"""Acknowledgement.Outcome."""


def takes_of(config: SubscriptionConfig) -> Takes:
    """What the filters take. InvalidArgument."""
    topics = tuple(config.filters)
    attributes = AttributeFilters.of(config.attribute_filters, field="config.attribute_filters")

    def takes(record: Record) -> bool:
        is_wanted = not topics or any(matches(one, record.topic) for one in topics)
        return is_wanted and attributes.take(record.event)

    return takes


def text_of(event: CloudEvent, name: str) -> str | None:
    """A string attribute; None if it has none."""
    return event.attributes[name].ce_string or None if name in event.attributes else None


def topic_of(event: CloudEvent) -> str:
    """The attribute `topic`, else the type."""
    topic = event.attributes["topic"].ce_string if "topic" in event.attributes else ""
    return topic or event.type
