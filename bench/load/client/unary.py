"""Unary calls, as many as are answered or at a rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.load.batches import NUMBER
from bench.load.client.program import Files, messages, options, records, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What is asked, and how hard."""

    path: str
    bodies: Sequence[bytes]
    """The requests, which take turns; each NUMBER in them is overwritten with the number of the call."""
    connections: int = 1
    streams: int = 1
    """Calls on their way, on each connection."""
    rate: float | None = None
    """Calls a second over all connections; None is as many as are answered."""
    limit: int | None = None
    """So many calls in all; None is until the time is over."""
    tls: bool = False
    """The server's certificate is taken as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came of it."""

    rates: list[float]
    """Answers a second, once per repetition."""
    answered: int
    p50_us: float
    """From the call, or at a rate from when it was due, to its answer; without those of the warming."""
    p99_us: float
    max_us: float
    body: bytes
    """One of the last answers."""


def call(address: str, calls: Calls, *, seconds: float, repetitions: int, warm_s: float = 0.5) -> Answers:
    """Make them. RuntimeError when a call is refused or a connection is lost."""
    with Files() as files:
        words = options(
            path=calls.path,
            body=files.new(records(calls.bodies)),
            placeholder=NUMBER.decode(),
            connections=calls.connections,
            streams=calls.streams,
            rate=calls.rate,
            calls=calls.limit,
            tls=calls.tls,
            seconds=seconds,
            repetitions=repetitions,
            warm=warm_s,
        )
        found = run("unary", address, words)
    if found["failed"]:
        raise RuntimeError(
            f"{found['failed']} of {found['asked']} calls to {calls.path} were refused, by status: {found['statuses']}"
        )
    return Answers(
        rates=found["rates"],
        answered=found["answered"],
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        max_us=found["max_us"],
        body=b"".join(messages(bytes.fromhex(found["answer"]))),
    )
