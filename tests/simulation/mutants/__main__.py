"""Each mutant must be caught: `make mutants`, or, in tests/, `python -m simulation.mutants [NAME...]`.

Exit status 1 if one survives. A mutant runs in a process of its own, in which one module is compiled from changed source;
the first 500 seeds are tried until one breaks a promise, those first in which there is what the mistake needs to show.
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
from simulation.mutants.catalogue import MUTANTS
from simulation.mutants.mutant import CALLING, EVERYBODY, HANDLING, PAIR, POLICIES, Mutant

SEEDS_MAX = 500
LIMIT_S = 600.0
"""Of one mutant."""
WORLD_LIMIT_S = 60.0
"""Of real time, where a sound world takes two seconds: one that a mutant makes go round for ever is no sound world."""
BEGUN = "world"
"""Begins the line that tells of the next seed."""
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
    live = WORLDS[mutant.world]()
    assert mutant.module in sys.modules, f"{mutant.module} is not used in a world"
    for seed in order(mutant, seeds):
        say(f"{BEGUN} {seed}")
        try:
            broken = live(seed)
        except Exception as error:
            broken = [f"the world ended: {error!r}"]
        if broken:
            say(f"seed {seed}: {broken[0].splitlines()[0][:150]}")
            return 0
    say(f"survived {seeds} seeds")
    return 1


def order(mutant: Mutant, seeds: int) -> list[int]:
    """The seeds, those first that plan what the mistake needs to show. After the mutant is in place: it imports."""
    if mutant.world == CALLING:
        return list(range(seeds))
    scenes = importlib.import_module("simulation.scenes")
    scene = {HANDLING: scenes.HANDLING, POLICIES: scenes.POLICIES}.get(mutant.world, scenes.EVERYBODY)
    planned = scene.planned
    return sorted(range(seeds), key=lambda seed: not any(fault in mutant.faults for fault, _ in planned(seed)))


def say(line: str) -> None:
    """To the process that runs all mutants."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _everybody() -> Callable[[int], list[str]]:
    simulate = importlib.import_module("simulation.scenes").simulate
    return lambda seed: list(simulate(seed).broken)


def _handling() -> Callable[[int], list[str]]:
    simulate = importlib.import_module("simulation.scenes").simulate_handling
    return lambda seed: list(simulate(seed).broken)


def _policies() -> Callable[[int], list[str]]:
    simulate = importlib.import_module("simulation.scenes").simulate_policies
    return lambda seed: list(simulate(seed).broken)


def _pair() -> Callable[[int], list[str]]:
    return importlib.import_module("simulation.pair").simulate_pair  # type: ignore[no-any-return]


def _calling() -> Callable[[int], list[str]]:
    live = importlib.import_module("simulation.calling.world").live
    return lambda seed: list(live(seed).broken)


WORLDS = {EVERYBODY: _everybody, HANDLING: _handling, PAIR: _pair, CALLING: _calling, POLICIES: _policies}


def _fails(mutant: Mutant) -> int:
    """Run the test that must see it."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = pytest.main(
            ["-q", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent), str(TESTS.parent / mutant.test)]
        )
    if status != pytest.ExitCode.TESTS_FAILED:
        say(f"{mutant.test} does not see it: {status!r}")
        return 1
    say(mutant.test.rpartition("::")[2])
    return 0


async def _run(mutant: Mutant, turn: asyncio.Semaphore, seeds: int) -> bool:
    async with turn:
        began_s = time.monotonic()
        command = [sys.executable, "-m", "simulation.mutants", "--hunt", mutant.name, "--seeds", str(seeds)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=TESTS
        )
        try:
            caught, said = await _listen(process, began_s + LIMIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        took_s = time.monotonic() - began_s
        say(f"{'caught' if caught else 'SURVIVED':8} {took_s:5.0f} s  {mutant.name}\n{'':18}{said}")
        return caught


async def _listen(process: asyncio.subprocess.Process, end_s: float) -> tuple[bool, str]:
    """Whether the mutant is caught, and by what."""
    assert process.stdout is not None
    begun = said = ""
    worlds = 0
    while True:
        limit_s = min(WORLD_LIMIT_S, end_s - time.monotonic())
        try:
            async with asyncio.timeout(limit_s):
                line = (await process.stdout.readline()).decode().strip()
        except TimeoutError:
            if begun and limit_s == WORLD_LIMIT_S:
                return True, f"seed {begun}: the world does not come to an end"
            return False, f"out of time after {worlds} worlds"
        if not line:
            return await process.wait() == 0, said or "its process failed"
        if line.startswith(BEGUN):
            begun, worlds = line.removeprefix(BEGUN).strip(), worlds + 1
        else:
            said = line


async def main(names: Sequence[str], jobs: int, seeds: int) -> int:
    """Run them all, or those that are named."""
    mutants = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    turn = asyncio.Semaphore(jobs)
    caught = await asyncio.gather(*(_run(mutant, turn, seeds) for mutant in mutants))
    say(f"{sum(caught)} of {len(caught)} mutants caught")
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
