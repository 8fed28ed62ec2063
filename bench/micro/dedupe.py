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


def turn_over(window: DedupeWindow, fresh: array[int]) -> Loop:
    """A loop whose unit is one new id that is looked up and taken in; the window stays full."""
    batches = [fresh[first : first + 2 * BATCH] for first in range(0, len(fresh), 2 * BATCH)]
    offset = IDS

    def loop(n: int) -> int:
        nonlocal offset
        calls = max(1, n // BATCH)
        begin = perf_counter_ns()
        for _ in range(calls):
            batch = batches[offset // BATCH % len(batches)]
            window.find_many(batch, BATCH)
            window.add_many(batch, offset, offset)
            offset += BATCH
        return (perf_counter_ns() - begin) * n // (calls * BATCH)

    return loop


def turn_over_plainly(column: array[int], fresh: array[int]) -> Loop:
    """The same with an OrderedDict of the hashes' bytes."""
    old, new = column.tobytes(), fresh.tobytes()
    held = OrderedDict((old[at : at + 16], at) for at in range(0, len(old), 16))
    place = 0

    def loop(n: int) -> int:
        nonlocal place
        begin = perf_counter_ns()
        for _ in range(n):
            key = new[place : place + 16]
            if key not in held:
                held.popitem(last=False)
                held[key] = place
            place = (place + 16) % len(new)
        return perf_counter_ns() - begin

    return loop


def rows(quick: bool) -> list[Row]:
    """All results, in nanoseconds an id."""
    plan = Plan(repetitions=5) if quick else FULL
    # More new ids than the window holds, so that all stay new when they come round again.
    column, fresh = hashes(IDS, 2), hashes(IDS + IDS // 4, 3)
    return [
        row("dedupe", f"rebuild of {IDS:,}, an id", QUICK if quick else plan, rebuild(column), goal_ns=1_000),
        row(
            "dedupe",
            f"find and add at {IDS:,}, an id in batches of {BATCH:,}",
            plan,
            turn_over(rebuilt(column), fresh),
            "OrderedDict",
            turn_over_plainly(column, fresh),
        ),
    ]
