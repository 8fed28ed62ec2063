"""The SDK's small pure parts: backoff, ledger, resume point, events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.client import Event
from trunkline.client._backoff import Backoff, BackoffOptions
from trunkline.client._event import event_from, event_to
from trunkline.client._ledger import LastWord, Ledger, Verdict
from trunkline.client._resume import Mark, ResumePoint
from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument


@given(
    st.floats(0.001, 10), st.floats(1, 4), st.floats(0, 0.9), st.floats(10, 500), st.integers(0, 2**32),
    st.lists(st.booleans(), max_size=30), st.one_of(st.none(), st.floats(0.01, 5)),
)  # fmt: skip
def test_backoff_stays_in_its_bounds(
    initial: float, multiplier: float, jitter: float, most: float, seed: int, failures: list[bool], limit: float | None
) -> None:
    options = BackoffOptions(initial_backoff_s=initial, multiplier=multiplier, jitter=jitter, max_backoff_s=most)
    backoff, base = Backoff(options, Rng(seed)), initial
    for failed in failures:
        if not failed:
            backoff.reset()
            base = initial
            continue
        expected = base if limit is None else min(base, limit)
        assert expected * (1 - jitter) * 0.999 <= backoff.next_s(limit_s=limit) <= expected * (1 + jitter) * 1.001
        base = min(base * multiplier, most)


def test_backoff_has_grpcs_defaults() -> None:
    options = BackoffOptions()
    assert (options.initial_backoff_s, options.multiplier, options.jitter, options.max_backoff_s) == (1, 1.6, 0.2, 120)


@pytest.mark.parametrize(
    "wrong", [{"initial_backoff_s": 0}, {"multiplier": 0.5}, {"jitter": 1}, {"max_backoff_s": 0.5}]
)
def test_backoff_refuses_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        BackoffOptions(**wrong)


class Consumer:
    """An ephemeral consumer of offsets 0, 1, 2, ..., its ledger, and a server that sends again from where it is told."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.ledger = Ledger(durable=False)
        self.resume = ResumePoint()
        self.resume.add(Mark(0, b"0"), None)
        self.sent_to = 0
        self.again: set[int] = set()
        self.in_hand: list[int] = []
        self.done: set[int] = set()

    def send(self) -> None:
        offset = min(self.again, default=self.sent_to)
        if offset in self.again:
            self.again.discard(offset)
        elif offset < self.end:
            self.sent_to += 1
        else:
            return
        verdict = self.ledger.receive(offset)
        if verdict is Verdict.NEW:
            assert offset not in self.done, "never handed on again once it is done"
            assert offset not in self.in_hand
            self.in_hand.append(offset)
        elif verdict is Verdict.DONE:
            assert offset in self.done
        else:
            assert offset in self.in_hand

    def settle(self, index: int, *, ack: bool) -> None:
        if self.in_hand:
            offset = self.in_hand.pop(index % len(self.in_hand))
            assert self.ledger.settle(offset, again=not ack)
            if ack:
                self.done.add(offset)
            else:
                self.again.add(offset)

    def bookmark(self) -> None:
        self.resume.add(Mark(self.sent_to, b"%d" % self.sent_to), self.ledger.lowest_open)
        self.ledger.forget_below(self.resume.begins_at())

    def reconnect(self) -> None:
        self.ledger.reconnected()
        self.sent_to = int(self.resume.token(self.ledger.lowest_open))
        self.again.clear()


ACTS = st.lists(
    st.one_of(
        st.just(("send", 0)),
        st.just(("send", 0)),
        st.tuples(st.just("ack"), st.integers(0, 9)),
        st.tuples(st.just("nack"), st.integers(0, 9)),
        st.just(("bookmark", 0)),
        st.just(("reconnect", 0)),
    ),
    max_size=120,
)


@given(ACTS)
def test_an_ephemeral_consumer_misses_nothing_and_repeats_nothing_done(acts: list[tuple[str, int]]) -> None:
    consumer = Consumer(end=15)
    for act, index in acts:
        match act:
            case "send":
                consumer.send()
            case "ack" | "nack":
                consumer.settle(index, ack=act == "ack")
            case "bookmark":
                consumer.bookmark()
            case "reconnect":
                consumer.reconnect()
    consumer.reconnect()
    for _ in range(200):
        consumer.send()
        consumer.settle(0, ack=True)
    assert consumer.done == set(range(15))


def test_a_durable_ledger_knows_what_was_on_its_way() -> None:
    ledger = Ledger(durable=True)
    assert ledger.receive(1) is Verdict.NEW
    assert ledger.settle(1, again=False)
    assert ledger.receive(1) is Verdict.NEW, "on the same connection the server knows better"
    ledger.settle(1, again=False)
    ledger.reconnected()
    assert ledger.receive(1, attempt=2) is Verdict.DONE
    assert ledger.last_word(1) == LastWord(attempt=1)
    ledger.forget_lost()
    assert ledger.receive(1, attempt=3) is Verdict.NEW
    ledger.settle(1, again=False, word=LastWord(attempt=3, why_ended="no"))
    ledger.reconnected()
    assert ledger.receive(1, attempt=4) is Verdict.DONE
    assert ledger.last_word(1).why_ended == "no"
    assert ledger.receive(1, attempt=1) is Verdict.NEW, "attempts are counted anew: somebody wants it delivered again"
    assert not ledger.settle(2, again=False)


TEXT = st.text(max_size=20)
ATTRIBUTES = st.dictionaries(
    st.text("abcdefghij", min_size=1, max_size=8),
    st.one_of(
        st.booleans(),
        st.integers(-(2**31), 2**31 - 1),
        TEXT,
        st.binary(max_size=20),
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    ),
    max_size=4,
)


@given(
    st.builds(
        Event,
        type=st.text(min_size=1, max_size=20),
        id=st.text(min_size=1, max_size=20),
        source=st.text(min_size=1, max_size=20),
        data=st.one_of(st.none(), TEXT, st.binary(max_size=20)),
        subject=TEXT,
        key=TEXT,
        topic=TEXT,
        attributes=ATTRIBUTES,
    )
)
def test_an_event_comes_back_as_it_was_sent(event: Event) -> None:
    assert event_from(event_to(event)) == event


def test_an_event_of_json() -> None:
    event = Event.json(type="order.placed", data={"id": 7, "note": "ä"}, attributes={"lang": "de"})
    assert event.json_data() == {"id": 7, "note": "ä"}
    assert event.attributes == {"datacontenttype": "application/json", "lang": "de"}
    with pytest.raises(ValueError, match="not text"):
        Event(type="a").json_data()


@pytest.mark.parametrize(
    "attributes", [{"n": 2**31}, {"when": datetime(2024, 1, 1)}, {"what": 1.5}], ids=["wide", "no zone", "float"]
)
def test_attributes_that_cloudevents_does_not_have_are_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=r"event.attributes"):
        event_to(Event(type="a", attributes=attributes))  # type: ignore[arg-type]


def test_attributes_with_a_field_of_their_own_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="topic"):
        Event(type="a", attributes={"topic": "b"})
