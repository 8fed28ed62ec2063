"""Redis Streams from Debian's redis-server, driven by redis-benchmark."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environment import program
from bench.load.process import Process, free_port, running
from bench.say import say, say_command

READY = re.compile("Ready to accept connections")


@contextmanager
def redis(folder: Path, *, core: int) -> Iterator[int | None]:
    """Its port, with an append-only file synced at every group of commands; None when it is not installed."""
    path = program("redis-server")
    if path is None or program("redis-benchmark") is None:
        say("redis-server or redis-benchmark is not installed: skipped")
        yield None
        return
    port = free_port()
    words = [
        path, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "always",
    ]  # fmt: skip
    process = Process(words, folder / "redis.log", core=core)
    with running(process):
        process.wait_for(READY)
        yield port


def added_a_second(port: int, *, count: int, size: int, connections: int, pipeline: int, core: int) -> float:
    """XADDs a second by redis-benchmark."""
    path = program("redis-benchmark")
    assert path is not None
    words = [
        path, "-p", str(port), "-n", str(count), "-c", str(connections), "-P", str(pipeline), "--csv",
        "XADD", "bench", "*", "f", "x" * size,
    ]  # fmt: skip
    say_command([*words[:-1], f"<{size} bytes>"])
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    lines = list(csv.reader(done.stdout.splitlines()))
    return float(lines[-1][lines[0].index("rps")] if "rps" in lines[0] else lines[-1][1])
