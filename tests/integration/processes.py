"""Real processes of the command line, ended with the test that started them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRUNKLINE = Path(sys.executable).parent / "trunkline"
READY = re.compile(r"is ready: gRPC on (\S+)")
HTTP = re.compile(r"HTTP on (\S+:\d+):")


class Server:
    """`trunkline serve` on a free port of loopback."""

    def __init__(self, folder: Path, *options: str, listen: str = "127.0.0.1:0") -> None:
        self.folder = folder
        self.options = options
        self.listen = listen
        self.address = ""
        self.output = folder / "serve.log"
        self._begun = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, within_s: float = 30) -> None:
        """Start, and return when it says that it is ready. RuntimeError with its output when it does not."""
        begun = self._begun = self.output.stat().st_size if self.output.exists() else 0
        command = [str(TRUNKLINE), "serve", "--data", str(self.folder / "data"), "--listen", self.listen]
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--http-listen", "", *self.options], stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            said = self.output.read_bytes()[begun:].decode()
            if found := READY.search(said):
                self.address = self.listen = found[1].rstrip(",")
                return
            if self.process.poll() is not None:
                raise RuntimeError(f"serve ended with {self.process.returncode}:\n{said}")
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"not ready within {within_s} s:\n{said}")

    def http_address(self, *, within_s: float = 5) -> str:
        """Of the HTTP listener, which an option of the server must have asked for; it is told a line behind being ready."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if found := HTTP.search(self.output.read_bytes()[self._begun :].decode()):
                return found[1]
            time.sleep(0.01)
        raise RuntimeError("no HTTP listener was told of")

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, *, within_s: float = 20) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(within_s)
        self.process = None
        return code


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """A running server, killed at the end if it still runs."""
    server = Server(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def trunkline(
    *arguments: str, address: str = "", input: str | None = None, timeout_s: float = 30, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    own = {"TRUNKLINE_ADDRESS": address} if address else {}
    return subprocess.run(
        [str(TRUNKLINE), *arguments], capture_output=True, text=True, input=input, timeout=timeout_s,
        env={**os.environ, **own, **environment},
    )  # fmt: skip
