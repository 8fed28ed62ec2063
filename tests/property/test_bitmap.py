"""Bitmaps of offsets against sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.bitmap import all_but, only

firsts = st.sampled_from([0, 1, 1_000, 2**63])
sizes = st.integers(0, 70)
places = st.lists(st.integers(-20, 90), max_size=40)


def told(bits: bytes, first: int) -> set[int]:
    return {first + place for place in range(8 * len(bits)) if bits[place >> 3] >> (place & 7) & 1}


@given(firsts, sizes, places)
def test_a_bitmap_says_what_a_set_says(first: int, size: int, some: list[int]) -> None:
    offsets = [first + place for place in some if first + place >= 0]
    within = set(range(first, first + size))
    without, with_ = all_but(first, first + size, iter(offsets)), only(first, first + size, offsets)
    assert told(without, first) == within - set(offsets)
    assert told(with_, first) == within & set(offsets)
    assert not without.endswith(b"\0")
    assert not with_.endswith(b"\0")


def test_nothing_lies_below_its_first_offset() -> None:
    assert all_but(7, 7, [7]) == only(7, 5, [5, 6]) == b""
