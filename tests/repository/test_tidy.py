"""Style that a machine can check: sizes, names, words, and what lies beside what."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("core", "server", "client", "protos/trunkline/api")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
PYX_FORBIDDEN = re.compile(
    r"^\s*(?:from|import|cimport)\s+(asyncio|grpc|google|socket|threading|time|random|os)\b", re.M
)
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")


class Function(NamedTuple):
    path: str
    name: str
    lines: int

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


@cache
def tracked() -> tuple[str, ...]:
    """Files that git tracks, or, outside a checkout, every file there is."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the tidy test reads the list of tracked files, and this is no git checkout")
    return tuple(name for name in listed if (ROOT / name).is_file())


def shipped(*suffixes: str) -> list[str]:
    return [
        name
        for name in tracked()
        if name.startswith(tuple(f"{part}/" for part in SHIPPED))
        and name.endswith(suffixes)
        and not GENERATED.search(name)
    ]


def functions() -> Iterator[Function]:
    for name in shipped(".py"):
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(name, node.name, (node.end_lineno or node.lineno) - node.lineno + 1)


def test_files_hold_one_noun() -> None:
    """Longer files usually hold a second noun."""
    long = {
        n: lines for n in shipped(".py", ".pyx") if (lines := len((ROOT / n).read_text().splitlines())) > FILE_LINES_MAX
    }
    assert not long, f"over {FILE_LINES_MAX} lines: {long}"


def test_functions_fit_a_screen() -> None:
    long = [f"{function} has {function.lines} lines" for function in functions() if function.lines > FUNCTION_LINES_MAX]
    assert not long, long


def test_nothing_is_left_for_later() -> None:
    word = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError")
    left = [
        f"{name}:{number}"
        for name in shipped(".py", ".pyx", ".pyi", ".proto")
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if word.search(line)
    ]
    assert not left, left


def test_compiled_core_decides_without_io() -> None:
    """import-linter reads no .pyx, so this does."""
    found = {
        n: m.group(0).strip() for n in shipped(".pyx", ".pxd") if (m := PYX_FORBIDDEN.search((ROOT / n).read_text()))
    }
    assert not found, found


def test_each_compiled_module_is_typed_and_has_an_oracle_or_is_one_line_of_sight() -> None:
    """A .pyi beside each .pyx, and a property test that names its module."""
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in shipped(".pyx"):
        assert (ROOT / name).with_suffix(".pyi").exists(), f"{name} has no .pyi"
        assert f"core.{Path(name).stem}" in tests, f"no test imports {name}"


def test_only_the_edge_reads_real_clocks_and_chance() -> None:
    """Everything else takes them as arguments, so that it runs in the simulator."""
    allowed = {"server/app.py", "client/_connect.py", "core/clock.pyx"}
    real = re.compile(
        r"\btime\.(time|monotonic|time_ns|monotonic_ns)\(|\bSystemClock\(|\brandom\.(random|choice|shuffle|Random)\("
    )
    found = [
        f"{name}:{number}"
        for name in shipped(".py", ".pyx")
        if name not in allowed and not name.startswith("client/cli/")
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if real.search(line)
    ]
    assert not found, found


def test_every_folder_is_named_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {str(Path(name).parent) for name in shipped(".py", ".pyx") if not name.startswith("protos/")}
    unnamed = sorted(folder for folder in folders if f"{folder}/" not in text)
    assert not unnamed, f"ARCHITECTURE.md does not name {unnamed}"


def test_the_repository_speaks_of_the_project_alone() -> None:
    """No machine's paths, no registry hosts."""
    foreign = re.compile(r"(?<![\w.])/(work|root|farm)/\w|registry\.npmjs\.org|files\.pythonhosted\.org|/tmp/bash_jobs")
    found = []
    for name in tracked():
        if name == "tests/repository/test_tidy.py":
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{number}" for number, line in enumerate(text.splitlines(), 1) if foreign.search(line)]
    assert not found, found


def test_nothing_built_is_tracked() -> None:
    built = [name for name in tracked() if name.endswith((".so", ".o", ".a", ".c", ".whl", ".pyc", ".sqlite3", ".log"))]
    assert not built, built
