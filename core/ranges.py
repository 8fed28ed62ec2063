"""Ranges of semantic versions with npm's syntax and meaning.

Grammar and desugaring are those that node-semver documents ("Advanced Range Syntax", github.com/npm/node-semver).
`semantic_version` parses the versions. Its own NpmSpec is not used because its upper bounds let pre-releases in: there
`<2.0.0` takes 2.0.0-rc.1, the very version that such a range is written to keep out.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from semantic_version import Version

RANGE_BYTES_MAX = 128
"""Length of a range's text."""

_PART = r"[xX*]|0|[1-9][0-9]*"
_PARTIAL = re.compile(
    rf"v?({_PART})(?:\.({_PART})(?:\.({_PART})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?)?)?", re.ASCII
)
_SIMPLE = re.compile(r"(<=|>=|~>|[<>=~^]|)(.+)")
_GAP_BEHIND_OPERATOR = re.compile(r"(<=|>=|~>|[<>=~^]) +")
ALTERNATIVES_MAX = 32
"""Of a range that is made of others."""
_NEGATIONS = {"<": (">=",), "<=": (">",), "=": ("<", ">"), ">=": ("<",), ">": ("<=",)}
_TESTS: dict[str, Callable[[Precedence, Precedence], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}


class Precedence(NamedTuple):
    """What semver.org 2.0.0, item 11, compares versions by; build metadata is not in it."""

    major: int
    minor: int
    patch: int
    released: bool
    pre: tuple[tuple[bool, int, str], ...]
    """Identifiers of a pre-release: numbers before words, numbers by value, words by their characters."""


class Comparator(NamedTuple):
    """One bound."""

    operator: str
    bound: Precedence
    text: str


class Partial(NamedTuple):
    """A version of which parts may be missing or wild; what stands behind a wild part is wild too."""

    major: int | None
    minor: int | None
    patch: int | None
    pre: str


class VersionRange:
    """Alternatives, each of comparators that must all hold."""

    __slots__ = ("_alternatives", "text")

    def __init__(self, alternatives: tuple[tuple[Comparator, ...], ...]) -> None:
        self._alternatives = alternatives
        self.text = " || ".join(sorted({" ".join(c.text for c in alternative) or "*" for alternative in alternatives}))
        """The desugared range. Ranges with the same text take the same versions."""

    def takes(self, version: Version) -> bool:
        """Whether the version lies in the range.

        A pre-release does so only if a comparator of the same alternative names a pre-release of the same
        major.minor.patch: who asks for `^1.2` does not ask for 1.3.0-rc.1.
        """
        return self.takes_key(precedence(version))

    def takes_key(self, key: Precedence) -> bool:
        """The same of a version that is looked at again and again."""
        return any(_all_hold(alternative, key) for alternative in self._alternatives)

    @property
    def is_empty(self) -> bool:
        """Whether there is no version at all that lies in the range, as in `>2 <1`."""
        return not any(
            _all_hold(alternative, key) for alternative in self._alternatives for key in _least_above(alternative)
        )

    def outside(self) -> VersionRange | None:
        """What takes every release that this does not take, and nothing that it takes. None when no release is left.

        ValueError when that is too long to be written as a range.
        """
        negated = [[flipped for c in alternative for flipped in _negated(c)] for alternative in self._alternatives]
        return _joined([(flipped,) for flipped in choices] for choices in negated)

    def both(self, other: VersionRange) -> VersionRange | None:
        """What takes the releases that both take, and nothing else. Otherwise as `outside`."""
        return _joined([self._alternatives, other._alternatives])


@lru_cache(maxsize=1024)
def parse_range(text: str) -> VersionRange:
    """The range that `text` means; ValueError says what is wrong with it. "" and "*" take every release."""
    if len(text.encode()) > RANGE_BYTES_MAX:
        raise ValueError(f"longer than {RANGE_BYTES_MAX} bytes")
    return VersionRange(tuple(_alternative(part.strip()) for part in text.split("||")))


@lru_cache(maxsize=4096)
def takes(range_: str, version: str) -> bool:
    """Whether a version lies in a range, both as texts; one that is not semantic lies in none. ValueError when the range is
    none."""
    try:
        parsed = Version(version)
    except ValueError:
        return False
    return parse_range(range_).takes(parsed)


@lru_cache(maxsize=4096)
def precedence(version: Version) -> Precedence:
    """The version's precedence."""
    pre = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in version.prerelease)
    return Precedence(version.major, version.minor, version.patch, not pre, pre)


def _negated(comparator: Comparator) -> Iterator[Comparator]:
    version = comparator.text.lstrip("<>=")
    for sign in _NEGATIONS[comparator.operator]:
        yield Comparator(sign, comparator.bound, sign + version)


def _joined(factors: Iterable[Sequence[tuple[Comparator, ...]]]) -> VersionRange | None:
    """Alternatives of all that one of each of the factors asks for, without those that nothing can satisfy."""
    joined: set[tuple[Comparator, ...]] = {()}
    for factor in factors:
        joined = {tight for left in joined for right in factor if (tight := _tight({*left, *right})) is not None}
        if len(joined) > ALTERNATIVES_MAX:
            raise ValueError(f"it has more than {ALTERNATIVES_MAX} alternatives")
    if not joined:
        return None
    found = VersionRange(tuple(sorted(joined)))
    return parse_range(found.text)


def _tight(comparators: Collection[Comparator]) -> tuple[Comparator, ...] | None:
    """Without what the others imply; None when no version satisfies all of them."""
    exact = [c for c in comparators if c.operator == "="]
    lows = [c for c in comparators if c.operator in (">", ">=")]
    highs = [c for c in comparators if c.operator in ("<", "<=")]
    low = max(lows, key=lambda c: (c.bound, c.operator == ">"), default=None)
    high = min(highs, key=lambda c: (c.bound, c.operator == "<="), default=None)
    kept = [c for c in (low, high) if c is not None]
    if exact:
        if all(_TESTS[c.operator](exact[0].bound, c.bound) for c in comparators):
            return (exact[0],)
        return None
    if low is not None and high is not None:
        closed = low.operator == ">=" and high.operator == "<="
        if low.bound > high.bound or (low.bound == high.bound and not closed):
            return None
    return tuple(sorted(kept, key=lambda c: (c.bound, c.operator)))


def _all_hold(alternative: tuple[Comparator, ...], key: Precedence) -> bool:
    for sign, bound, _ in alternative:  # a loop, and no generator: it is run for thousands of versions
        if not _TESTS[sign](key, bound):
            return False
    return key.released or any(not c.bound.released and c.bound[:3] == key[:3] for c in alternative)


def _least_above(alternative: tuple[Comparator, ...]) -> Iterator[Precedence]:
    """Where upper bounds let anything in, one of these is in: the least release above all lower bounds, and of each
    version whose pre-releases are let in the least pre-release above them."""
    lower = [c for c in alternative if c.operator in (">", ">=", "=")]
    yield max((_least_release(c) for c in lower), default=Precedence(0, 0, 0, True, ()))
    for triple in {c.bound[:3] for c in alternative if not c.bound.released}:
        of_triple = [_least_pre(c) for c in lower if c.bound[:3] == triple and not c.bound.released]
        yield max(of_triple, default=Precedence(*triple, False, ((False, 0, "0"),)))


def _least_release(lower: Comparator) -> Precedence:
    bound = lower.bound
    step = lower.operator == ">" and bound.released
    return Precedence(bound.major, bound.minor, bound.patch + step, True, ())


def _least_pre(lower: Comparator) -> Precedence:
    """Behind a pre-release comes next the one that has another identifier, "0" (semver.org 2.0.0, item 11.4)."""
    bound = lower.bound
    return bound._replace(pre=(*bound.pre, (False, 0, "0"))) if lower.operator == ">" else bound


def _alternative(text: str) -> tuple[Comparator, ...]:
    low, hyphen, high = text.partition(" - ")
    if hyphen:
        found = {*_from(_partial(low.strip())), *_up_to(_partial(high.strip()))}
    else:
        found = {c for simple in _GAP_BEHIND_OPERATOR.sub(r"\1", text).split() for c in _simple(simple)}
    return tuple(sorted(found, key=lambda c: (c.bound, c.operator)))


def _simple(text: str) -> Iterator[Comparator]:
    match = _SIMPLE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a version")
    sign, partial = match[1], _partial(match[2])
    if sign in ("~", "~>"):
        return _tilde(partial)
    if sign == "^":
        return _caret(partial)
    return _primitive(sign or "=", partial)


def _partial(text: str) -> Partial:
    match = _PARTIAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a version")
    major, minor, patch = (int(part) if part and part not in "xX*" else None for part in match.group(1, 2, 3))
    minor = None if major is None else minor
    patch = None if minor is None else patch
    if patch is None and match[4]:
        raise ValueError(f"{text!r} is a pre-release of no version")
    return Partial(major, minor, patch, match[4] or "")


def _bound(sign: str, major: int, minor: int, patch: int, pre: str = "") -> Comparator:
    text = f"{major}.{minor}.{patch}-{pre}" if pre else f"{major}.{minor}.{patch}"
    return Comparator(sign, precedence(Version(text)), sign + text)


def _below(major: int, minor: int, patch: int) -> Comparator:
    """Below this version and its pre-releases: "-0" is the least of them."""
    return _bound("<", major, minor, patch, "0")


def _from(low: Partial) -> Iterator[Comparator]:
    if low.major is not None:
        yield _bound(">=", low.major, low.minor or 0, low.patch or 0, low.pre)


def _behind(part: Partial) -> Comparator:
    """Below the first version that is not of a partial one: 1 ends at 2.0.0, 1.2 at 1.3.0."""
    assert part.major is not None
    if part.minor is None:
        return _below(part.major + 1, 0, 0)
    return _below(part.major, part.minor + 1, 0)


def _up_to(high: Partial) -> Iterator[Comparator]:
    if high.major is None:
        return
    if high.minor is None or high.patch is None:
        yield _behind(high)
    else:
        yield _bound("<=", high.major, high.minor, high.patch, high.pre)


def _tilde(part: Partial) -> Iterator[Comparator]:
    if part.major is not None:
        yield from _from(part)
        yield _behind(part)


def _caret(part: Partial) -> Iterator[Comparator]:
    major, minor, patch, _ = part
    if major is None:
        return
    yield from _from(part)
    if major or minor is None:
        yield _below(major + 1, 0, 0)
    elif minor or patch is None:
        yield _below(0, minor + 1, 0)
    else:
        yield _below(0, 0, patch + 1)


def _primitive(sign: str, part: Partial) -> Iterator[Comparator]:
    major, minor, patch, pre = part
    if major is None:
        if sign in "<>":
            yield _below(0, 0, 0)  # nothing is below or above everything
    elif minor is not None and patch is not None:
        yield _bound(sign, major, minor, patch, pre)
    elif sign == "=":
        yield from _tilde(part)
    elif sign == "<=":
        yield _behind(part)
    elif sign == "<":
        yield _below(major, minor or 0, 0)
    elif sign == ">=":
        yield from _from(part)
    elif minor is None:
        yield _bound(">=", major + 1, 0, 0)
    else:
        yield _bound(">=", major, minor + 1, 0)
