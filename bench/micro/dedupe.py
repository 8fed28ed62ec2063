"""A full dedupe window: looking ids up, taking new ones in, and rebuilding it from a journal's columns."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from random import Random
from time import perf_counter_ns
from typing import Any

from bench.micro.timing import FULL, QUICK, Loop, Plan, row
from trunkline.core.dedupe import DedupeWindow

IDS = 1_000_000
BATCH = 1_000
WINDOW_NS = 120_000_000_000

Row = dict[str, Any]


def hashes(count: int, seed: int) -> array[int]:
    """Random hashes of 128 bits, two words each."""
    return array("Q", Random(seed).randbytes(16 * count))


def rebuilt(column: array[int]) -> DedupeWindow:
    """A window filled batch by batch, as after a restart."""
    window = DedupeWindow(max_ids=IDS, window_ns=WINDOW_NS, seed=1)
    words = memoryview(column)
    for first in range(0, len(column) // 2, BATCH):
        window.add_many(words[2 * first : 2 * (first + BATCH)], first, first)
    return window


def rebuild(column: array[int]) -> Loop:
    """A loop whose unit is one id."""

    def loop(n: int) -> int:
        runs = max(1, n // IDS)
        begin = perf_counter_ns()
        for _ in range(runs):
            rebuilt(column)
        return (perf_counter_ns() - begin) * n // (runs * IDS)

    return loop


def turn_over(window: DedupeWindow) -> Loop:
    """A loop whose unit is one new id that is looked up and taken in; the window stays full."""
    fresh = hashes(200 * BATCH, 3)
    batches = [fresh[2 * first : 2 * (first + BATCH)] for first in range(0, 200 * BATCH, BATCH)]
    offset = IDS

    def loop(n: int) -> int:
        nonlocal offset
        calls = max(1, n // BATCH)
        begin = perf_counter_ns()
        for call in range(calls):
            batch = batches[call % len(batches)]
            window.find_many(batch, BATCH)
            window.add_many(batch, offset, offset)
            offset += BATCH
        return (perf_counter_ns() - begin) * n // (calls * BATCH)

    return loop


def turn_over_plainly(column: array[int]) -> Loop:
    """The same with an OrderedDict of Python integers."""
    held = OrderedDict((pair, at) for at, pair in enumerate(zip(column[::2], column[1::2], strict=True)))
    fresh = hashes(200 * BATCH, 4)
    pairs = list(zip(fresh[::2], fresh[1::2], strict=True))

    def loop(n: int) -> int:
        begin = perf_counter_ns()
        for at in range(n):
            pair = pairs[at % len(pairs)]
            if pair not in held:
                held.popitem(last=False)
            held[pair] = at
        return perf_counter_ns() - begin

    return loop


def rows(quick: bool) -> list[Row]:
    """All results, in nanoseconds an id."""
    plan = Plan(repetitions=5) if quick else FULL
    column = hashes(IDS, 2)
    return [
        row("dedupe", f"rebuild of {IDS:,}, an id", QUICK if quick else plan, rebuild(column), goal_ns=1_000),
        row(
            "dedupe",
            f"find and add at {IDS:,}, an id in batches of {BATCH:,}",
            plan,
            turn_over(rebuilt(column)),
            "OrderedDict",
            turn_over_plainly(column),
        ),
    ]
