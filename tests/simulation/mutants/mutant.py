"""What a mutant is, and the shipped packages by name."""

from __future__ import annotations

from typing import NamedTuple

EVERYBODY = "everybody"
PAIR = "pair"
"""Two control planes on one journal."""
HANDLING = "handling"
"""The handling of events fails."""
CALLING = "calling"
"""Callers with policies, and backends in trouble."""
POLICIES = "policies"
"""Policies are changed."""


class Mutant(NamedTuple):
    """`old` stands exactly once in the source of `module`."""

    name: str
    module: str
    old: str
    new: str
    faults: tuple[str, ...] = ()
    """What must go wrong for the mistake to show: seeds that plan one of these come first."""
    world: str = EVERYBODY
    """The kind of worlds that must show it."""
    test: str = ""
    """Where worlds can hardly show it: the test that must fail instead, from the repository's root."""


JOURNAL = "trunkline.server.journal"
REGISTRY = "trunkline.server.registry"
DISCOVERY = "trunkline.server.discovery"
EVENTS = "trunkline.server.events"
SCHEDULES = "trunkline.server.schedules"
TRAFFIC = "trunkline.server.traffic"
CLIENT = "trunkline.client"
CORE = "trunkline.core"
