"""What a stream remembers of its producers, one rule at a time."""

from __future__ import annotations

import pytest

from trunkline.core.errors import (
    DuplicateSequence,
    LimitExceeded,
    OutOfOrderSequence,
    ProducerFenced,
    TrunklineError,
    UnknownProducer,
)
from trunkline.core.sequences import REQUESTS_REMEMBERED, NumberedRun, Producers


def run(first: int, count: int = 1, *, producer: str = "p", epoch: int = 1, at: int = 0) -> NumberedRun:
    return NumberedRun(at, count, producer, epoch, first)


class Stream:
    """Producers, and offsets that are given to what they take."""

    def __init__(self, *, producers_max: int = 10, window_ns: int = 100, events_max: int = 1_000) -> None:
        self.producers = Producers(producers_max=producers_max, window_ns=window_ns, events_max=events_max)
        self.next_offset = 0
        self.now_ns = 1_000

    def repeated(self, asked: NumberedRun) -> list[tuple[int, int]]:
        self.producers.expire(self.now_ns, self.next_offset)
        return [(place.offset, place.count) for place in self.producers.repeated(asked)]

    def enter(self, asked: NumberedRun) -> int:
        """Take what is next; its offset."""
        assert not self.repeated(asked)
        offset = self.next_offset
        self.producers.enter(asked, offset, self.now_ns)
        self.next_offset += asked.count
        return offset

    def add(self, asked: NumberedRun) -> None:
        self.enter(asked)
        self.producers.settle(asked.producer, self.next_offset)

    def others(self, count: int = 1) -> None:
        """Events of nobody."""
        self.next_offset += count

    def refusal(self, asked: NumberedRun) -> TrunklineError:
        with pytest.raises(TrunklineError) as refused:
            self.repeated(asked)
        return refused.value


def test_the_next_is_taken_a_repeat_is_known_and_a_gap_is_told() -> None:
    stream = Stream()
    stream.add(run(1, 3))
    stream.others()
    stream.add(run(4, 2))
    assert stream.repeated(run(6)) == []
    assert stream.repeated(run(1, 3)) == [(0, 3)]
    assert stream.repeated(run(2, 3)) == [(1, 2), (4, 1)]
    gap = stream.refusal(run(7))
    assert isinstance(gap, OutOfOrderSequence)
    assert gap.fields == {"expected": "6"}


def test_of_a_request_that_is_partly_a_repeat_the_known_part_is_told() -> None:
    stream = Stream()
    stream.add(run(1, 3))
    assert stream.repeated(run(2, 5)) == [(1, 2)]


def test_an_epoch_begins_with_one() -> None:
    stream = Stream()
    unknown = stream.refusal(run(2))
    assert isinstance(unknown, UnknownProducer)
    assert unknown.fields == {"expected": "1"}
    stream.add(run(1, 2))
    assert isinstance(stream.refusal(run(3, epoch=2)), UnknownProducer)
    assert stream.repeated(run(1, epoch=2)) == []


def test_a_newer_epoch_fences_an_older_one() -> None:
    stream = Stream()
    stream.add(run(1, 2, epoch=4))
    stream.add(run(1, epoch=7))
    for first in (1, 2, 3, 9):
        fenced = stream.refusal(run(first, epoch=4))
        assert isinstance(fenced, ProducerFenced)
        assert fenced.fields == {"epoch": "7"}
    assert stream.repeated(run(1, epoch=7)) == [(2, 1)]


def test_producers_do_not_know_of_one_another() -> None:
    stream = Stream()
    stream.add(run(1, 2, producer="a"))
    stream.add(run(1, producer="b", epoch=9))
    stream.add(run(3, producer="a"))
    assert stream.repeated(run(1, 3, producer="a")) == [(0, 2), (3, 1)]


def test_one_is_forgotten_when_the_window_has_left_its_last_event() -> None:
    stream = Stream(window_ns=100)
    stream.add(run(1))
    stream.now_ns += 99
    stream.add(run(2))
    stream.now_ns += 99
    assert stream.repeated(run(2)) == [(1, 1)]
    stream.now_ns += 1
    assert isinstance(stream.refusal(run(3)), UnknownProducer)
    assert stream.repeated(run(1)) == []
    assert len(stream.producers) == 0


def test_one_is_forgotten_behind_too_many_other_events() -> None:
    stream = Stream(events_max=10)
    stream.add(run(1, 2))
    stream.others(9)
    assert stream.repeated(run(1, 2)) == [(0, 2)]
    stream.others()
    assert isinstance(stream.refusal(run(3)), UnknownProducer)


def test_those_who_are_remembered_are_bounded_and_not_forgotten_for_a_new_one() -> None:
    stream = Stream(producers_max=2)
    stream.add(run(1, producer="a"))
    stream.add(run(1, producer="b"))
    limit = stream.refusal(run(1, producer="c"))
    assert isinstance(limit, LimitExceeded)
    assert limit.fields == {"limit": "producers_per_stream_max", "value": "2"}
    stream.add(run(1, producer="a", epoch=2))
    stream.now_ns += 100
    stream.add(run(1, producer="c"))
    assert len(stream.producers) == 1


def test_offsets_of_the_latest_requests_are_remembered() -> None:
    stream = Stream(events_max=10_000)
    for sequence in range(1, REQUESTS_REMEMBERED + 12):
        stream.add(run(sequence))
        stream.others()
    assert stream.repeated(run(12, 2)) == [(22, 1), (24, 1)]
    forgotten = stream.refusal(run(11, 400))
    assert isinstance(forgotten, DuplicateSequence)
    assert forgotten.fields == {"first_remembered": "12"}


def test_what_lies_together_is_remembered_as_one() -> None:
    stream = Stream(events_max=10_000)
    for sequence in range(1, 3 * REQUESTS_REMEMBERED):
        stream.add(run(sequence))
    assert stream.repeated(run(1, 500)) == [(0, 500)]


def test_what_failed_is_taken_back_with_what_is_behind_it() -> None:
    stream = Stream()
    stream.add(run(1, 2))
    failed = stream.enter(run(3, 2))
    behind = stream.enter(run(5))
    stream.producers.take_back("p", failed)
    stream.producers.take_back("p", behind)
    stream.next_offset = failed
    gap = stream.refusal(run(5))
    assert isinstance(gap, OutOfOrderSequence)
    assert gap.fields == {"expected": "3"}
    assert stream.repeated(run(1, 2)) == [(0, 2)]


def test_a_first_event_that_failed_leaves_nothing() -> None:
    stream = Stream()
    stream.producers.take_back("p", stream.enter(run(1)))
    assert len(stream.producers) == 0
    stream.producers.take_back("p", 0)
    stream.producers.settle("p", 5)
    assert len(stream.producers) == 0


def test_an_epoch_whose_first_event_failed_fences_nobody() -> None:
    stream = Stream()
    stream.add(run(1, 2, epoch=1))
    second, third = stream.enter(run(1, epoch=2)), stream.enter(run(1, epoch=3))
    assert stream.producers.epoch_is_unsettled("p")
    stream.producers.take_back("p", second)
    stream.producers.take_back("p", third)
    stream.next_offset = second
    assert not stream.producers.epoch_is_unsettled("p")
    assert stream.repeated(run(2, 2, epoch=1)) == [(1, 1)]


def test_an_epoch_whose_first_event_is_durable_stays_when_its_next_fails() -> None:
    stream = Stream()
    stream.add(run(1, epoch=1))
    first = stream.enter(run(1, epoch=2))
    second = stream.enter(run(2, epoch=2))
    stream.producers.settle("p", first + 1)
    assert not stream.producers.epoch_is_unsettled("p")
    stream.producers.take_back("p", second)
    assert isinstance(stream.refusal(run(2, epoch=1)), ProducerFenced)
    assert stream.repeated(run(1, 2, epoch=2)) == [(first, 1)]


def test_however_much_is_on_its_way_what_is_durable_is_not_forgotten_for_it() -> None:
    stream = Stream(events_max=100_000)
    stream.add(run(1))
    stream.others()
    first = stream.next_offset
    for sequence in range(2, 2 * REQUESTS_REMEMBERED):
        stream.enter(run(sequence))
        stream.others()
    stream.producers.settle("p", first)
    stream.producers.take_back("p", first)
    assert stream.repeated(run(1, 2)) == [(0, 1)]


def test_what_the_log_holds_is_learned_as_it_was_taken() -> None:
    stream = Stream()
    producers = stream.producers
    producers.learn(run(7, 2, at=3), 100, 950)  # its beginning has left the log
    producers.learn(run(9, producer="p", at=1), 110, 950)
    producers.learn(run(1, producer="q", epoch=5), 120, 951)
    assert isinstance(stream.refusal(run(6)), DuplicateSequence)
    assert stream.repeated(run(8, 3)) == [(104, 1), (111, 1)]
    producers.learn(run(1, 3, epoch=2), 130, 952)
    assert isinstance(stream.refusal(run(10)), ProducerFenced)
    assert not producers.epoch_is_unsettled("p")
    producers.learn(run(1, epoch=1), 140, 953)  # it had been forgotten meanwhile, and so had its fence
    assert stream.repeated(run(1, epoch=1)) == [(140, 1)]


def test_parts_of_runs_and_runs_behind_one_another() -> None:
    whole = run(11, 10, at=5)
    assert whole.part(0, 5) is None
    assert whole.part(15, 20) is None
    assert whole.part(0, 8) == run(11, 3, at=5)
    assert whole.part(8, 12) == run(14, 4, at=0)
    assert run(21, 2, at=0).behind(whole, 15) == run(11, 12, at=5)
    assert run(22, 2, at=0).behind(whole, 15) is None
    assert run(21, 2, at=1).behind(whole, 15) is None
    assert run(21, 2, epoch=2).behind(whole, 15) is None
