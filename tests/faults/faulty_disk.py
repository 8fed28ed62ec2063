"""A server whose writes or syncs fail when the test says so, without root: a preloaded library between Python and libc."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from integration.processes import Server


@cache
def library() -> Path:
    """faulty.c, compiled."""
    folder = mkdtemp(prefix="faulty-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = Path(folder) / "faulty.so"
    source = Path(__file__).with_name("faulty.c")
    subprocess.run(["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"], check=True)
    return built


class FaultyDisk:
    """What the disk below a server does: `fail("sync", errno.EIO)`, `mend()`."""

    def __init__(self, folder: Path) -> None:
        self._word = folder / "faults"
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAULTY_FOLDER": str(folder / "data"),
            "FAULTY_WORD": str(self._word),
        }

    def fail(self, call: str, number: int) -> None:
        """From now on, each `call` ("write", "sync") on the journal fails with this errno."""
        assert call in ("write", "sync")
        assert number in errno.errorcode
        self._say(f"{call} {number}\n")

    def mend(self) -> None:
        """From now on all goes well."""
        self._say("")

    def _say(self, text: str) -> None:
        fresh = self._word.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self._word)


@contextmanager
def serving_on_faulty_disk(folder: Path) -> Iterator[tuple[Server, FaultyDisk]]:
    """A running server and its disk."""
    disk = FaultyDisk(folder)
    server = Server(folder)
    known = dict(os.environ)
    os.environ.update(disk.environment)
    try:
        server.start()
    finally:
        os.environ.clear()
        os.environ.update(known)
    try:
        yield server, disk
    finally:
        server.kill()
