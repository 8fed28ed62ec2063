"""The kinds of worlds, and how one of a seed is run."""

from __future__ import annotations

from simulation import judge, plane_config
from simulation.faults import Cell, planned
from simulation.people import people
from simulation.scene import Scene
from simulation.world import Outcome, live

EVERYBODY = Scene(people=people, config=plane_config.config, planned=planned, checks=judge.CHECKS)
"""Registry, watches, drains and the bus's lanes together."""


def simulate(seed: int, plan: list[Cell] | None = None) -> Outcome:
    """Run the world of a seed in which everybody lives."""
    return live(seed, EVERYBODY, plan)
