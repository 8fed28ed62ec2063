"""What stands around a call besides the breaker: shedding, outlier detection, the retry budget, rate limits."""

from __future__ import annotations

from typing import Any

from bench.micro.baseline import PEER, empty_method
from bench.micro.timing import FULL, QUICK, Loop, Plan, each, row
from trunkline.core.breaker import Outcome, WindowType
from trunkline.core.clock import ManualClock, Rng, SystemClock
from trunkline.core.outliers import OutlierDetector
from trunkline.core.policy import OutlierDetection
from trunkline.core.retry_budget import RetryBudget
from trunkline.core.shedding import SheddingBreaker
from trunkline.core.token_bucket import KeyedBuckets, TokenBucket

Row = dict[str, Any]

HOSTS = 1_000


def begin_and_end(breaker: SheddingBreaker, outcome: Outcome) -> Loop:
    """What the SDK does around each call, the call left out; what is refused does not end."""
    clock, begin, end = SystemClock(), breaker.begin, breaker.end

    def call() -> None:
        permit = begin(clock)
        if permit >= 0:
            end(permit, outcome, clock)

    return each(call)


def shedding() -> SheddingBreaker:
    """One that has had enough calls, half of them bad, so that it looks at its chance each time, and mostly has none."""
    breaker = SheddingBreaker(Rng(1))
    clock = ManualClock()
    for at in range(200):
        breaker.end(breaker.begin(clock), Outcome.FAILURE if at % 2 else Outcome.SUCCESS, clock)
    return breaker


def detector() -> OutlierDetector:
    """Of 1,000 hosts."""
    made = OutlierDetector(OutlierDetection(), Rng(1))
    made.set_hosts([str(at) for at in range(HOSTS)])
    made.advance(1)
    return made


def look(hosts: OutlierDetector) -> Loop:
    """The interval's look at hosts that all had calls."""
    now_ns = 1

    def call() -> None:
        nonlocal now_ns
        now_ns += 10**11
        hosts.advance(now_ns)

    for index in range(HOSTS):
        for _ in range(100):
            hosts.record(index, 0, False, 1)
    return each(call)


def rows(quick: bool) -> list[Row]:
    """All results, in CPU nanoseconds a call."""
    plan: Plan = QUICK if quick else FULL
    nothing = each(empty_method())
    found = []
    for name, outcome in (("all well", Outcome.SUCCESS), ("all fails: 95 of 100 are refused", Outcome.FAILURE)):
        metric = f"shedding: begin + end, {name}"
        loop = begin_and_end(shedding(), outcome)
        gated: dict[str, float] = {"ratio_max": 10} if outcome is Outcome.SUCCESS else {}
        found.append(row("breaker", metric, plan, loop, PEER, nothing, **gated))
    by_time = SheddingBreaker(Rng(1), sliding_window_type=WindowType.TIME_BASED)
    loop = begin_and_end(by_time, Outcome.SUCCESS)
    found.append(row("breaker", "shedding: begin + end, time-based", plan, loop, PEER, nothing, ratio_max=10))
    record = detector().record
    loop = each(lambda: record(7, 0, False, 1))
    found.append(row("breaker", "outlier detection: record", plan, loop, PEER, nothing, ratio_max=10))
    found.append(row("breaker", f"outlier detection: look at {HOSTS:,} hosts", plan, look(detector())))
    called = RetryBudget().called
    found.append(row("breaker", "retry budget: called", plan, each(lambda: called(1)), PEER, nothing, ratio_max=10))
    take = RetryBudget(1_000, 100_000).take
    found.append(row("breaker", "retry budget: take", plan, each(lambda: take(10**11)), PEER, nothing, ratio_max=10))
    spend = TokenBucket(2**32 - 1, 1, 1, 0).take
    found.append(row("breaker", "token bucket: take", plan, each(lambda: spend(1)), PEER, nothing, ratio_max=10))
    keyed = KeyedBuckets(2**32 - 1, 1, 1).take
    loop = each(lambda: keyed(b"caller", 1))
    found.append(row("breaker", "token bucket of a key: take", plan, loop, PEER, nothing, ratio_max=10))
    return found
