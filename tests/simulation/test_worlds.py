"""Seeded worlds: whatever goes wrong, the promises are kept.

SIMULATION_SEEDS=N runs N seeds, from SIMULATION_FIRST on, SIMULATION_SEED=K runs one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from simulation.faults import CELLS, CELLS_PER_SEED, planned
from simulation.report import report, seeds
from simulation.scenes import simulate

SEEDS_DEFAULT = 120
MODULE = "tests/simulation/test_worlds.py"


@pytest.mark.parametrize("seed", seeds(SEEDS_DEFAULT))
@pytest.mark.timeout(300)
def test_a_world_keeps_its_promises(seed: int) -> None:
    outcome = simulate(seed)
    assert not outcome.broken, report(outcome, MODULE)
    assert not outcome.unreached, report(outcome, MODULE)


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
