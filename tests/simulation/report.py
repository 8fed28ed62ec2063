"""Which seeds a test runs, and what it says of one that broke a promise."""

from __future__ import annotations

import os

from simulation.world import Outcome

TRACE_LINES = 60


def seeds(default: int) -> list[int]:
    """The first so many; SIMULATION_SEEDS says how many instead, SIMULATION_FIRST from which on, SIMULATION_SEED just one."""
    if one := os.environ.get("SIMULATION_SEED"):
        return [int(one)]
    first = int(os.environ.get("SIMULATION_FIRST", "0"))
    return list(range(first, first + int(os.environ.get("SIMULATION_SEEDS", default))))


def report(outcome: Outcome, module: str) -> str:
    """What a world has broken, and how to see it again."""
    return "\n".join(
        [
            f"seed {outcome.seed} broke {len(outcome.broken)} promises; to repeat:",
            f"  SIMULATION_SEED={outcome.seed} .venv/bin/pytest {module} -k keeps_its_promises",
            *(f"  {what}" for what in outcome.broken[:20]),
            *(f"  never came about: {fault} during {operation}" for fault, operation in outcome.unreached),
            f"the last {TRACE_LINES} things that happened:",
            *outcome.lines[-TRACE_LINES:],
        ]
    )
