"""The chain of a call in dicts and lists: everything is counted anew each time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import ceil
from typing import Any

from reference.maglev import Maglev
from reference.ring import Ring
from reference.selection import LeastRequest, RoundRobin, WeightedRandom
from trunkline.core.breaker import Outcome
from trunkline.core.clock import Clock, Rng
from trunkline.core.policy import HASHING, Algorithm, LoadBalancingPolicy

TRIES = 8
WALK = 64


class Calls:
    """See trunkline.core.call_chain.InFlight. Slots are given by who uses it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.under_way: list[int] = []
        self.breaker: Any = None
        self.breakers: dict[int, Any] = {}
        self.max_requests = 0
        self.max_requests_per_endpoint = 0

    def active(self, slot: int) -> int:
        """How many are under way there."""
        return self.under_way.count(slot)


class Loads:
    """The counts of some slots, as LeastRequest reads them."""

    def __init__(self, calls: Calls, slots: Sequence[int]) -> None:
        self._calls = calls
        self._slots = slots

    def __getitem__(self, index: int) -> int:
        return self._calls.active(self._slots[index])

    def __len__(self) -> int:
        return len(self._slots)


class Ticket:
    """See trunkline.core.call_chain.Ticket."""

    def __init__(self, calls: Calls, slot: int, permits: list[tuple[Any, int]]) -> None:
        self.slot = slot
        self._calls = calls
        self._permits = permits
        self._started_ns = calls.clock.now_ns()

    def end(self, outcome: Outcome) -> None:
        """It has ended."""
        now_ns = self._calls.clock.now_ns()
        self._calls.under_way.remove(self.slot)
        for breaker, permit in reversed(self._permits):
            breaker.record(permit, outcome, now_ns - self._started_ns, now_ns)


class Level:
    """Those that are equally near."""

    def __init__(
        self,
        calls: Calls,
        rng: Rng,
        policy: LoadBalancingPolicy,
        load: int,
        slots: Sequence[int],
        weights: Sequence[int],
        hosts: Sequence[str],
    ) -> None:
        self.load, self.slots, self.weights = load, slots, weights
        self._calls = calls
        self._rng = rng
        self._policy = policy
        self._picker: Any = None
        self._owners: list[int] = []
        match policy.algorithm:
            case Algorithm.ROUND_ROBIN:
                self._picker = RoundRobin(weights, start=rng.below(len(weights)))
            case Algorithm.WEIGHTED_RANDOM:
                self._picker = WeightedRandom(weights, rng)
            case Algorithm.LEAST_REQUEST:
                self._picker = LeastRequest(
                    weights, rng, choice_count=policy.choice_count, active_request_bias=policy.active_request_bias
                )
                self._picker._active = Loads(calls, slots)
                first = [self._picker._step(index) for index in range(len(weights))]
                self._picker._schedule.deadlines = first
            case Algorithm.RING_HASH:
                sizes = policy.minimum_ring_size, policy.maximum_ring_size
                self._ring = Ring(hosts, weights, minimum_ring_size=sizes[0], maximum_ring_size=sizes[1])
                self._owners = [owner for _, owner in self._ring.points()]
            case Algorithm.MAGLEV:
                self._owners = Maglev(hosts, weights, table_size=policy.table_size).table()

    def order(self, hash_: int) -> list[int] | None:
        """With hashing, whom a key asks, one after the other; else None."""
        if not self._owners:
            return None
        if self._policy.algorithm is Algorithm.RING_HASH:
            points = self._ring.points()
            start = next((at for at, (point, _) in enumerate(points) if point >= hash_), 0)
        else:
            start = hash_ % len(self._owners)
        asked: list[int] = []
        for step in range(min(WALK, len(self._owners))):
            owner = self._owners[(start + step) % len(self._owners)]
            if not asked or asked[-1] != owner:
                asked.append(owner)
        return asked

    def next(self) -> int:
        """The picker's next."""
        return self._rng.below(len(self.slots)) if self._picker is None else int(self._picker.pick())

    def has_room(self, at: int) -> bool:
        """Whether one more call there keeps it within the bound on the load."""
        if self._policy.algorithm not in HASHING or not self._policy.hash_balance_factor:
            return True
        calls = sum(map(self._calls.active, self.slots)) + 1
        allowed = ceil(calls * self._policy.hash_balance_factor / 100)
        share = ceil(allowed * self.weights[at] / sum(self.weights))
        return self._calls.active(self.slots[at]) < max(1, share)


class CallChain:
    """See trunkline.core.call_chain.CallChain."""

    def __init__(self, calls: Calls, rng: Rng, policy: LoadBalancingPolicy, levels: Sequence[tuple[Any, ...]]) -> None:
        self._calls = calls
        self._rng = rng
        self._hashes = policy.algorithm in HASHING
        self._levels = [Level(calls, rng, policy, *level) for level in levels]
        self._refused: set[int] = set()
        self.refusal = ""

    def begin(
        self,
        hash_: int | None,
        avoid: Collection[int],
        other: CallChain | None = None,
        reserve: Callable[[], CallChain] | None = None,
    ) -> Ticket | None:
        """A ticket, or None. `reserve` is that of the other, if there is one."""
        calls = self._calls
        now_ns = calls.clock.now_ns()
        self._refused = set()
        if calls.max_requests and len(calls.under_way) >= calls.max_requests:
            self.refusal = "max_requests"
            return None
        permits = []
        if calls.breaker is not None:
            permit = calls.breaker.admit(now_ns)
            if permit < 0:
                self.refusal = "circuit_breaker"
                return None
            permits.append((calls.breaker, permit))
        found = self._find(hash_, avoid, strictly=other is not None)
        last = self
        if found is None and other is not None:
            last, other._refused = other, self._refused
            found = other._find(hash_, avoid)
            self.refusal = other.refusal
        if found is None and reserve is not None and self.refusal == "endpoint_circuit_breaker":
            held_back = reserve()
            held_back._refused = last._refused
            found = held_back._find(hash_, avoid)
        if found is None:
            for breaker, permit in permits:
                breaker.record(permit, Outcome.CANCELLED, 0, now_ns)
            return None
        slot, guards = found
        calls.under_way.append(slot)
        return Ticket(calls, slot, permits + guards)

    def _find(
        self, hash_: int | None, avoid: Collection[int], *, strictly: bool = False
    ) -> tuple[int, list[tuple[Any, int]]] | None:
        """`strictly`: those that are to be avoided are not taken even when there is no other."""
        if self._hashes and hash_ is None:
            hash_ = self._rng.u64()
        first = 0
        if len(self._levels) > 1:
            percent = self._rng.below(100) if hash_ is None or not self._hashes else hash_ % 100
            first = next(at for at in range(100) if sum(one.load for one in self._levels[: at + 1]) > percent)
        level = self._levels[first]
        order = level.order(hash_) if hash_ is not None and self._hashes else None
        for at in order if order is not None else (level.next() for _ in range(TRIES)):
            if (found := self._asked(level, at, avoid, bounded=True)) is not None:
                return found
        self.refusal = "max_requests_per_endpoint"
        least = avoid if strictly else ()
        for avoided, bounded in ((avoid, True), (least, True), (least, False)):
            for number in range(len(self._levels)):
                level = self._levels[(first + number) % len(self._levels)]
                start = hash_ if hash_ is not None and self._hashes else self._rng.u64()
                for step in range(len(level.slots)):
                    at = (start + step) % len(level.slots)
                    if level.weights[at] and (found := self._asked(level, at, avoided, bounded=bounded)) is not None:
                        return found
        return None

    def _asked(
        self, level: Level, at: int, avoid: Collection[int], *, bounded: bool
    ) -> tuple[int, list[tuple[Any, int]]] | None:
        calls, slot = self._calls, level.slots[at]
        if (bounded and not level.has_room(at)) or slot in avoid:
            return None
        if calls.max_requests_per_endpoint and calls.active(slot) >= calls.max_requests_per_endpoint:
            return None
        breaker = calls.breakers.get(slot)
        if breaker is None:
            return slot, []
        permit = -1 if slot in self._refused else breaker.admit(calls.clock.now_ns())
        if permit < 0:
            self._refused.add(slot)
            self.refusal = "endpoint_circuit_breaker"
            return None
        return slot, [(breaker, permit)]
