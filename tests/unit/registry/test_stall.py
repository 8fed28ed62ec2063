"""Whether the server stood still."""

from __future__ import annotations

from trunkline.server.registry.stall import StallDetector

MS = 1_000_000


def detector() -> StallDetector:
    stalls = StallDetector(tick_ms=100, tolerance_ms=250)
    stalls.ticked(1_000 * MS)
    return stalls


def test_a_tick_in_time_or_a_little_late_is_no_stall() -> None:
    assert detector().observe(1_100 * MS) == 0
    assert detector().observe(1_350 * MS) == 0


def test_a_stall_is_as_long_as_the_tick_is_late() -> None:
    assert detector().observe(61_100 * MS) == 60_000 * MS


def test_it_is_found_once_by_whoever_asks_first() -> None:
    stalls = detector()
    assert stalls.observe(61_100 * MS) == 60_000 * MS
    assert stalls.observe(61_101 * MS) == 0
    stalls.ticked(61_102 * MS)
    assert stalls.observe(61_202 * MS) == 0


def test_a_stall_that_goes_on_is_found_piece_by_piece() -> None:
    stalls = detector()
    found = sum(stalls.observe(at * MS) for at in range(1_100, 11_101, 500))
    assert found == 10_000 * MS


def test_before_the_first_tick_there_is_nothing_to_compare() -> None:
    assert StallDetector(tick_ms=100, tolerance_ms=250).observe(10**18) == 0
