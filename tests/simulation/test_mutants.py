"""The mutants still fit the code that they change; `make mutants` hunts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation.mutants.__main__ import changed, path_of
from simulation.mutants.catalogue import MUTANTS
from simulation.mutants.mutant import Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_compiles(mutant: Mutant) -> None:
    compile(changed(mutant, Path(path_of(mutant)).read_text()), mutant.module, "exec")


def test_there_are_enough() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
