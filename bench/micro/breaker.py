"""A breaker around a call: ask, and report, with both readings of the clock."""

from __future__ import annotations

from itertools import repeat
from time import thread_time_ns
from typing import Any

import pybreaker

from bench.micro.baseline import PEER, empty_method
from bench.micro.timing import FULL, QUICK, Loop, Plan, each, row
from trunkline.core.breaker import Breaker, Outcome, WindowType
from trunkline.core.clock import SystemClock

Row = dict[str, Any]


def admit_and_record(breaker: Breaker, outcome: Outcome) -> Loop:
    """A loop that reads the clock in Python and passes it on, the call left out."""
    now, admit, record = SystemClock().now_ns, breaker.admit, breaker.record

    def loop(n: int) -> int:
        begin = thread_time_ns()
        for _ in repeat(None, n):
            began_ns = now()
            permit = admit(began_ns)
            ended_ns = now()
            record(permit, outcome, ended_ns - began_ns, ended_ns)
        return thread_time_ns() - begin

    return loop


def begin_and_end(breaker: Breaker, outcome: Outcome) -> Loop:
    """A loop of what the SDK does around each call, the call left out."""
    clock, begin, end = SystemClock(), breaker.begin, breaker.end

    def loop(n: int) -> int:
        began_ns = thread_time_ns()
        for _ in repeat(None, n):
            end(begin(clock), outcome, clock)
        return thread_time_ns() - began_ns

    return loop


def around_a_call(breaker: Breaker) -> Loop:
    """A loop of guarded calls of an empty function, to stand beside pybreaker's `call`."""
    clock, begin, end = SystemClock(), breaker.begin, breaker.end

    def loop(n: int) -> int:
        began_ns = thread_time_ns()
        for _ in repeat(None, n):
            permit = begin(clock)
            _callee()
            end(permit, Outcome.SUCCESS, clock)
        return thread_time_ns() - began_ns

    return loop


def _callee() -> None:
    """What the breakers guard."""


def refusals(breaker: Breaker) -> Loop:
    """A loop of calls that an open breaker refuses."""
    for _ in range(100):
        breaker.record(breaker.admit(0), Outcome.FAILURE, 0, 0)
    return each(lambda: breaker.admit(1))


def rows(quick: bool) -> list[Row]:
    """All results, in CPU nanoseconds a call."""
    plan: Plan = QUICK if quick else FULL
    nothing = each(empty_method())
    by_time = Breaker(sliding_window_type=WindowType.TIME_BASED)
    theirs = pybreaker.CircuitBreaker()
    found = []
    for window, breaker in (("count-based", Breaker()), ("time-based", by_time)):
        loop = begin_and_end(breaker, Outcome.SUCCESS)
        metric = f"begin + end (admit, record, two clock reads), {window}"
        found.append(row("breaker", metric, plan, loop, PEER, nothing, ratio_max=10, goal_ns=100))
    loop = admit_and_record(Breaker(), Outcome.SUCCESS)
    found.append(row("breaker", "admit + record, clock read twice from Python", plan, loop, PEER, nothing))
    guarded = around_a_call(Breaker())
    peer = each(lambda: theirs.call(_callee))
    found.append(row("breaker", "guarded call of an empty function", plan, guarded, "pybreaker call", peer))
    found.append(row("breaker", "refused by an open breaker", plan, refusals(Breaker()), PEER, nothing))
    found.append(row("breaker", "snapshot", plan, each(lambda: by_time.snapshot(0))))
    return found
