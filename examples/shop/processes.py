"""The shop's processes: started, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Processes:
    """Children by name. Each has a session of its own and ends with this process at the latest."""

    def __init__(self, folder: Path, control: str) -> None:
        self.folder = folder
        self.control = control
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_control(self) -> None:
        """`trunkline serve` on the address that was chosen, with its journal in the folder."""
        trunkline = Path(sys.executable).parent / "trunkline"
        data = self.folder / "data"
        self._start(
            "control", str(trunkline), "serve", "--listen", self.control, "--http-listen", "", "--data", str(data)
        )

    def start(self, program: str, name: str, *options: str) -> None:
        """`python -m examples.shop.PROGRAM --id NAME ...`."""
        self._start(
            name, sys.executable, "-m", f"examples.shop.{program}", "--control", self.control, "--id", name, *options
        )

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "SHOP_DIARIES": str(self.folder)},
            )

    def kill(self, name: str) -> None:
        """SIGKILL: the process has no say."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    @contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """SIGSTOP while looking at what they are in the middle of; SIGCONT afterwards to those that were not killed."""
        for name in names:
            self._running[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                if name in self._running:
                    self._running[name].send_signal(signal.SIGCONT)

    def ask_to_stop(self, name: str) -> None:
        """SIGTERM: the process drains and leaves."""
        self._running[name].send_signal(signal.SIGTERM)

    def ended(self) -> dict[str, int]:
        """Those that are not running any more, with their exit codes."""
        return {name: code for name, process in self._running.items() if (code := process.poll()) is not None}

    def stop_all(self, within_s: float = 15.0) -> None:
        """SIGTERM to all but the control plane, then to it; SIGKILL to what does not listen."""
        for names in ([name for name in self._running if name != "control"], ["control"]):
            for name in names:
                if name in self._running:
                    self._running[name].terminate()
            for name in names:
                process = self._running.pop(name, None)
                if process is None:
                    continue
                try:
                    process.wait(within_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
