"""Seeded worlds in which policies are changed by several at once: what is acknowledged is kept, and told as it holds.

SIMULATION_SEEDS=N runs N seeds from 0 on, SIMULATION_SEED=K runs one.
"""

from __future__ import annotations

from collections import Counter

import pytest
from simulation.faults import CELLS_PER_SEED
from simulation.policies.plan import CELLS, cells
from simulation.report import report, seeds
from simulation.scenes import simulate_policies

SEEDS_DEFAULT = 30
MODULE = "tests/simulation/test_policy_worlds.py"


@pytest.mark.parametrize("seed", seeds(SEEDS_DEFAULT))
@pytest.mark.timeout(300)
def test_a_world_of_policies_keeps_its_promises(seed: int) -> None:
    outcome = simulate_policies(seed)
    told = report(outcome, MODULE)
    assert not outcome.broken, told
    assert not outcome.unreached, told


def test_the_seeds_reach_every_cell_of_policies() -> None:
    """Together they see every fault during every operation."""
    planned = Counter(cell for seed in range(SEEDS_DEFAULT) for cell in cells(seed))
    assert not [cell for cell in CELLS if not planned[cell]]
    assert sum(planned.values()) == SEEDS_DEFAULT * CELLS_PER_SEED


@pytest.mark.timeout(300)
def test_a_seed_of_policies_repeats_exactly() -> None:
    assert simulate_policies(3).digest == simulate_policies(3).digest
