"""Each mutant must be caught: `make mutants`, or, in tests/, `python -m simulation.mutants [NAME...]`.

Exit status 1 if one survives. A mutant runs in a process of its own, in which one module is compiled from changed source;
the seeds are tried from 0 on until one breaks a promise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import pytest
from simulation.mutants.catalogue import MUTANTS, Mutant

SEEDS_MAX = 500
LIMIT_S = 1_200.0
MUTANT_LIMIT_S = 180.0
"""For one of them: a world that a mutant makes go round for ever must not keep the others from their turn."""
TESTS = Path(__file__).parents[2]


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the changed source."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        return compile(changed(self._mutant, source), self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant's module; leaves all others to the rest."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        self._mutant = mutant
        self._path = path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        loader = _Loader(self._mutant, self._path)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def changed(mutant: Mutant, source: str) -> str:
    """The module's source with the mistake in it. ValueError when the place is not there, or there are several."""
    count = source.count(mutant.old)
    if count != 1 or mutant.old == mutant.new:
        raise ValueError(f"{mutant.name}: the text to replace stands {count} times in {mutant.module}")
    return source.replace(mutant.old, mutant.new)


def path_of(mutant: Mutant) -> str:
    """Where the shipped module lies."""
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


def hunt(mutant: Mutant, seeds: int) -> int:
    """In a process of its own: print what was broken by which seed. 0 when caught."""
    path = path_of(mutant)
    for name in [name for name in sys.modules if name.startswith("trunkline.")]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Finder(mutant, path))
    if mutant.test:
        return _fails(mutant)
    live = _live_pair() if mutant.pair else _live_world()
    assert mutant.module in sys.modules, f"{mutant.module} is not used in a world"
    for seed in range(seeds):
        try:
            broken = live(seed)
        except Exception as error:
            broken = [f"the world ended: {error!r}"]
        if broken:
            sys.stdout.write(f"seed {seed}: {broken[0][:150]}\n")
            return 0
    sys.stdout.write(f"survived {seeds} seeds\n")
    return 1


def _live_world() -> Callable[[int], list[str]]:
    simulate = importlib.import_module("simulation.world").simulate
    return lambda seed: list(simulate(seed).broken)


def _live_pair() -> Callable[[int], list[str]]:
    return importlib.import_module("simulation.pair").simulate_pair  # type: ignore[no-any-return]


def _fails(mutant: Mutant) -> int:
    """Run the test that must see it."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = pytest.main(
            ["-q", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent), str(TESTS.parent / mutant.test)]
        )
    if status != pytest.ExitCode.TESTS_FAILED:
        sys.stdout.write(f"{mutant.test} does not see it: {status!r}\n")
        return 1
    sys.stdout.write(f"{mutant.test.rpartition('::')[2]}\n")
    return 0


async def _run(mutant: Mutant, turn: asyncio.Semaphore, end_s: float, seeds: int) -> bool:
    async with turn:
        began_s = time.monotonic()
        command = [sys.executable, "-m", "simulation.mutants", "--hunt", mutant.name, "--seeds", str(seeds)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=TESTS
        )
        try:
            async with asyncio.timeout(min(end_s - began_s, MUTANT_LIMIT_S)):
                told, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            told, errors = b"out of time", b""
        said = told.decode().strip() or errors.decode().strip().splitlines()[-1:]
        caught = process.returncode == 0
        took_s = time.monotonic() - began_s
        sys.stdout.write(f"{'caught' if caught else 'SURVIVED':8} {took_s:5.0f} s  {mutant.name}\n{'':18}{said}\n")
        sys.stdout.flush()
        return caught


async def main(names: Sequence[str], jobs: int, seeds: int) -> int:
    """Run them all, or those that are named."""
    mutants = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    turn, end_s = asyncio.Semaphore(jobs), time.monotonic() + LIMIT_S
    caught = await asyncio.gather(*(_run(mutant, turn, end_s, seeds) for mutant in mutants))
    sys.stdout.write(f"{sum(caught)} of {len(caught)} mutants caught\n")
    return 0 if all(caught) and caught else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="so many are tried at most")
    parser.add_argument("--hunt", metavar="NAME", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hunt:
        sys.exit(hunt(next(mutant for mutant in MUTANTS if mutant.name == given.hunt), given.seeds))
    sys.exit(asyncio.run(main(given.names, given.jobs, given.seeds)))
