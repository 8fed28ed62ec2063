"""Version ranges by the examples of node-semver's README ("Ranges", "Prerelease Tags", "Advanced Range Syntax")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semantic_version import Version

from trunkline.core.ranges import RANGE_BYTES_MAX, parse_range


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("", "0.0.0 1.2.3", "1.2.3-rc"),
        ("*", "0.0.0 99.0.0+build", "1.0.0-0"),
        ("1.2.3", "1.2.3 1.2.3+build", "1.2.4 1.2.3-rc"),
        ("=v1.2.3", "1.2.3", "1.2.2"),
        (">=1.2.7 <1.3.0", "1.2.7 1.2.99", "1.2.6 1.3.0 1.1.0 1.3.0-rc 1.2.9-rc"),
        ("1.2.7 || >=1.2.9 <2.0.0", "1.2.7 1.2.9 1.4.6", "1.2.8 2.0.0 2.0.0-rc"),
        ("1.2.3 - 2.3.4", "1.2.3 2.3.4", "1.2.2 2.3.5"),
        ("1.2 - 2.3.4", "1.2.0", "1.1.9"),
        ("1.2.3 - 2.3", "2.3.99", "2.4.0 2.4.0-rc"),
        ("1.2.3 - 2", "2.99.99", "3.0.0 3.0.0-rc"),
        ("* - 1", "0.0.0 1.9.9", "2.0.0"),
        ("1.x", "1.0.0 1.9.9", "0.9.9 2.0.0 1.0.0-rc 2.0.0-rc"),
        ("1.2.*", "1.2.0 1.2.9", "1.3.0 1.1.9"),
        ("1.X.7", "1.0.0 1.5.9", "2.0.0"),
        ("1", "1.0.0 1.9.9", "2.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0 1.3.0-0"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.9", "2.0.0"),
        ("~0.2.3", "0.2.3 0.2.9", "0.3.0"),
        ("~>1.2", "1.2.9", "1.3.0"),
        ("~1.2.3-beta.2", "1.2.3-beta.2 1.2.3-beta.10 1.2.3-rc 1.2.3 1.2.9", "1.2.4-beta.2 1.2.3-beta.1 1.3.0"),
        ("~1.2.0-beta", "1.2.0-beta 1.2.0 1.2.5", "1.2.0-alpha 1.3.0"),
        ("^1.2.3", "1.2.3 1.9.9", "1.2.2 2.0.0 2.0.0-alpha 1.3.0-alpha"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
        ("^1.2.3-beta.2", "1.2.3-beta.2 1.2.3 1.9.9", "1.2.4-beta.2 2.0.0"),
        ("^0.0.3-beta", "0.0.3-beta 0.0.3-pr.2 0.0.3", "0.0.4"),
        ("^1.2.x", "1.2.0 1.9.9", "2.0.0"),
        ("^0.0.x", "0.0.0 0.0.9", "0.1.0"),
        ("^0.0", "0.0.9", "0.1.0"),
        ("^1.x", "1.0.0 1.9.9", "2.0.0"),
        ("^0.x", "0.0.0 0.9.9", "1.0.0"),
        ("^*", "0.0.0 9.9.9", "1.0.0-rc"),
        (">1.2.3-alpha.3", "1.2.3-alpha.7 1.2.3 3.4.5", "3.4.5-alpha.9 1.2.3-alpha.3 1.2.3-alpha.2"),
        ("<2", "1.9.9 0.0.0", "2.0.0 2.0.0-rc.1"),
        ("<2.0.0", "1.9.9", "2.0.0 2.0.0-rc.1"),
        ("<=2.0.0", "2.0.0", "2.0.0-rc.1 2.0.1"),
        ("<1.2.3-beta", "1.2.3-alpha 1.2.2", "1.2.3-beta 1.2.3"),
        ("<=1.2", "1.2.9", "1.3.0"),
        (">1", "2.0.0", "1.9.9"),
        (">1.2", "1.3.0", "1.2.9"),
        (">=1.2", "1.2.0", "1.1.9"),
        (">= 1.2.3  < 2", "1.2.3", "2.0.0"),
        ("<*", "", "0.0.0 1.0.0"),
        (">x", "", "0.0.0 9.9.9"),
        ("1.0.0 || * ", "7.0.0", "7.0.0-rc"),
        ("1.2.3-rc.1+build", "1.2.3-rc.1", "1.2.3 1.2.3-rc.2"),
    ],
)
def test_what_lies_in_a_range(text: str, inside: str, outside: str) -> None:
    found = parse_range(text)
    assert [v for v in inside.split() if not found.takes(Version(v))] == []
    assert [v for v in outside.split() if found.takes(Version(v))] == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "latest",
            "1.2.3.4",
            "1.2.3,2",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.x-rc",
            "1.2-rc",
            "^",
            ">",
        ),
        *(
            ">>1",
            "1 - 2 - 3",
            "1 -2",
            "- 2",
            "1 - ",
            "a - b",
            "!1",
            "\u0661",
            "1 || a",
            "1" * (RANGE_BYTES_MAX + 1),
            "é",
        ),
    ],
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_range(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("^1.2", ">=1.2.0 <2.0.0-0"),
        ("1.x", "~1"),
        ("1 || 2", "2 || 1"),
        (">=1 <3", "<3 >=1.0.0"),
        ("1.2.3", "=v1.2.3+build"),
        ("", "x || *"),
    ],
)
def test_ranges_that_are_the_same_have_the_same_text(one: str, other: str) -> None:
    assert parse_range(one).text == parse_range(other).text


@pytest.mark.parametrize(
    ("text", "is_empty"),
    [
        ("", False), ("*", False), ("^1.2", False), ("1.x || 3", False), ("1.0.0-rc.1", False),
        (">2 <1", True), ("=1.0.0 =2.0.0", True), ("^1 ^2", True), (">2 <1 || 3.x", False),
        ("<0.0.0", True), ("<0.0.0-0", True), ("<0.0.0-1", False), ("<*", True), (">*", True),
        (">=1.0.0 <1.0.1", False), (">1.0.0 <1.0.1", True), (">1.0.0 <=1.0.1", False), (">1.0.0 <1.0.1-0", True),
        (">1.0.0-a <1.0.0-a.0", True), (">1.0.0-a <1.0.0-a.0.0", False), (">1.0.0-a <1.0.0", False),
        (">=1.0.0-rc.1 <1.0.0-rc.1", True), (">=1.0.0-rc.1 <=1.0.0-rc.1", False), (">=1.0.0-b <1.0.0-a", True),
    ],
)  # fmt: skip
def test_a_range_in_which_no_version_lies_is_known(text: str, is_empty: bool) -> None:
    assert parse_range(text).is_empty is is_empty


VERSIONS = [
    Version(f"{core}{pre}")
    for core in ("0.0.0", "0.0.1", "1.0.0", "1.0.1", "1.1.0", "2.0.0")
    for pre in ("", "-0", "-0.0", "-1", "-a", "-a.0", "-a.0.0", "-a.b", "-b")
]
COMPARATORS = [f"{sign}{version}" for sign in ("<", "<=", ">", ">=", "=", "^", "~") for version in map(str, VERSIONS)]


@given(st.lists(st.sampled_from(COMPARATORS), min_size=1, max_size=4))
def test_a_range_that_takes_any_version_is_not_empty(comparators: list[str]) -> None:
    """The other way does not hold: what lies in a range may be a version that nobody lists."""
    found = parse_range(" ".join(comparators))
    if any(found.takes(version) for version in VERSIONS):
        assert not found.is_empty
