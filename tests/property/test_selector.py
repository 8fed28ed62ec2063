"""Ranges of versions against a slow reading of npm's rules, and what must hold of any selector."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from semantic_version import Version

from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Instance, Locality, RegisteredInstance, Status
from trunkline.core.ranges import parse_range
from trunkline.core.selector import Selector

small = st.integers(0, 2)
pre_releases = st.sampled_from(["", "", "", "-0", "-rc", "-rc.1", "-rc.10", "-1"])
versions = st.builds("{}.{}.{}{}".format, small, small, small, pre_releases)
bounds = st.tuples(st.sampled_from(["<", "<=", "=", ">=", ">"]), versions)
ranges = st.lists(st.lists(bounds, min_size=1, max_size=3), min_size=1, max_size=3)
wild = st.builds(
    lambda sign, parts, pre: sign + ".".join(parts) + (pre if len(parts) == 3 and not set("x*") & set(parts) else ""),
    st.sampled_from(["", "^", "~", "<", "<=", ">", ">=", "="]),
    st.lists(st.sampled_from(["0", "1", "2", "x", "*"]), min_size=1, max_size=3),
    pre_releases,
)


def precedes(one: Version, other: Version) -> bool:
    """semver.org, item 11, from its text."""
    if one.truncate() != other.truncate():
        return (one.major, one.minor, one.patch) < (other.major, other.minor, other.patch)
    if not one.prerelease or not other.prerelease:
        return bool(one.prerelease) and not other.prerelease
    for left, right in zip(one.prerelease, other.prerelease, strict=False):
        if left != right:
            if left.isdigit() and right.isdigit():
                return int(left) < int(right)
            return bool(left.isdigit()) if left.isdigit() != right.isdigit() else bool(left < right)
    return len(one.prerelease) < len(other.prerelease)


def holds(version: Version, sign: str, bound: Version) -> bool:
    below, above = precedes(version, bound), precedes(bound, version)
    return {"<": below, "<=": not above, "=": not (below or above), ">=": not below, ">": above}[sign]


@given(alternatives=ranges, text=versions)
def test_plain_comparators(alternatives: list[list[tuple[str, str]]], text: str) -> None:
    version = Version(text)
    expected = any(
        all(holds(version, sign, Version(bound)) for sign, bound in alternative)
        and (
            not version.prerelease
            or any(Version(b).prerelease and Version(b).truncate() == version.truncate() for _, b in alternative)
        )
        for alternative in alternatives
    )
    written = " || ".join(" ".join(sign + bound for sign, bound in alternative) for alternative in alternatives)
    assert parse_range(written).takes(version) is expected


@given(parts=st.lists(wild, min_size=1, max_size=3), joiner=st.sampled_from([" ", " || "]), text=versions)
def test_the_desugared_text_is_a_range_that_takes_the_same(parts: list[str], joiner: str, text: str) -> None:
    found = parse_range(joiner.join(parts))
    again = parse_range(found.text[:120]) if len(found.text) <= 120 else found
    assert again.text == found.text
    assert again.takes(Version(text)) is found.takes(Version(text))
    if joiner == " || ":
        assert found.takes(Version(text)) is any(parse_range(part).takes(Version(text)) for part in parts)


@given(text=st.text(alphabet="0123.xX*^~<>=|- vab+\n\u0663", max_size=20) | st.text(max_size=10))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    with suppress(InvalidArgument):
        selector = Selector(version=text)
        assert Selector(version=text).canonical() == selector.canonical()


@given(
    version=st.sampled_from(["", "1.0.0", "1.2.0-rc", "2.1.1"]),
    labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
    region=st.sampled_from(["", "eu"]),
    status=st.sampled_from(Status),
    wanted=st.tuples(
        st.sampled_from(["", "*", "^1", "^1.2.0-a", ">2"]),
        st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
        st.sampled_from(["", "eu", "us"]),
        st.frozensets(st.sampled_from(Status)),
    ),
)
def test_every_condition_must_hold(
    version: str,
    labels: dict[str, str],
    region: str,
    status: Status,
    wanted: tuple[str, dict[str, str], str, frozenset[Status]],
) -> None:
    range_text, wanted_labels, wanted_region, statuses = wanted
    registered = RegisteredInstance(
        instance=Instance(
            namespace="n", service="s", id="i", endpoints=(), version=version, labels=labels, locality=Locality(region)
        ),
        status=status,
        status_reason="",
        created_revision=1,
        modified_revision=1,
        registered_at_ns=0,
    )
    selector = Selector(version=range_text, labels=wanted_labels, locality=Locality(wanted_region), statuses=statuses)
    expected = (
        status in (statuses or {Status.SERVING, Status.DEGRADED, Status.STALE})
        and wanted_labels.items() <= labels.items()
        and wanted_region in ("", region)
        and (not range_text or (version != "" and parse_range(range_text).takes(Version(version))))
    )
    assert selector.matches(registered) is expected
    assert selector.matches(registered) is expected  # from memory
