"""Two control planes on one journal, whose transport delays, loses answers and repeats appends: seeded worlds.

SIMULATION_SEEDS=N (`make simulate`) runs N seeds, from SIMULATION_FIRST on, SIMULATION_SEED=K runs one.
"""

from __future__ import annotations

import pytest
from simulation.pair import simulate_pair
from simulation.report import seeds

SEEDS_DEFAULT = 60


@pytest.mark.parametrize("seed", seeds(SEEDS_DEFAULT))
@pytest.mark.timeout(120)
def test_two_control_planes_agree(seed: int) -> None:
    broken = simulate_pair(seed)
    again = f"SIMULATION_SEED={seed} .venv/bin/pytest tests/simulation/test_two_planes.py"
    assert not broken, "\n".join([f"seed {seed} broke {len(broken)} promises; to repeat: {again}", *broken[:20]])
