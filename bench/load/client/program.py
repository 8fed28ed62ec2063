"""Runs the program on the load's core."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load.client.build import program
from bench.load.process import LOAD_CORE

LENGTH_BYTES = 4


def command(mode: str, address: str, words: Sequence[str]) -> list[str]:
    """A command line."""
    return [str(program()), mode, *address.rsplit(":", 1), *words]


def options(**given: object) -> list[str]:
    """Words: a name and a value each. True is a name alone; None and False are nothing."""
    words: list[str] = []
    for name, value in given.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def run(mode: str, address: str, words: Sequence[str], *, timeout_s: float = 600) -> dict[str, Any]:
    """Run it to its end: what it found. RuntimeError with what it says when it gives up."""
    done = subprocess.run(
        command(mode, address, words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        preexec_fn=pin,
    )
    if done.returncode:
        raise RuntimeError(f"the load client gave up: {done.stderr.strip() or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pin() -> None:
    """Between fork and exec only this system call is made."""
    os.sched_setaffinity(0, {LOAD_CORE})


def message(body: bytes) -> bytes:
    """A gRPC message: not compressed, its length, itself."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


def messages(framed: bytes) -> list[bytes]:
    """The bodies of whole messages, one behind the other."""
    found, at = [], 0
    while at < len(framed):
        end = at + 5 + int.from_bytes(framed[at + 1 : at + 5], "big")
        found.append(framed[at + 5 : end])
        at = end
    return found


def records(contents: Sequence[bytes]) -> bytes:
    """What several connections say, in one file."""
    return b"".join(len(content).to_bytes(LENGTH_BYTES, "big") + content for content in contents)


def contents(of_records: bytes) -> list[bytes]:
    """What `records` was given."""
    found, at = [], 0
    while at < len(of_records):
        begin = at + LENGTH_BYTES
        at = begin + int.from_bytes(of_records[at:begin], "big")
        found.append(of_records[begin:at])
    return found


@dataclass(slots=True)
class Files:
    """Files that the program reads or writes; they are gone afterwards."""

    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    _count: int = 0

    def new(self, content: bytes = b"") -> Path:
        """One more."""
        self._count += 1
        path = Path(self._folder.name, str(self._count))
        path.write_bytes(content)
        return path

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
