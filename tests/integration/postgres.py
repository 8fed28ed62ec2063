"""A PostgreSQL server of the test's own, from Debian's package `postgresql`, on a socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from interop.conformance.programs import lacking

INSTALLED = Path("/usr/lib/postgresql")
USER = "postgres"
START_S = 20.0
OPTIONS = (
    "-c",
    "listen_addresses=",
    "-c",
    "fsync=off",
    "-c",
    "max_prepared_transactions=4",
    "-c",
    "max_connections=40",
)


class Postgres:
    """A server and one database, which anybody on its socket may use."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://{USER}@/postgres?host={folder}"

    def run(self, program: str, *arguments: str | Path) -> None:
        """One of its tools, as the user that may."""
        done = subprocess.run(
            [self._binaries / program, *arguments], capture_output=True, text=True, **_as_other_than_root()
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Return when it answers. RuntimeError with its log when it does not."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", "-k", self._folder, *OPTIONS],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, **_as_other_than_root(),
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError((self._folder / "log").read_text())

    def stop(self, *, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends every session, SIGQUIT does so as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A session."""
        return psycopg.connect(self.url, **options)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server. Skips where the package is not installed; in CI that is a failure."""
    found = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        lacking(f"PostgreSQL (apt-get install postgresql: {INSTALLED}/*/bin)")
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="trunkline-postgres-"))
    server = Postgres(found[-1].parent, folder)
    try:
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam(USER).pw_uid, -1)
        server.run("initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "-N", "-E", "UTF8", "--no-locale")
        server.start()
        yield server
    finally:
        server.stop(how=signal.SIGQUIT)
        shutil.rmtree(folder)


def _as_other_than_root() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": USER, "group": USER, "extra_groups": ()} if os.geteuid() == 0 else {}
