"""What producers have published to a stream, by the numbers that they give their events.

A producer numbers its events 1, 2, 3, ... anew in each of its epochs. What it says next is a repeat, the next, or
refused. Pure: offsets and times come in as arguments. What was taken in and is not durable yet counts, and can be
taken back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .errors import DuplicateSequence, LimitExceeded, OutOfOrderSequence, ProducerFenced, UnknownProducer

REQUESTS_REMEMBERED = 256
"""Requests of a producer whose offsets are remembered, at least; those that lie behind one another count as one."""
FIRST_SEQUENCE = 1
"""Of each epoch."""


@dataclass(slots=True)
class NumberedRun:
    """Events that a producer numbered without a gap: `count` records from index `first_record` on of a batch or block.

    What is in it must not be changed. (To freeze it doubles what a small publish pays for being numbered.)
    """

    first_record: int
    count: int
    producer: str
    epoch: int
    first_sequence: int

    @property
    def end_record(self) -> int:
        """The index behind the last."""
        return self.first_record + self.count

    @property
    def end_sequence(self) -> int:
        """The number that comes next."""
        return self.first_sequence + self.count

    def part(self, first: int, last: int) -> NumberedRun | None:
        """What of it is among the records [first, last), which stand alone; None when nothing is."""
        begin, end = max(self.first_record, first), min(self.end_record, last)
        if begin >= end:
            return None
        first_sequence = self.first_sequence + begin - self.first_record
        return NumberedRun(begin - first, end - begin, self.producer, self.epoch, first_sequence)

    def moved(self, records: int) -> NumberedRun:
        """The same events, behind so many other records."""
        return NumberedRun(self.first_record + records, self.count, self.producer, self.epoch, self.first_sequence)

    def behind(self, run: NumberedRun, records: int) -> NumberedRun | None:
        """Both as one, when this one, moved by `records`, goes on where `run` ends."""
        end = run.end_record, run.producer, run.epoch, run.end_sequence
        if (self.first_record + records, self.producer, self.epoch, self.first_sequence) != end:
            return None
        return NumberedRun(run.first_record, run.count + self.count, run.producer, run.epoch, run.first_sequence)


@dataclass(slots=True)
class Place:
    """Where numbered events lie: `count` of them from an offset on. What is in it must not be changed."""

    first_sequence: int
    offset: int
    count: int

    @property
    def end_sequence(self) -> int:
        return self.first_sequence + self.count

    @property
    def end_offset(self) -> int:
        return self.offset + self.count


@dataclass(slots=True, eq=False)
class _Epoch:
    """What is known of a producer's latest epoch. `places` is never empty."""

    number: int
    places: deque[Place]
    time_ns: int
    before: _Epoch | None = field(default=None)
    """What this one fenced, until the first event of this one is durable."""

    @property
    def next_sequence(self) -> int:
        return self.places[-1].end_sequence

    @property
    def end_offset(self) -> int:
        return self.places[-1].end_offset

    def repeated(self, run: NumberedRun) -> list[Place]:
        """Where the events of `run` lie that were published before, in their order. DuplicateSequence."""
        end = min(run.end_sequence, self.next_sequence)
        first_known = self.places[0].first_sequence
        if run.first_sequence < first_known:
            raise DuplicateSequence(
                f"sequence {run.first_sequence} of producer {run.producer} was published; "
                f"offsets are remembered from sequence {first_known} on",
                first_remembered=str(first_known),
            )
        found: list[Place] = []
        for place in self.places:
            begin, stop = max(place.first_sequence, run.first_sequence), min(place.end_sequence, end)
            if begin < stop:
                found.append(Place(begin, place.offset + begin - place.first_sequence, stop - begin))
        return found

    def enter(self, place: Place) -> None:
        last = self.places[-1]
        if last.end_sequence == place.first_sequence and last.end_offset == place.offset:
            self.places[-1] = Place(last.first_sequence, last.offset, last.count + place.count)
        else:
            self.places.append(place)

    def take_back(self, offset: int) -> bool:
        """Forget what lies at an offset and behind it; False when nothing is left."""
        while self.places and self.places[-1].offset >= offset:
            self.places.pop()
        if self.places and self.places[-1].end_offset > offset:
            last = self.places[-1]
            self.places[-1] = Place(last.first_sequence, last.offset, offset - last.offset)
        return bool(self.places)


class Producers:
    """The producers of one stream.

    One is remembered until stream time is `window_ns` beyond its last event, or `events_max` others came behind that. When
    `producers_max` are remembered, a new one is refused: to forget another for it would end what that one was promised.
    """

    def __init__(self, *, producers_max: int, window_ns: int, events_max: int) -> None:
        self._producers_max = producers_max
        self._window_ns = window_ns
        self._events_max = events_max
        self._known: dict[str, _Epoch] = {}
        """By name; the one that published last stands last."""

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def repeated(self, run: NumberedRun) -> Sequence[Place]:
        """Where the first events of `run` lie, as far as they were published before; the others come next.

        Call `expire` first. Raises ProducerFenced, UnknownProducer, OutOfOrderSequence, DuplicateSequence,
        LimitExceeded.
        """
        known = self._known.get(run.producer)
        if known is None or run.epoch > known.number:
            if run.first_sequence != FIRST_SEQUENCE:
                raise UnknownProducer(
                    f"epoch {run.epoch} of producer {run.producer} is not known: one that is new begins with sequence "
                    f"{FIRST_SEQUENCE}, not {run.first_sequence}",
                    expected=str(FIRST_SEQUENCE),
                )
            if known is None and len(self._known) >= self._producers_max:
                raise LimitExceeded("producers_per_stream_max", self._producers_max)
            return ()
        if run.epoch < known.number:
            raise ProducerFenced(
                f"epoch {run.epoch} of producer {run.producer} is fenced by epoch {known.number}",
                epoch=str(known.number),
            )
        if run.first_sequence == known.next_sequence:
            return ()
        if run.first_sequence > known.next_sequence:
            raise OutOfOrderSequence(
                f"producer {run.producer} has to publish sequence {known.next_sequence} next, not {run.first_sequence}",
                expected=str(known.next_sequence),
            )
        return known.repeated(run)

    def epoch_is_unsettled(self, producer: str) -> bool:
        """Whether the producer's epoch rests on an append that is not durable: when that fails, the one before is back."""
        known = self._known.get(producer)
        return known is not None and known.before is not None

    def enter(self, run: NumberedRun, offset: int, time_ns: int) -> None:
        """Events that `repeated` found to be next were given their place; whether they will be durable is not known."""
        place = Place(run.first_sequence, offset, run.count)
        known = self._known.pop(run.producer, None)
        if known is None or known.number != run.epoch:
            known = _Epoch(run.epoch, deque((place,)), time_ns, known)
        else:
            known.enter(place)
            known.time_ns = time_ns
        self._known[run.producer] = known

    def settle(self, producer: str, end_offset: int) -> None:
        """What of the producer lies below `end_offset` is durable."""
        known = self._known.get(producer)
        if known is None:
            return
        if known.places[0].offset < end_offset:
            known.before = None
        # One that is durable stays: what is behind it may be taken back.
        while len(known.places) > REQUESTS_REMEMBERED and known.places[1].end_offset <= end_offset:
            known.places.popleft()

    def take_back(self, producer: str, offset: int) -> None:
        """An append failed that would have begun at an offset: forget what of the producer lies there and behind."""
        known = self._known.get(producer)
        while known is not None and not known.take_back(offset):
            known = known.before
        if known is None:
            self._known.pop(producer, None)
        else:
            self._known[producer] = known

    def learn(self, run: NumberedRun, base_offset: int, time_ns: int) -> None:
        """A run of a block that is in the log, in its order. What the log holds was right when it was taken in."""
        known = self._known.get(run.producer)
        if known is not None and (known.number, known.next_sequence) != (run.epoch, run.first_sequence):
            del self._known[run.producer]  # another epoch, or one that was forgotten and began anew
        offset = base_offset + run.first_record
        self.enter(run, offset, time_ns)
        self.settle(run.producer, offset + run.count)

    def expire(self, now_ns: int, next_offset: int) -> None:
        """Forget whom the window has left at stream time `now_ns`, when `next_offset` is the next to be given."""
        while self._known:
            producer, known = next(iter(self._known.items()))
            is_recent = now_ns - known.time_ns < self._window_ns and next_offset - known.end_offset < self._events_max
            if is_recent:
                return
            del self._known[producer]
