"""A snapshot of many keys: the same bytes whatever the order they came in, made in small steps, and read back."""

from __future__ import annotations

import time

from trunkline.core.records import Version
from trunkline.server.journal.control.admission import Admission
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.requests import RecentRequests
from trunkline.server.journal.control.snapshot import decode, frames, restore

KEYS = 100_000
STEP_S = 0.1
"""Of processor time; what is done at once for all keys takes more. Steps take about 0.005."""


def admission(order: list[int]) -> Admission:
    made = Admission()
    made.epochs[7], made.sequences[7] = 1, 4_711
    for number in order:
        made.last[f"instance/shop/{number * 2_654_435_761 % (1 << 32):010}"] = Version(7, 1, number)
    return made


def requests(count: int) -> RecentRequests:
    made = RecentRequests()
    for number in range(count):
        made.add(f"{number:032x}", number, number)
    return made


def test_equal_states_give_equal_bytes_and_are_read_back() -> None:
    order = list(range(3_000))
    one = b"".join(frames(9, 9, Folds([]), admission(order), requests(1_200)))
    order.reverse()
    other = b"".join(frames(9, 9, Folds([]), admission(order), requests(1_200)))
    assert one == other
    found, known = Admission(), RecentRequests()
    restore(decode(one), Folds([]), found, known)
    assert (found.last, found.epochs, found.sequences) == (admission(order).last, {7: 1}, {7: 4_711})
    assert known.items() == requests(1_200).items()


def test_no_step_is_as_long_as_the_state_is_large() -> None:
    large, known = admission(list(range(KEYS))), requests(KEYS)
    longest, began = 0.0, time.thread_time()
    for _ in frames(9, 9, Folds([]), large, known):
        ended = time.thread_time()
        longest, began = max(longest, ended - began), ended
    assert longest < STEP_S


def test_requests_are_bounded_by_number_and_by_time_and_the_last_of_an_id_counts() -> None:
    known = RecentRequests(limit=3, window_ns=100)
    for number, request_id in enumerate("abcd"):
        known.add(request_id, number, number)
    assert [known.get(request_id) for request_id in "abcd"] == [None, 1, 2, 3]
    known.add("b", 7, 50)
    known.add("e", 8, 103)
    assert [known.get(request_id) for request_id in "bcde"] == [7, None, 3, 8]
    assert known.items() == [("d", 3, 3), ("b", 7, 50), ("e", 8, 103)]
    known.add("f", 9, 150)
    assert [known.get(request_id) for request_id in "bdef"] == [7, None, 8, 9]
    known.add("g", 10, 151)
    assert (len(known), known.get("b")) == (3, None)
    known.add("e", 11, 152)
    assert [request_id for request_id, _, _ in known.items()] == ["f", "g", "e"]
