"""Seeded worlds in which the handling of events fails: dead letters, attempts and lanes keep their promises.

SIMULATION_SEEDS=N runs N seeds, from SIMULATION_FIRST on, SIMULATION_SEED=K runs one.
"""

from __future__ import annotations

from collections import Counter

import pytest
from simulation.faults import CELLS_PER_SEED
from simulation.handling.plan import CELLS, cells
from simulation.report import report, seeds
from simulation.scenes import simulate_handling

SEEDS_DEFAULT = 48
MODULE = "tests/simulation/test_handling_worlds.py"


@pytest.mark.parametrize("seed", seeds(SEEDS_DEFAULT))
@pytest.mark.timeout(300)
def test_a_world_in_which_handling_fails_keeps_its_promises(seed: int) -> None:
    outcome = simulate_handling(seed)
    told = report(outcome, MODULE)
    assert not outcome.broken, told
    assert not outcome.unreached, told


def test_the_seeds_reach_every_cell_of_handling() -> None:
    """Together they see every fault during every operation; lanes are parked in each, or a seed could not reach its end."""
    planned = Counter(cell for seed in range(SEEDS_DEFAULT) for cell in cells(seed))
    assert not [cell for cell in CELLS if not planned[cell]]
    assert sum(planned.values()) == SEEDS_DEFAULT * CELLS_PER_SEED


@pytest.mark.timeout(300)
def test_a_seed_of_handling_repeats_exactly() -> None:
    assert simulate_handling(3).digest == simulate_handling(3).digest
