"""Compilers and package managers of other languages: whether they are there, and what they build, once for every worker."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BUILT = ROOT / "build" / "conformance"
GO_TOOLS = Path(__file__).parent / "go"
NODE_CLIENT = Path(__file__).parent / "node"


def lacking(what: str) -> None:
    """Skip for want of this; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"{what} not installed")


def need(*tools: str) -> None:
    """Skip without these tools; in CI that is a failure."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        lacking(", ".join(missing))


def run(*command: str | Path, cwd: Path, timeout_s: float, **environment: str) -> str:
    """Its standard output; fails the test with all of it when it fails."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    """The folder of what is built under this name, while no other worker builds there."""
    folder = BUILT / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@cache
def go_tool(package: str) -> Path:
    """A program of the module in go/, which pins it. Go's own cache makes a second build short."""
    need("go")
    with _alone("go") as folder:
        program = folder / package.rpartition("/")[2]
        run("go", "build", "-o", program, package, cwd=GO_TOOLS, timeout_s=300)
    return program


@cache
def node_program(name: str) -> Path:
    """A program of node/, beside the packages that its lock file pins."""
    need("node", "npm")
    with _alone("node") as folder:
        for path in NODE_CLIENT.iterdir():
            here = folder / path.name
            if path.is_file() and not (here.exists() and here.read_bytes() == path.read_bytes()):
                shutil.copy(path, here)
        lock, installed = folder / "package-lock.json", folder / "installed.json"
        if not installed.exists() or installed.read_bytes() != lock.read_bytes():
            run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder, timeout_s=120)
            shutil.copy(lock, installed)
    return folder / name
