"""What a caller did and met, for the judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from simulation.calling.splits import Sides

from trunkline.core.policy import StatusCode


class Attempted(NamedTuple):
    """A request that was sent."""

    at_ns: int
    backend: int
    before: int
    """Attempts of the same call before this one."""
    again: bool
    """It had been sent there before."""
    was_ejected: bool
    """Outlier detection had ejected that backend."""
    was_out: bool
    """It was known to be out of reach."""
    part: int
    """How many there were that the call could have gone to: of the backend's side of the split, if that was in use."""
    others_left: int
    """How many of them were neither ejected nor out of reach."""
    untried: int
    """How many of these the call had not been sent to yet."""
    willing: int
    """Counted when the backend was ejected: how many of them had a breaker that surely let a call through."""
    reachable: int
    """How many of them were not out of reach."""
    stage: int
    """Which split held."""
    sides: Sides
    """Those that were in use."""
    key: str
    """What the call sticks to; empty when it has nothing."""
    first_side: int | None
    """The side of the first backend that was chosen for the call; None: that is this one."""
    left_there: int
    """Counted when the backend is of another side: how many of that one were neither ejected nor out of reach, had not been
    sent this call, and had a breaker that surely let a call through."""


class Ejected(NamedTuple):
    """A backend was ejected, or came back."""

    at_ns: int
    backend: int
    out: bool
    hosts: int
    """How many backends there were."""
    gone: bool = False
    """It is not registered any more."""


class Told(NamedTuple):
    """The caller took a new state of the registry in."""

    at_ns: int
    backends: frozenset[int]
    ejected: int
    """How many of them are ejected."""
    unfresh: int
    """How many of those that are new are ejected, or have a breaker that does not let all calls through."""


class Kept(NamedTuple):
    """What the caller keeps room for."""

    at_ns: int
    slots: int
    breakers: int
    """Of endpoints."""
    detected: int
    """Backends that outlier detection knows."""
    backends: int
    leaving: int
    """Backends that are gone, with calls in flight."""
    needed: int
    """The most slots that were in use at one time, so far."""
    in_flight: int
    """Calls, by what bounds them."""


class Refused(NamedTuple):
    """No endpoint was found for an attempt."""

    at_ns: int
    why: str
    candidates: int
    willing: int
    """Candidates, not out of reach and be they ejected, whose breaker surely lets a call through: on the side of the split
    that has fewest."""


@dataclass(slots=True)
class Log:
    """Of one caller."""

    calls: list[int] = field(default_factory=list)
    """When each began."""
    ended: list[tuple[int, StatusCode]] = field(default_factory=list)
    attempts: list[Attempted] = field(default_factory=list)
    results: list[tuple[Attempted, int, StatusCode]] = field(default_factory=list)
    """When and how it ended."""
    ejected: list[Ejected] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
