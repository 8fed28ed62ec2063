"""The dedupe window's edges."""

from __future__ import annotations

from array import array

import pytest

from trunkline.core.dedupe import IDS_MAX, SAME_HASH_MAX, DedupeWindow


def ids(*numbers: int) -> array[int]:
    return array("Q", [word for number in numbers for word in (number, ~number & 0xFFFFFFFFFFFFFFFF)])


def known(window: DedupeWindow, *numbers: int) -> list[int]:
    found = window.find_many(ids(*numbers), len(numbers))
    return [-1] * len(numbers) if found is None else found.tolist()


def test_an_id_is_known_until_its_window_has_passed() -> None:
    window = DedupeWindow(max_ids=10, window_ns=100)
    window.add_many(ids(1), 5, 1000)
    assert window.expire(1099) == 0
    assert known(window, 1, 2) == [5, -1]
    assert window.expire(1100) == 1
    assert known(window, 1) == [-1]
    assert len(window) == 0


def test_the_oldest_goes_when_there_are_too_many() -> None:
    window = DedupeWindow(max_ids=3, window_ns=100)
    window.add_many(ids(1, 2, 3, 4, 5), 0, 0)
    assert known(window, 1, 2, 3, 4, 5) == [-1, -1, 2, 3, 4]


def test_a_batch_knows_itself() -> None:
    window = DedupeWindow(max_ids=10, window_ns=100)
    window.add_many(ids(7), 40, 0)
    # The fourth leads to the second, the second to the stored one; the fifth to the third.
    assert known(window, 1, 7, 2, 7, 2) == [-1, 40, -1, -3, -4]


def test_what_a_failed_append_added_is_taken_back() -> None:
    window = DedupeWindow(max_ids=10, window_ns=100)
    window.add_many(ids(1, 2), 0, 0)
    window.add_many(ids(3, 4), 2, 0)
    assert window.take_back(2) == 2
    assert known(window, 1, 2, 3, 4) == [0, 1, -1, -1]
    window.add_many(ids(4), 2, 0)
    assert known(window, 4) == [2]


def test_a_collision_is_kept_beside_the_first_one() -> None:
    window = DedupeWindow(max_ids=100, window_ns=100)
    window.add_many(ids(1), 3, 0)
    window.add_many(ids(1), 8, 0)
    assert known(window, 1) == [8]
    assert window.candidates(*ids(1)) == [8, 3]
    window.add_many(ids(*[1] * 20), 9, 0)
    assert len(window.candidates(*ids(1))) == SAME_HASH_MAX
    assert window.expire(100) == 22
    assert window.candidates(*ids(1)) == []


@pytest.mark.parametrize("seed", range(64))
def test_the_newest_of_a_collision_is_found_wherever_it_lies_in_the_table(seed: int) -> None:
    # The seed decides whether the entries wrap round the end of a table; the many others make the tables grow then.
    window = DedupeWindow(max_ids=10_000, window_ns=100, seed=seed)
    window.add_many(ids(*[1] * 4), 0, 0)
    window.add_many(ids(*range(2, 5000)), 4, 0)
    assert known(window, 1) == [3]
    assert window.candidates(*ids(1)) == [3, 2, 1, 0]


def test_a_window_of_no_time_knows_nothing_when_asked_at_stream_time() -> None:
    window = DedupeWindow(max_ids=10, window_ns=0)
    window.add_many(ids(1), 0, 50)
    window.expire(50)
    assert known(window, 1) == [-1]


@pytest.mark.parametrize(
    ("offset", "time_ns", "words"),
    [(4, 10, 2), (9, 9, 2), (-1, 10, 2), (9, 10, 3)],
    ids=["offset", "time", "sign", "half"],
)
def test_what_cannot_come_next_is_refused_and_changes_nothing(offset: int, time_ns: int, words: int) -> None:
    window = DedupeWindow(max_ids=10, window_ns=100)
    window.add_many(ids(1), 4, 10)
    with pytest.raises(ValueError, match=r"offset|words"):
        window.add_many(array("Q", [5] * words), offset, time_ns)
    assert len(window) == 1


@pytest.mark.parametrize("wrong", [{"max_ids": 0}, {"max_ids": IDS_MAX + 1}, {"window_ns": -1}])
def test_bounds_of_the_window_itself(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DedupeWindow(**{"max_ids": 10, "window_ns": 10, **wrong})


def test_columns_of_a_block_are_taken_without_a_copy() -> None:
    window = DedupeWindow(max_ids=10, window_ns=100, seed=3)
    window.add_many(memoryview(bytes(ids(1, 2))).cast("Q"), 0, 0)
    assert known(window, 2) == [1]
