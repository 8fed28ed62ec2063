"""The chain of a call agrees with its twin call by call, over any history, and keeps its bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import call_chain as reference
from trunkline.core.breaker import Breaker, Outcome, State
from trunkline.core.call_chain import CallChain, LevelPicker
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.in_flight import InFlight, Ticket
from trunkline.core.policy import HASHING, Algorithm, LoadBalancingPolicy
from trunkline.core.shedding import SheddingBreaker

MS = 1_000_000
Level = tuple[int, list[int], list[int], list[str]]

policies = st.builds(
    LoadBalancingPolicy,
    algorithm=st.sampled_from(Algorithm),
    choice_count=st.integers(2, 4),
    active_request_bias=st.sampled_from([0.0, 1.0, 2.0]),
    minimum_ring_size=st.sampled_from([1, 16, 64]),
    maximum_ring_size=st.just(128),
    table_size=st.sampled_from([11, 101]),
    hash_balance_factor=st.sampled_from([0, 100, 125, 200]),
)
loads = st.sampled_from([(100,), (70, 30), (36, 36, 28)])
members = st.lists(st.integers(0, 3), min_size=1, max_size=5).filter(any)
breakers = st.none() | st.fixed_dictionaries(
    {
        "minimum_number_of_calls": st.integers(1, 3),
        "wait_duration_in_open_state_ms": st.integers(1, 20),
        "permitted_number_of_calls_in_half_open_state": st.integers(1, 2),
    }
)
hashes = st.none() | st.integers(0, 2**64 - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), hashes, st.sets(st.integers(0, 6), max_size=3)),
        st.tuples(st.just("end"), st.integers(0, 99), st.sampled_from(Outcome)),
        st.tuples(st.just("wait"), st.integers(0, 30), st.none()),
    ),
    max_size=60,
)


def _hosts(slots: Sequence[int]) -> list[str]:
    return [f"10.0.0.{slot}:80" for slot in slots]


class Pair:
    """A chain and its twin, over the same slots, limits, breakers and chance."""

    def __init__(
        self, policy: LoadBalancingPolicy, shares: tuple[int, ...], weights: list[list[int]], seed: int
    ) -> None:
        self.clock = ManualClock()
        self.calls, self.twins_calls = InFlight(self.clock), reference.Calls(self.clock)
        self.levels: list[Level] = []
        for share, some in zip(shares, weights, strict=True):
            slots = [self.calls.acquire() for _ in some]
            self.levels.append((share, slots, some, _hosts(slots)))
        self.slots = [slot for level in self.levels for slot in level[1]]
        self.policy, self.rng, self.twins_rng = policy, Rng(seed), Rng(seed)
        self.chain = self.chain_of(self.levels)
        self.twin = reference.CallChain(self.twins_calls, self.twins_rng, policy, self.levels)
        self.other: CallChain | None = None
        self.twins_other: reference.CallChain | None = None
        self.under_way: list[tuple[Ticket, reference.Ticket]] = []

    def with_others(self, others: Sequence[int], held_back: Sequence[int]) -> None:
        """Another chain, of the first endpoint and some more, that holds some back."""
        levels = [(100, slots := self._more(len(some)), list(some), _hosts(slots)) for some in (others, held_back)]
        shared = self.slots[0]
        levels[0] = (100, [shared, *levels[0][1]], [1, *levels[0][2]], _hosts([shared, *levels[0][1]]))

        def reserve() -> CallChain:
            return self.chain_of(levels[1:])

        self.other = self.chain_of(levels[:1], reserve)
        self.twins_other = reference.CallChain(self.twins_calls, self.twins_rng, self.policy, levels[:1])
        self._twins_levels = levels[1:]
        self._twins_reserve: reference.CallChain | None = None

    def chain_of(self, levels: Sequence[Level], spare: Callable[[], CallChain | None] | None = None) -> CallChain:
        pickers = [LevelPicker(self.calls, self.rng, self.policy, *level) for level in levels]
        return CallChain(self.calls, self.rng, pickers, spare)

    def _reserve_of_twin(self) -> reference.CallChain:
        """Made when it is first needed, as chance is used for it."""
        if self._twins_reserve is None:
            self._twins_reserve = reference.CallChain(self.twins_calls, self.twins_rng, self.policy, self._twins_levels)
        return self._twins_reserve

    def _more(self, count: int) -> list[int]:
        slots = [self.calls.acquire() for _ in range(count)]
        self.slots += slots
        return slots

    def limit(self, max_requests: int, max_requests_per_endpoint: int) -> None:
        self.calls.set_limits(max_requests=max_requests, max_requests_per_endpoint=max_requests_per_endpoint)
        self.twins_calls.max_requests = max_requests
        self.twins_calls.max_requests_per_endpoint = max_requests_per_endpoint

    def guard(self, service: dict[str, Any] | None, endpoint: dict[str, Any] | None) -> None:
        if service is not None:
            self.calls.set_breaker(Breaker(**service))
            self.twins_calls.breaker = Breaker(**service)
        if endpoint is not None:
            for slot in self.slots:
                self.calls.set_endpoint_breaker(slot, Breaker(**endpoint))
                self.twins_calls.breakers[slot] = Breaker(**endpoint)

    def begin(self, hash_: int | None, avoid: Collection[int], *, elsewhere: bool = False) -> Ticket | None:
        if elsewhere:
            mine = self.chain.begin(hash_, frozenset(avoid), lambda: self.other)
            theirs = self.twin.begin(hash_, avoid, self.twins_other, self._reserve_of_twin)
        else:
            mine, theirs = self.chain.begin(hash_, frozenset(avoid)), self.twin.begin(hash_, avoid)
        assert (mine is None) == (theirs is None)
        if mine is None or theirs is None:
            assert self.chain.refusal == self.twin.refusal
            return None
        assert mine.slot == theirs.slot
        self.under_way.append((mine, theirs))
        return mine

    def end(self, number: int, outcome: Outcome) -> None:
        if self.under_way:
            mine, theirs = self.under_way.pop(number % len(self.under_way))
            mine.end(outcome)
            theirs.end(outcome)


@given(
    policy=policies,
    shares=loads,
    data=st.data(),
    limits=st.tuples(st.sampled_from([0, 3, 10]), st.sampled_from([0, 1, 3])),
    guards=st.tuples(breakers, breakers),
    history=steps,
    seed=st.integers(0, 2**64 - 1),
)
def test_a_chain_agrees_with_its_twin(
    policy: LoadBalancingPolicy,
    shares: tuple[int, ...],
    data: st.DataObject,
    limits: tuple[int, int],
    guards: tuple[dict[str, Any] | None, dict[str, Any] | None],
    history: list[tuple[str, Any, Any]],
    seed: int,
) -> None:
    pair = Pair(policy, shares, [data.draw(members) for _ in shares], seed)
    pair.limit(*limits)
    pair.guard(*guards)
    for step, one, other in history:
        if step == "begin":
            pair.begin(one, other)
        elif step == "end":
            pair.end(one, other)
        else:
            pair.clock.advance(one * MS)
        assert pair.calls.total == len(pair.under_way)
        assert [pair.calls.active(slot) for slot in pair.slots] == [
            pair.twins_calls.active(slot) for slot in pair.slots
        ]
        assert not limits[0] or pair.calls.total <= limits[0]
        assert not limits[1] or max(map(pair.calls.active, pair.slots)) <= limits[1]


@given(
    policy=policies,
    weights=st.tuples(members, members, members),
    limits=st.tuples(st.sampled_from([0, 10]), st.sampled_from([0, 1, 3])),
    guards=st.tuples(breakers, breakers),
    history=steps,
    seed=st.integers(0, 2**64 - 1),
)
def test_a_chain_agrees_with_its_twin_about_who_is_asked_elsewhere(
    policy: LoadBalancingPolicy,
    weights: tuple[list[int], list[int], list[int]],
    limits: tuple[int, int],
    guards: tuple[dict[str, Any] | None, dict[str, Any] | None],
    history: list[tuple[str, Any, Any]],
    seed: int,
) -> None:
    pair = Pair(policy, (100,), [weights[0]], seed)
    pair.with_others(*weights[1:])
    pair.limit(*limits)
    pair.guard(*guards)
    for step, one, other in history:
        if step == "begin":
            pair.begin(one, other, elsewhere=True)
        elif step == "end":
            pair.end(one, other)
        else:
            pair.clock.advance(one * MS)
        assert pair.calls.total == len(pair.under_way)


@given(policy=policies, shares=loads, data=st.data(), keys=st.lists(hashes, max_size=80), seed=st.integers(0, 2**32))
def test_nobody_is_given_more_than_the_bound(
    policy: LoadBalancingPolicy, shares: tuple[int, ...], data: st.DataObject, keys: list[int | None], seed: int
) -> None:
    pair = Pair(policy, shares, [data.draw(members) for _ in shares], seed)
    for key in keys:
        ticket = pair.begin(key, ())
        assert ticket is not None, "without limits and breakers nothing is refused"
        if policy.algorithm not in HASHING or not policy.hash_balance_factor:
            continue
        _, slots, weights, _ = next(level for level in pair.levels if ticket.slot in level[1])
        calls = sum(map(pair.calls.active, slots))
        weight = weights[slots.index(ticket.slot)]
        # Rounded up twice: the calls that all may have together, and each one's share of them.
        assert pair.calls.active(ticket.slot) < calls * policy.hash_balance_factor / 100 * weight / sum(weights) + 2


@given(policy=policies, weights=members, seed=st.integers(0, 2**32), key=hashes)
def test_those_that_were_tried_come_last(
    policy: LoadBalancingPolicy, weights: list[int], seed: int, key: int | None
) -> None:
    pair = Pair(policy, (100,), [weights], seed)
    usable = [slot for slot, weight in zip(pair.slots, weights, strict=True) if weight]
    tried: set[int] = set()
    for _ in usable:
        picked = pair.chain.pick(key, frozenset(tried))
        assert picked not in tried
        tried.add(picked)
    assert tried == set(usable) or policy.algorithm is Algorithm.RANDOM
    assert pair.chain.pick(key, frozenset(pair.slots)) in pair.slots, "all were tried: one of them again"


def test_what_is_refused_gives_the_services_permit_back() -> None:
    pair = Pair(LoadBalancingPolicy(), (100,), [[1]], 1)
    pair.limit(0, 1)
    breaker = Breaker(
        minimum_number_of_calls=1, permitted_number_of_calls_in_half_open_state=1, wait_duration_in_open_state_ms=1
    )
    pair.calls.set_breaker(breaker)
    holding = pair.chain.begin()
    assert holding is not None
    breaker.record(breaker.admit(0), Outcome.FAILURE, 0, 0)
    pair.clock.advance(2 * MS)
    assert pair.chain.begin() is None
    assert pair.chain.refusal == "max_requests_per_endpoint"
    holding.end(Outcome.SUCCESS)
    assert pair.chain.begin() is not None, "the only trial call was not used up"


def test_a_call_reports_to_the_breakers_that_let_it_through() -> None:
    pair = Pair(LoadBalancingPolicy(), (100,), [[1]], 1)
    old, endpoints, new = (Breaker(minimum_number_of_calls=1) for _ in range(3))
    pair.calls.set_breaker(old)
    pair.calls.set_endpoint_breaker(pair.slots[0], endpoints)
    ticket = pair.chain.begin()
    assert ticket is not None
    pair.calls.set_breaker(new)
    pair.calls.set_endpoint_breaker(pair.slots[0], None)
    pair.clock.advance(5 * MS)
    assert ticket.end(Outcome.FAILURE) == 5 * MS
    assert (old.state, endpoints.state, new.state) == (State.OPEN, State.OPEN, State.CLOSED)
    assert new.snapshot(0).counts.total == 0
    with pytest.raises(ValueError, match="ended"):
        ticket.end(Outcome.SUCCESS)


@pytest.mark.parametrize("algorithm", [Algorithm.RING_HASH, Algorithm.MAGLEV])
def test_the_bound_gives_way_before_a_call_is_refused(algorithm: Algorithm) -> None:
    pair = Pair(LoadBalancingPolicy(algorithm=algorithm, hash_balance_factor=100), (100,), [[1, 1]], 1)
    broken = Breaker()
    broken.transition_to(State.FORCED_OPEN, 0)
    pair.calls.set_endpoint_breaker(pair.slots[0], broken)
    tickets = [pair.chain.begin(key) for key in range(0, 2**64, 2**60)]
    assert [ticket and ticket.slot for ticket in tickets] == [pair.slots[1]] * 16


@given(equal=st.booleans(), seed=st.integers(0, 2**32))
def test_least_request_goes_by_the_calls_of_its_own_endpoints(equal: bool, seed: int) -> None:
    """Those of a pool need not be the first slots, nor in their order."""
    calls, rng = InFlight(ManualClock()), Rng(seed)
    slots = [calls.acquire() for _ in range(6)]
    busy, idle = slots[4], slots[1]
    for _ in range(50):
        calls.started(busy)
    weights = [100, 100] if equal else [100, 101]
    policy = LoadBalancingPolicy(algorithm=Algorithm.LEAST_REQUEST, choice_count=10)
    chain = CallChain(calls, rng, [LevelPicker(calls, rng, policy, 100, [busy, idle], weights)])
    picked = [chain.pick() for _ in range(30)]
    assert picked.count(idle) >= 28


def test_the_other_chain_says_why_a_call_is_refused_and_lets_out_its_reserve_for_breakers_only() -> None:
    pair = Pair(LoadBalancingPolicy(), (100,), [[1, 1, 1]], 1)
    mine, theirs, held = pair.slots
    pair.limit(0, 1)

    def chain(slot: int, reserve: CallChain | None = None) -> CallChain:
        return pair.chain_of([(100, [slot], [1], ["a:1"])], lambda: reserve)

    first, other = chain(mine), chain(theirs, chain(held))
    broken = Breaker()
    broken.transition_to(State.FORCED_OPEN, 0)
    pair.calls.set_endpoint_breaker(mine, broken)
    taken = first.begin(None, None, lambda: other)
    assert taken is not None
    assert taken.slot == theirs
    assert first.begin(None, None, lambda: other) is None
    assert first.refusal == "max_requests_per_endpoint"
    pair.limit(0, 0)
    pair.calls.set_endpoint_breaker(theirs, broken)
    reserved = first.begin(None, None, lambda: other)
    assert reserved is not None
    assert reserved.slot == held
    assert (other.entries, first.entries) == (2, 1)
    assert first.begin(None, None, lambda: None) is None
    assert first.refusal == "endpoint_circuit_breaker"


class Foreign:
    """A breaker that is not core's: counts what it is asked and told."""

    def __init__(self) -> None:
        self.permit = 7
        self.records: list[tuple[int, int, int, int]] = []

    def admit(self, now_ns: int, /) -> int:
        return self.permit

    def record(self, permit: int, outcome: Outcome, duration_ns: int, now_ns: int, /) -> None:
        self.records.append((permit, outcome, duration_ns, now_ns))


def test_other_breakers_are_asked_and_told_the_same() -> None:
    pair = Pair(LoadBalancingPolicy(), (100,), [[1, 1]], 1)
    service, endpoint = Foreign(), Foreign()
    pair.calls.set_breaker(service)
    for slot in pair.slots:
        pair.calls.set_endpoint_breaker(slot, endpoint)
    ticket = pair.chain.begin()
    assert ticket is not None
    pair.clock.advance(3)
    ticket.end(Outcome.FAILURE)
    assert service.records == endpoint.records == [(7, Outcome.FAILURE, 3, 3)]
    endpoint.permit = -1
    assert pair.chain.begin() is None
    assert pair.chain.refusal == "endpoint_circuit_breaker"
    assert service.records[-1][1] == Outcome.CANCELLED


def test_a_breaker_is_asked_once_for_a_call() -> None:
    """One that refuses by chance would else let through in the end what it is asked for often enough."""
    pair = Pair(LoadBalancingPolicy(), (100,), [[1]], 1)
    breaker = SheddingBreaker(Rng(1), minimum_number_of_calls=10, max_rejection_percent=95)
    pair.calls.set_endpoint_breaker(pair.slots[0], breaker)
    admitted = 0
    for _ in range(2_000):
        ticket = pair.chain.begin()
        if ticket is not None:
            admitted += 1
            ticket.end(Outcome.FAILURE)
    assert breaker.snapshot(0).not_permitted == 2_000 - admitted
    assert 60 <= admitted <= 200, "one in twenty, and a few before it has seen enough"


def test_a_call_that_breaks_off_gives_the_services_permit_back() -> None:
    pair = Pair(LoadBalancingPolicy(algorithm=Algorithm.RING_HASH), (100,), [[1]], 1)
    breaker = Breaker(permitted_number_of_calls_in_half_open_state=1)
    breaker.transition_to(State.HALF_OPEN, 0)
    pair.calls.set_breaker(breaker)
    with pytest.raises(OverflowError):
        pair.chain.begin(-1)
    assert pair.chain.begin(1) is not None, "the only trial call was not used up"


def test_a_slot_is_used_again_when_its_last_call_has_ended() -> None:
    calls = InFlight(ManualClock())
    slot = calls.acquire()
    calls.started(slot)
    calls.started(slot)
    calls.release(slot)
    other = calls.acquire()
    assert other != slot
    calls.finished(slot)
    assert calls.acquire() not in (slot, other)
    calls.finished(slot)
    assert calls.acquire() == slot
    with pytest.raises(ValueError, match="no call"):
        calls.finished(slot)
    with pytest.raises(IndexError):
        calls.release(99)
    calls.release(other)
    with pytest.raises(IndexError, match="not in use"):
        calls.release(other)
    assert calls.acquire() == other
    assert calls.acquire() != other, "it was free once"


@pytest.mark.parametrize(
    "levels", [[], [(90, [0], [1], ["a:1"])], [(100, [0, 1], [1], ["a:1"])], [(100, [9], [1], ["a:1"])]]
)
def test_levels_that_are_none_are_refused(levels: list[tuple[int, list[int], list[int], list[str]]]) -> None:
    calls = InFlight(ManualClock())
    calls.acquire()
    calls.acquire()
    rng = Rng(1)
    with pytest.raises((ValueError, IndexError)):
        CallChain(calls, rng, [LevelPicker(calls, rng, LoadBalancingPolicy(), *level) for level in levels])


def test_a_level_over_other_calls_is_refused() -> None:
    calls, others, rng = InFlight(ManualClock()), InFlight(ManualClock()), Rng(1)
    level = LevelPicker(others, rng, LoadBalancingPolicy(), 100, [others.acquire()], [1])
    with pytest.raises(ValueError, match="other calls"):
        CallChain(calls, rng, [level])
