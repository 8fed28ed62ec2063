"""JSON is taken apart as the standard library's parser would, and what that refuses is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference import jsontext as reference
from trunkline.core.errors import InvalidArgument
from trunkline.core.jsontext import DEPTH_MAX, JsonText

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=16,
)
TEXTS = st.builds(json.dumps, VALUES, ensure_ascii=st.booleans(), indent=st.none() | st.integers(0, 2)).map(
    lambda text: text.encode(errors="replace")
)
PIECES = [
    *(bytes([char]) for char in b"\"{}[],:\\-.01e \n\x00\x1f\x7f\xff\x0b'/"),
    b"\\u", b"\\ud8", b"\\n", b"\\x", b"E+", b"NaN", b"Infinity", b"true", b"nul",
    b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf",
]  # fmt: skip
ANY_TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)
"""Mostly no JSON."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    text = bytearray(draw(TEXTS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from([*PIECES, b""]))
    return bytes(text)


def expected(text: bytes) -> Any:
    """What the oracle makes of it; ValueError if it is no JSON."""
    try:
        return reference.parsed(text)
    except ValueError:
        return ValueError


def is_whole(text: bytes) -> bool:
    try:
        scanned = JsonText(text, "body")
        scanned.expect_end(scanned.value(scanned.behind_space(0)))
    except InvalidArgument:
        return False
    return True


@given(damaged() | ANY_TEXTS)
@example(b"")
@example(b"-")
@example(b"01")
@example(b"1.")
@example(b".5")
@example(b"1e")
@example(b"+1")
@example(b'"\\u12g4"')
@example(b'"\\ud800"')
@example(b'{"a":1,}')
@example(b"[1 2]")
@example(b"[1:2]")
@example(b'{"a",1}')
@example(b'{"a":1:"b":2}')
@example(b'"\x1f"')
@example(b'"\n"')
@example(b'"\\')
@example(b'"\\"')
@example(b'"\\u004"')
@example(b"[1}")
@example(b"{}}")
def test_what_is_json_is_taken_and_nothing_else(text: bytes) -> None:
    assert is_whole(text) == (expected(text) is not ValueError)


@given(TEXTS, st.binary(max_size=3).filter(lambda more: more[:1] not in tuple(b"%d" % n for n in range(10))))
def test_a_value_ends_where_it_ends(text: bytes, more: bytes) -> None:
    if text[-1:].isdigit():
        more = b" " + more
    try:
        scanned = JsonText(text + more, "body")
    except InvalidArgument:
        return  # what follows is no UTF-8
    assert scanned.value(0) == len(text)


@given(
    st.lists(st.tuples(st.text(max_size=4), VALUES), max_size=6), st.booleans(), st.sampled_from(["", " ", "\r\n\t "])
)
def test_members_as_they_stand(pairs: list[tuple[str, Any]], ascii: bool, space: str) -> None:
    written = [
        f"{json.dumps(name, ensure_ascii=ascii)}{space}:{space}{json.dumps(value, ensure_ascii=ascii)}"
        for name, value in pairs
    ]
    text = f"{{{space}{f'{space},{space}'.join(written)}{space}}}".encode(errors="replace")
    found, end = JsonText(text, "body").members(0, 6, len(text))
    assert end == len(text)
    shown = [(json.loads(b'"%b"' % name), reference.parsed(text[begin:behind])) for name, begin, behind in found]
    assert shown == reference.members(text)


@given(damaged() | ANY_TEXTS)
def test_members_of_what_is_no_object_are_refused(text: bytes) -> None:
    try:
        wanted = len(reference.members(text))
    except ValueError:
        wanted = None
    try:
        scanned = JsonText(text, "body")
        found, end = scanned.members(scanned.behind_space(0), 100, 1_000)
        scanned.expect_end(end)
    except InvalidArgument:
        assert wanted is None
    else:
        assert len(found) == wanted


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_depth_has_a_limit(brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    for depth, is_taken in ((DEPTH_MAX, True), (DEPTH_MAX + 1, False)):
        assert is_whole(f"{opening * depth}1{closing * depth}".encode()) is is_taken
    assert not is_whole(opening.encode() * 1_000_000)


def test_bounds() -> None:
    text = JsonText(b'{"a": [1, 2], "b": "xyz"}', "body")
    assert text.members(0, 2, 6)[0] == [(b"a", 6, 12), (b"b", 19, 24)]
    for count, size in ((1, 6), (2, 5), (2, 0)):
        with pytest.raises(InvalidArgument, match="at most"):
            text.members(0, count, size)
    for at in (-1, 26):
        for call in (text.behind_space, text.value, text.expect_end):
            with pytest.raises(IndexError):
                call(at)
        with pytest.raises(IndexError):
            text.stands(at, "x")
    assert not text.stands(25, "x")
    with pytest.raises(InvalidArgument, match=r"body: a bracket at byte 25.*the end"):
        text.expect(25, "[", "a bracket")
