"""What a caller did and met, for the judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

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
    ejected: int
    """How many it had ejected."""
    others_left: int
    """How many were neither ejected nor out of reach."""
    out: int
    """How many were out of reach."""
    willing: int
    """Those who were neither, and whose breaker surely let a call through."""


class Ejected(NamedTuple):
    """A backend was ejected, or came back."""

    at_ns: int
    backend: int
    out: bool


class Refused(NamedTuple):
    """No endpoint was found for an attempt."""

    at_ns: int
    why: str
    candidates: int
    willing: int
    """Candidates, not out of reach and be they ejected, whose breaker surely lets a call through."""


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
    refused: list[Refused] = field(default_factory=list)
