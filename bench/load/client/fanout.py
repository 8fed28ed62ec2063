"""One publisher, many subscribers, over gRPC or over NATS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.load.batches import MARK, NUMBER
from bench.load.client.program import Files, options, records, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Fanout:
    """Who says what."""

    protocol: Literal["grpc", "nats"]
    opening: bytes
    """What a subscriber says: a request, or lines of NATS."""
    body: bytes
    """What is published, again and again: a request, or lines of NATS. MARK and NUMBER stand once in each event."""
    events: int
    """In a body."""
    subscribers: int
    subscribe_path: str | None = None
    publish_path: str | None = None
    in_flight: int = 16
    """Publishes that are not answered yet. NATS answers none: it is given what it reads."""
    acknowledge: bool = False
    """Subscribers acknowledge each delivery; over NATS it is JetStream then, bodies are one message each that wants its
    answer at `acks`, and at most `in_flight` are not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What came of one repetition."""

    rate: float
    """Deliveries a second, from the first publish to the last delivery."""
    p50_us: float
    """From when a body was due to when the last subscriber had it; at a rate only."""
    p99_us: float


def deliver(
    address: str, fanout: Fanout, *, bodies: int, repetitions: int, rate: float | None = None, within_s: float = 120
) -> list[Delivered]:
    """So many bodies in each repetition, as fast as it goes or so many a second; one before them does not count.

    RuntimeError when a delivery is missing or there is one too many, or a connection is lost.
    """
    with Files() as files:
        words = options(
            protocol=fanout.protocol,
            subscribe_path=fanout.subscribe_path,
            publish_path=fanout.publish_path,
            open=files.new(fanout.opening),
            body=files.new(records([fanout.body])),
            placeholder=NUMBER.decode(),
            mark=MARK.decode(),
            subscribers=fanout.subscribers,
            events=fanout.events,
            in_flight=fanout.in_flight,
            bodies=bodies,
            repetitions=repetitions,
            rate=rate,
            acknowledge=fanout.acknowledge,
            within=within_s,
        )
        found = run("fanout", address, words, timeout_s=within_s + 10)
    expected = fanout.subscribers * fanout.events * bodies * (repetitions + 1)
    if found["deliveries"] != expected or (fanout.protocol == "nats" and found["messages"] != expected):
        raise RuntimeError(f"{expected} deliveries were due, and there were {found}")
    return [Delivered(rate=one["rate"], p50_us=one["p50_us"], p99_us=one["p99_us"]) for one in found["repetitions"]]
