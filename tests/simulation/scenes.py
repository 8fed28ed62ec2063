"""The kinds of worlds, and how one of a seed is run."""

from __future__ import annotations

from simulation import judge, plane_config
from simulation.faults import Cell, planned
from simulation.handling import judges, plan
from simulation.handling import people as handling
from simulation.handling.endpoint import Endpoint
from simulation.people import people
from simulation.scene import Scene
from simulation.world import Outcome, live

EVERYBODY = Scene(people=people, config=plane_config.config, planned=planned, checks=judge.CHECKS)
"""Registry, watches, drains and the bus's lanes together."""

HANDLING = Scene(
    people=handling.people,
    config=plan.config,
    planned=plan.cells,
    checks=judges.CHECKS,
    look_ahead=plan.look_ahead,
    sender=Endpoint,
    observe=handling.observe,
    under_way=handling.under_way,
    unsettled=handling.unsettled,
)
"""Events whose handling fails: dead letters, and lanes that are stuck."""


def simulate(seed: int, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed in which everybody lives."""
    return live(seed, EVERYBODY, plan)


def simulate_handling(seed: int, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed in which the handling of events fails."""
    return live(seed, HANDLING, plan)
