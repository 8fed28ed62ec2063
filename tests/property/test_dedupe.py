"""The dedupe window agrees with its twin over any history, collisions and failed appends among it."""

from __future__ import annotations

from array import array
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reference import dedupe as reference
from trunkline.core.dedupe import DedupeWindow

WORDS = [0, 1, 2**64 - 1, 0x9E3779B97F4A7C15]
hashes = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), max_size=12)


def flat(pairs: list[tuple[int, int]]) -> array[int]:
    return array("Q", [word for pair in pairs for word in pair])


def found_by(window: DedupeWindow, pairs: list[tuple[int, int]]) -> list[int]:
    """The answers; that there is nothing to answer is told in one word, and only then."""
    found = window.find_many(flat(pairs), len(pairs))
    assert found is None or set(found) != {-1}
    return [-1] * len(pairs) if found is None else found.tolist()


class History(RuleBasedStateMachine):
    """Appends, failed ones, time that passes; few distinct hashes, so that collisions are common."""

    @initialize(
        max_ids=st.integers(1, 20) | st.just(500),
        window_ns=st.integers(0, 30),
        seed=st.integers(0, 2**64 - 1),
    )
    def begin(self, max_ids: int, window_ns: int, seed: int) -> None:
        self.fast = DedupeWindow(max_ids=max_ids, window_ns=window_ns, seed=seed)
        self.slow = reference.DedupeWindow(max_ids=max_ids, window_ns=window_ns)
        self.next_offset = 0
        self.now_ns = 0

    @rule(pairs=hashes, gap=st.integers(0, 3), step_ns=st.integers(0, 9))
    def add(self, pairs: list[tuple[int, int]], gap: int, step_ns: int) -> None:
        self.now_ns += step_ns
        self.next_offset += gap
        self.fast.add_many(flat(pairs), self.next_offset, self.now_ns)
        self.slow.add_many(flat(pairs), self.next_offset, self.now_ns)
        self.next_offset += len(pairs)

    @rule(size=st.integers(1, 200), seed=st.integers(0, 5))
    def add_more(self, size: int, seed: int) -> None:
        rng = Random(seed)
        self.add([(rng.getrandbits(64), rng.getrandbits(64)) for _ in range(size)], 0, 1)

    @rule(pairs=hashes, back=st.integers(0, 9))
    def refuse_to_go_back(self, pairs: list[tuple[int, int]], back: int) -> None:
        if not self.slow.entries:
            return
        last = self.slow.entries[-1]
        for offset, time_ns in ((max(0, last.offset - back), self.now_ns), (self.next_offset, last.time_ns - 1 - back)):
            for window in (self.fast, self.slow):
                with pytest.raises(ValueError, match="after"):
                    window.add_many(flat(pairs), offset, time_ns)

    @rule(back=st.integers(0, 20))
    def take_back(self, back: int) -> None:
        offset = max(0, self.next_offset - back)
        assert self.fast.take_back(offset) == self.slow.take_back(offset)
        self.next_offset = offset

    @rule(step_ns=st.integers(0, 40))
    def expire(self, step_ns: int) -> None:
        self.now_ns += step_ns
        assert self.fast.expire(self.now_ns) == self.slow.expire(self.now_ns)

    @rule(pairs=hashes)
    def find(self, pairs: list[tuple[int, int]]) -> None:
        assert found_by(self.fast, pairs) == self.slow.find_many(flat(pairs), len(pairs))

    @rule()
    def find_all_there_are(self) -> None:
        pairs = sorted({entry.hash for entry in self.slow.entries})
        found = found_by(self.fast, pairs)
        newest = {entry.hash: entry.offset for entry in self.slow.entries if entry.is_findable}
        assert found == [newest.get(pair, -1) for pair in pairs]

    @rule(low=st.sampled_from(WORDS), high=st.sampled_from(WORDS))
    def candidates(self, low: int, high: int) -> None:
        assert self.fast.candidates(low, high) == self.slow.candidates(low, high)

    @invariant()
    def same_length(self) -> None:
        if hasattr(self, "fast"):
            assert len(self.fast) == len(self.slow)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(pairs=hashes, count=st.integers(-1, 13))
def test_lengths_must_fit(pairs: list[tuple[int, int]], count: int) -> None:
    window = DedupeWindow(max_ids=10, window_ns=10)
    if count == len(pairs):
        assert len(found_by(window, pairs)) == count
    else:
        with pytest.raises(ValueError, match="words of hash"):
            window.find_many(flat(pairs), count)


@pytest.mark.parametrize("max_ids", [4096, 10_000, 40_000])
def test_a_full_window_over_many_chunks(max_ids: int) -> None:
    rng = Random(max_ids)
    window = DedupeWindow(max_ids=max_ids, window_ns=1000, seed=rng.getrandbits(64))
    held: dict[tuple[int, int], tuple[int, int]] = {}
    offset = now_ns = 0
    for _ in range(60):
        pairs = [(rng.getrandbits(64), rng.getrandbits(64)) for _ in range(rng.randrange(5000))]
        now_ns += rng.choice([0, 10, 100, 900])
        window.add_many(flat(pairs), offset, now_ns)
        held |= {pair: (offset + i, now_ns) for i, pair in enumerate(pairs)}
        held = {pair: at for pair, at in held.items() if now_ns - at[1] < 1000}
        held = dict(list(held.items())[-max_ids:])
        offset += len(pairs)
        if rng.random() < 0.2:
            offset -= min(offset, rng.randrange(3000))
            window.take_back(offset)
            held = {pair: at for pair, at in held.items() if at[0] < offset}
        asked = rng.sample(sorted(held), min(len(held), 500)) + pairs[:500]
        known = found_by(window, asked)
        first = [value if value >= -1 else known[-2 - value] for value in known]
        assert first == [held.get(pair, (-1, 0))[0] for pair in asked]
        assert len(window) == len(held)
