"""The kinds of worlds, and how one of a seed is run."""

from __future__ import annotations

from simulation import judge, plane_config
from simulation.faults import Cell, planned
from simulation.handling import judges, plan
from simulation.handling import people as handling
from simulation.handling.endpoint import Endpoint
from simulation.people import people
from simulation.policies import judges as policy_judges
from simulation.policies import people as ruled
from simulation.policies import plan as policy_plan
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

POLICIES = Scene(
    people=ruled.people,
    config=policy_plan.config,
    planned=policy_plan.cells,
    checks=policy_judges.CHECKS,
    observe=ruled.observe,
    unsettled=ruled.unsettled,
)
"""How services are called is changed, by several at once."""


def simulate(seed: int, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed in which everybody lives."""
    return live(seed, EVERYBODY, plan)


def simulate_handling(seed: int, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed in which the handling of events fails."""
    return live(seed, HANDLING, plan)


def simulate_policies(seed: int, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed in which policies are changed."""
    return live(seed, POLICIES, plan)
