"""A mistake in shipped code."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` stands exactly once in the source of `module`."""

    name: str
    module: str
    old: str
    new: str
    faults: tuple[str, ...] = ()
    """What must go wrong for the mistake to show: seeds that plan one of these come first."""
    pair: bool = False
    """In the worlds of two control planes on one journal."""
    test: str = ""
    """Where worlds can hardly show it: the test that must fail instead, from the repository's root."""
