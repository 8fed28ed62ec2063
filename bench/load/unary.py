"""Unary calls as fast as answers come: so many connections with so many streams each."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import h2

Body = Callable[[int], bytes]
"""The n-th request, serialized."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, and how hard."""

    path: str
    body: Body
    connections: int
    streams: int
    limit: int = sys.maxsize
    """So many calls in all."""


@dataclass(slots=True)
class Counts:
    """Shared by the connections of one run."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    open: bool = True


class UnaryConnection(h2.Connection):
    """Keeps its streams busy."""

    def __init__(self, load: Load, block: bytes, counts: Counts) -> None:
        super().__init__()
        self._load = load
        self._block = block
        self._counts = counts
        self._answers: dict[int, bool] = {}

    def begin(self) -> None:
        """The first call of every stream."""
        for _ in range(self._load.streams):
            self._ask()
        self.flush()

    def _ask(self) -> None:
        number = self._counts.asked
        if number >= self._load.limit:
            return
        self._counts.asked += 1
        stream = self.open(self._block)
        self._answers[stream] = False
        self.send(stream, h2.message(self._load.body(number)), end=True)

    def data(self, stream: int, payload: memoryview) -> None:
        self._answers[stream] = True  # a refusal has no message

    def ended(self, stream: int) -> None:
        if self._answers.pop(stream, False):
            self._counts.answered += 1
        else:
            self._counts.failed += 1
        if self._counts.open:
            self._ask()


async def rates(address: str, load: Load, *, seconds: float, repetitions: int, warm_s: float = 0.5) -> list[float]:
    """Answers a second, once per repetition. RuntimeError when a call is refused or a connection is lost."""
    host, port = address.rsplit(":", 1)
    block = h2.headers(load.path, address)
    counts = Counts()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: UnaryConnection(load, block, counts), host, int(port)))[1]
        for _ in range(load.connections)
    ]
    for connection in made:
        connection.begin()
    await asyncio.sleep(warm_s)
    found = []
    for _ in range(repetitions):
        began, answered = time.perf_counter(), counts.answered
        await asyncio.sleep(seconds)
        found.append((counts.answered - answered) / (time.perf_counter() - began))
    counts.open = False
    lost = [connection.lost for connection in made if connection.lost is not None]
    for connection in made:
        connection.close()
    if counts.failed or lost:
        raise RuntimeError(f"{counts.failed} of {counts.asked} calls to {load.path} were refused; lost: {lost}")
    return found
