"""All that is done around a call to one of 1,000 endpoints, by a policy that says everything; the call itself left out."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Mapping
from itertools import repeat
from time import thread_time_ns
from typing import Any

from bench.micro.baseline import PEER, empty_method
from bench.micro.pick import COUNT, SEED, addresses, uneven
from bench.micro.timing import FULL, QUICK, Loop, Plan, each, row
from bench.row import row as one_row
from trunkline.core.breaker import Breaker, Outcome
from trunkline.core.call_chain import CallChain, LevelPicker
from trunkline.core.clock import Rng, SystemClock
from trunkline.core.in_flight import InFlight
from trunkline.core.policy import HASHING, Algorithm, LoadBalancingPolicy

Row = Mapping[str, Any]

IN_FLIGHT = 16
"""Calls at a time."""
CALLS = 1_000
"""Calls whose memory is measured."""


def chain_of(count: int, algorithm: Algorithm, *, weights: list[int] | None = None) -> CallChain:
    """Limits, a breaker for the service and one for each endpoint, and with hashing a bound on the load."""
    rng, calls = Rng(SEED), InFlight(SystemClock())
    slots = [calls.acquire() for _ in range(count)]
    calls.set_limits(max_requests=1_000, max_requests_per_endpoint=100)
    calls.set_breaker(Breaker())
    for slot in slots:
        calls.set_endpoint_breaker(slot, Breaker())
    policy = LoadBalancingPolicy(algorithm=algorithm, hash_balance_factor=125)
    level = LevelPicker(calls, rng, policy, 100, slots, weights or [100] * count, addresses(count))
    return CallChain(calls, rng, [level])


def calls_through(chain: CallChain, hashes: list[int] | None) -> Loop:
    """A loop that begins a call and ends the one that was begun IN_FLIGHT calls before."""
    under_way = deque(chain.begin() for _ in range(IN_FLIGHT))
    begin, took, put, success = chain.begin, under_way.popleft, under_way.append, int(Outcome.SUCCESS)

    def loop(n: int) -> int:
        if hashes is None:
            began_ns = thread_time_ns()
            for _ in repeat(None, n):
                put(begin())
                took().end(success)  # type: ignore[union-attr]  # nothing is refused
            return thread_time_ns() - began_ns
        some = [hashes[at % len(hashes)] for at in range(n)]
        began_ns = thread_time_ns()
        for hash_ in some:
            put(begin(hash_))
            took().end(success)  # type: ignore[union-attr]  # nothing is refused
        return thread_time_ns() - began_ns

    return loop


def bytes_taken(count: int) -> int:
    """Memory that CALLS calls take that are in flight together, at so many endpoints."""
    chain = chain_of(count, Algorithm.LEAST_REQUEST)
    for ticket in [chain.begin() for _ in range(CALLS)]:
        ticket.end(Outcome.SUCCESS)  # type: ignore[union-attr]  # nothing is refused
    tracemalloc.start()
    under_way = [chain.begin() for _ in range(CALLS)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert None not in under_way
    return taken


def rows(quick: bool) -> list[Row]:
    """All results, in CPU nanoseconds a call."""
    plan: Plan = QUICK if quick else FULL
    nothing = each(empty_method())
    rng = Rng(SEED)
    hashes = [rng.u64() for _ in range(50_000)]
    found: list[Row] = []
    for algorithm in Algorithm:
        for name, weights in (("", None), ("weighted ", uneven(COUNT))):
            if weights is not None and algorithm not in (Algorithm.ROUND_ROBIN, Algorithm.LEAST_REQUEST):
                continue
            chain = chain_of(COUNT, algorithm, weights=weights)
            loop = calls_through(chain, hashes if algorithm in HASHING else None)
            metric = f"{name}{algorithm.name.lower().replace('_', ' ')}: chain of {COUNT:,}"
            found.append(row("chain", metric, plan, loop, PEER, nothing, ratio_max=20, goal_ns=250))
    few, many = bytes_taken(10), bytes_taken(COUNT)
    found.append(
        one_row(
            "chain",
            f"memory of {CALLS:,} calls in flight: {COUNT:,} endpoints",
            [many],
            "bytes",
            peer="10 endpoints",
            peer_values=[few],
            gate="ratio <= 1.1",
        )
    )
    return found
