"""Runs benchmarks, each in a process of its own with a time limit and a temporary folder, and collects their rows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.catalogue import Benchmark
from bench.environment import environment
from bench.row import Row, judged, missed

ROOT = Path(__file__).parents[1]
FOLDER_VARIABLE = "BENCH_FOLDER"
"""Tells a benchmark's process the folder that is removed whatever becomes of it."""


@dataclass(slots=True)
class Run:
    """What came of it."""

    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Why a benchmark gave no rows, by its name."""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Exit status: 1 if a gate is missed or a benchmark failed."""
        return 1 if missed(self.rows) or self.failed else 0


Measure = Callable[[Benchmark, bool, Path], tuple[list[Row], list[str]]]
"""Runs one benchmark, quickly or not, with its files in a folder: its rows, and what it said. Raises BenchmarkFailed."""


class BenchmarkFailed(Exception):
    """A benchmark ended without rows."""


def run(
    benchmarks: Sequence[Benchmark],
    *,
    quick: bool,
    tell: Callable[[Benchmark, list[Row]], None],
    measure: Measure | None = None,
) -> Run:
    """Run them one after the other; `tell` is called with the rows of each."""
    done = Run()
    with scratch_folder() as folder:
        done.environment = {
            "machine": environment(folder),
            "quick": quick,
            "benchmarks": {benchmark.name: benchmark.conditions() for benchmark in benchmarks},
        }
        for benchmark in benchmarks:
            try:
                rows, said = (measure or measure_apart)(benchmark, quick, folder)
                done.environment["benchmarks"][benchmark.name]["said"] = said
            except BenchmarkFailed as error:
                done.failed[benchmark.name] = str(error)
                rows = []
            done.rows.extend(rows)
            tell(benchmark, rows)
    return done


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder under build/, which unlike /tmp is on a disk, or in the folder of this run; removed at the end."""
    inside = os.environ.get(FOLDER_VARIABLE)
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=inside or ROOT / "build"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_apart(benchmark: Benchmark, quick: bool, folder: Path) -> tuple[list[Row], list[str]]:
    """Run one in a process group of its own, which is ended as a whole, whatever happens."""
    command = [sys.executable, "-m", "bench", "measure", benchmark.name, *(["--quick"] if quick else [])]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), FOLDER_VARIABLE: str(folder)},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=benchmark.limit_s)
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"took longer than {benchmark.limit_s} s and was ended") from None
        finally:
            _end_group(process)
    if process.returncode:
        raise BenchmarkFailed(f"ended with {process.returncode}")
    measured = json.loads(output)
    return [judged(row) for row in measured["rows"]], measured["said"]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The group's id is the id of the process that leads it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def save(done: Run, path: Path) -> Path:
    """Write the rows to `path`, and beside them the machine and the conditions: x.json and x.env.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(done.rows, indent=1) + "\n")
    beside = environment_path(path)
    beside.write_text(json.dumps({**done.environment, "failed": done.failed}, indent=1) + "\n")
    return beside


def environment_path(path: Path) -> Path:
    """Where the conditions of the rows in `path` stand."""
    return path.with_suffix(".env.json")
