"""Seeded worlds of callers with policies keep their promises: no retry storm, no empty pick, recovery, right shares, and
nothing for or of hosts that are gone.

SIMULATION_SEEDS=N runs N seeds, from SIMULATION_FIRST on, SIMULATION_SEED=K runs one.
"""

from __future__ import annotations

from collections import Counter

import pytest
from simulation.calling.plan import Kind, plan
from simulation.calling.world import live
from simulation.report import seeds

SEEDS_DEFAULT = 40


@pytest.mark.parametrize("seed", seeds(SEEDS_DEFAULT))
def test_a_world_of_callers_keeps_its_promises(seed: int) -> None:
    outcome = live(seed)
    told = "\n".join([f"SIMULATION_SEED={seed} .venv/bin/pytest {__file__}", *outcome.broken[:20]])
    assert not outcome.broken, told


def test_a_seed_repeats_exactly() -> None:
    assert live(3).digest == live(3).digest


def test_the_seeds_see_every_trouble() -> None:
    plans = [plan(seed) for seed in range(SEEDS_DEFAULT)]
    kinds = Counter(trouble.kind for one in plans for trouble in one.troubles)
    assert set(kinds) == set(Kind)
    assert sum(one.total_ns is not None for one in plans) > SEEDS_DEFAULT // 3
    assert sum(len(one.hosts) == 1 for one in plans) > 1
    assert sum(len(one.hosts) > one.staying for one in plans) > SEEDS_DEFAULT // 3
    assert sum(len({host.port for host in one.hosts}) < len(one.hosts) for one in plans) > SEEDS_DEFAULT // 5
    assert sum(len(one.stages) == 1 for one in plans) > SEEDS_DEFAULT // 8
    assert sum(len(one.stages) == 2 for one in plans) > SEEDS_DEFAULT // 8
