"""Seeded worlds: whatever goes wrong, the promises are kept.

SIMULATION_SEEDS=N runs N seeds from 0 on, SIMULATION_SEED=K runs one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from simulation.faults import CELLS, CELLS_PER_SEED, planned
from simulation.scenes import simulate
from simulation.world import Outcome

SEEDS_DEFAULT = 200
TRACE_LINES = 60


def seeds(default: int = SEEDS_DEFAULT) -> list[int]:
    one = os.environ.get("SIMULATION_SEED")
    return [int(one)] if one else list(range(int(os.environ.get("SIMULATION_SEEDS", default))))


def report(outcome: Outcome, module: str = "tests/simulation/test_worlds.py") -> str:
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


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.timeout(300)
def test_a_world_keeps_its_promises(seed: int) -> None:
    outcome = simulate(seed)
    assert not outcome.broken, report(outcome)
    assert not outcome.unreached, report(outcome)


def test_the_seeds_reach_every_cell() -> None:
    """Each seed must reach what it plans (see above): together they reach every fault during every operation."""
    cells = Counter(cell for seed in range(SEEDS_DEFAULT) for cell in planned(seed))
    assert not [cell for cell in CELLS if not cells[cell]]
    assert sum(cells.values()) == SEEDS_DEFAULT * CELLS_PER_SEED


@pytest.mark.timeout(300)
def test_a_seed_repeats_exactly() -> None:
    """In this process, and in another one with other hashes and addresses."""
    here = simulate(7).digest
    assert simulate(7).digest == here
    program = "from simulation.scenes import simulate; print(simulate(7).digest)"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(["tests", "."])}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert told.stdout.strip() == here
