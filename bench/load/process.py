"""Processes that a benchmark starts: pinned to a core, waited for, ended by their own id."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bench.say import say_command

READ_EVERY_S = 0.002
ROOT = Path(__file__).parents[2]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
LOAD_CORE = CORES[-1]
P = TypeVar("P", bound="Process")


class Process:
    """A running program, what it wrote, and what it has used."""

    def __init__(self, words: Sequence[str], output: Path, *, core: int | None = None, **environment: str) -> None:
        """`core` None lets it run anywhere."""
        self.output = output
        self.started = time.monotonic()
        say_command(words, folder=str(output.parent))
        with output.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=output.parent,
                env={**_environment(), **environment},
                # Between fork and exec only this system call is made.
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )

    def wait_for(self, said: re.Pattern[str], *, within_s: float = 30) -> re.Match[str]:
        """Return when its output has this. RuntimeError with the output when it ends or takes too long."""
        deadline = time.monotonic() + within_s
        while True:
            text = self.output.read_text(errors="replace")
            if found := said.search(text):
                return found
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args!r} did not say {said.pattern!r}:\n{text[-2000:]}")
            time.sleep(READ_EVERY_S)

    def cpu_s(self) -> float:
        """CPU seconds it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM, *, within_s: float = 20) -> None:
        """Signal it and wait; SIGKILL if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def _environment() -> dict[str, str]:
    """This process's, without settings of servers, clients and Python: what is measured has its defaults, and keeps its
    bytecode, as what is installed does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUNKLINE_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


@contextmanager
def running(process: P) -> Iterator[P]:
    """Killed at the end."""
    try:
        yield process
    finally:
        process.kill()


def free_port() -> int:
    """A port of loopback that was free a moment ago, for programs that cannot choose one and say which."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
