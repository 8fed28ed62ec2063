"""Many connections that mostly wait: for a change, for the next keep-alive, for nothing."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load.batches import MARK
from bench.load.client.program import Files, command, contents, options, pin, records


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What connections do."""

    connections: int
    path: str | None = None
    """Of the stream that each has; None has no streams."""
    says: Sequence[bytes] = ()
    """Framed messages: what each says when it is there, or what all say."""
    every_s: float | None = None
    """It is said at these intervals; who says it when is spread over the interval."""
    is_call: bool = False
    """What is said ends the call, and each must be answered."""
    each: int = 1
    """So often the mark with a number arrives, over all connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What connections were told."""

    messages: int
    marks: int
    last: list[bytes]
    """The last message of each, framed, and whatever came in one piece with it."""


class Holding:
    """The program, while it holds them."""

    def __init__(self, process: subprocess.Popen[bytes], files: Files, last: Path) -> None:
        self._process = process
        self._files = files
        self._last = last
        self._output = b""

    def said(self, within_s: float) -> dict[str, Any]:
        """Its next line. RuntimeError when there is none."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        while b"\n" not in self._output:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
            if not more:
                raise RuntimeError(f"the load client says nothing within {within_s} s: {self._why()}")
            self._output += more
        line, _, self._output = self._output.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def told_at(self, number: int, *, within_s: float) -> float:
        """When the mark with this number, which is the next, had arrived everywhere: by time.perf_counter()."""
        found = self.said(within_s)
        assert found["number"] == number, found
        return float(found["at_ns"]) / 1e9

    def say(self, says: Sequence[bytes]) -> None:
        """On each stream."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"say %s\n" % bytes(self._files.new(records(says))))
        self._process.stdin.flush()

    def release(self) -> Released:
        """Let go of them; what there was."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        found = self.said(30)
        if self._process.wait(30):
            raise RuntimeError(f"the load client gave up: {self._why()}")
        return Released(messages=found["messages"], marks=found["marks"], last=contents(self._last.read_bytes()))

    def _why(self) -> str:
        assert self._process.stderr is not None
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it runs"
        return self._process.stderr.read().decode(errors="replace").strip()


@contextmanager
def holding(address: str, held: Held, *, within_s: float = 60) -> Iterator[Holding]:
    """Once all are there. RuntimeError when one is refused or lost."""
    with Files() as files:
        last = files.new()
        words = options(
            connections=held.connections,
            path=held.path,
            say=files.new(records(held.says)) if held.says else None,
            every=held.every_s,
            end=held.is_call,
            each=held.each,
            mark=MARK.decode(),
            last=last,
        )
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command("hold", address, words), stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=pin
        ) as process:
            try:
                made = Holding(process, files, last)
                assert made.said(within_s)["ready"] == held.connections
                yield made
            finally:
                process.kill()
