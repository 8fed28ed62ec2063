"""Topics, filters and fan-out sets agree with their plain twins, also in what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from reference import fanout as reference
from trunkline.core import fanout

words = st.sampled_from(["a", "b", "ä", "*", ">", "", "a*", ">b", "x y", "\u200b", "\ud800", "long" * 20])
texts = st.lists(words, min_size=1, max_size=18).map(".".join) | st.text(max_size=300)
topics = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)
filters = st.builds(
    lambda head, tail: ".".join([*head, *tail]) or "a",
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=3),
    st.sampled_from([[], [], [">"], ["*"]]),
)


@given(text=texts)
def test_forms_agree(text: str) -> None:
    assert fanout.topic_is_valid(text) == reference.topic_is_valid(text)
    assert fanout.filter_is_valid(text) == reference.filter_is_valid(text)


def test_every_character_gets_the_same_verdict() -> None:
    differing = [hex(c) for c in range(0x110000) if fanout.topic_is_valid(chr(c)) != reference.topic_is_valid(chr(c))]
    assert differing == []


def outcome(matches: Callable[[str, str], bool], filter: str, topic: str) -> bool | None:
    try:
        return matches(filter, topic)
    except ValueError:
        return None


@given(filter=filters | texts, topic=topics | texts)
def test_matching_agrees(filter: str, topic: str) -> None:
    assert outcome(fanout.matches, filter, topic) == outcome(reference.matches, filter, topic)


class Filters(RuleBasedStateMachine):
    """Filters come and go between questions; the cache is small enough to overflow."""

    @initialize(cached_topics=st.integers(1, 4))
    def begin(self, cached_topics: int) -> None:
        self.fast = fanout.FilterSet(cached_topics=cached_topics)
        self.slow = reference.FilterSet()

    @rule(id=st.integers(-2, 6), filter=filters)
    def add(self, id: int, filter: str) -> None:
        self.fast.add(id, filter)
        self.slow.add(id, filter)

    @rule(id=st.integers(-2, 6), text=texts)
    def add_anything(self, id: int, text: str) -> None:
        try:
            self.slow.add(id, text)
        except ValueError:
            with pytest.raises(ValueError, match="not a topic filter"):
                self.fast.add(id, text)
        else:
            self.fast.add(id, text)
        assert len(self.fast) == len(self.slow)

    @rule(id=st.integers(-2, 6))
    def remove(self, id: int) -> None:
        try:
            self.slow.remove(id)
        except KeyError:
            with pytest.raises(KeyError):
                self.fast.remove(id)
        else:
            self.fast.remove(id)
        assert len(self.fast) == len(self.slow)

    @rule(topic=topics)
    def ask(self, topic: str) -> None:
        assert self.fast.match(topic) == self.slow.match(topic)

    @rule(topic=texts)
    def ask_anything(self, topic: str) -> None:
        try:
            expected = self.slow.match(topic)
        except ValueError:
            with pytest.raises(ValueError, match="not a topic"):
                self.fast.match(topic)
        else:
            assert self.fast.match(topic) == expected


TestFilters = Filters.TestCase
TestFilters.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
