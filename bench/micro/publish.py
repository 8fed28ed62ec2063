"""What it costs a stream to recognise repeats: by ids in a full dedupe window, and by the numbers of a producer.

Ready-made scans of 200-byte events go through the publishing side of a stream into a log in memory, eight at a time; so
scanner, network and disk are left out.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from random import Random
from time import thread_time_ns
from typing import Any

from bench.micro.timing import FULL, QUICK, Loop, row
from trunkline.core.clock import SystemClock
from trunkline.core.model import Sync
from trunkline.server.journal.batch import frame_head
from trunkline.server.journal.event_log import EventLog
from trunkline.server.journal.log import LogConfig
from trunkline.server.journal.memory import MemoryLog

EVENT_BYTES = 200
DEDUPE_IDS = 1_000_000
WINDOW_NS = 120_000_000_000
IN_FLIGHT = 8

Row = dict[str, Any]


@dataclass(slots=True)
class ReadyScan:
    """A request as the scanner gives it."""

    count: int
    payload: bytes
    ends: array[int]
    topic_ids: array[int]
    topics: list[str]
    key_hashes: array[int]
    id_hashes: array[int]
    producer: str = ""
    producer_epoch: int = 0
    first_sequence: int = 0


def ready(count: int, random: Random) -> ReadyScan:
    """A request of so many events with ids of their own."""
    frame = frame_head(EVENT_BYTES) + bytes(EVENT_BYTES)
    return ReadyScan(
        count,
        frame * count,
        array("I", range(len(frame), len(frame) * count + 1, len(frame))),
        array("H", bytes(2 * count)),
        ["orders.placed"],
        array("Q", bytes(8 * count)),
        array("Q", random.randbytes(16 * count)),
    )


class Stream:
    """A stream whose window is full, and requests for it."""

    def __init__(self, count: int, producer: str) -> None:
        self.count = count
        self.producer = producer
        self._run = asyncio.new_event_loop().run_until_complete
        random = Random(1)
        log = MemoryLog("bench/events", LogConfig(sync=Sync.MEMORY), incarnation=1)
        self.events = EventLog(
            log, SystemClock(), dedupe_window_ns=WINDOW_NS, dedupe_ids=DEDUPE_IDS, producers_max=10, seed=1
        )
        filling = DEDUPE_IDS // 10_000
        self._run(self._publish([ready(10_000, random) for _ in range(filling)]))
        # More new ids than the window holds, so that all stay new when they come round again.
        self._requests = [ready(count, random) for _ in range(1 if producer else DEDUPE_IDS // count + 1_000)]
        self._next = 0
        self._sequence = 1

    async def _publish(self, requests: list[ReadyScan]) -> None:
        for first in range(0, len(requests), IN_FLIGHT):
            await asyncio.gather(*[self.events.publish(one) for one in requests[first : first + IN_FLIGHT]])

    def _taken(self, calls: int) -> list[ReadyScan]:
        if not self.producer:
            taken = [self._requests[(self._next + n) % len(self._requests)] for n in range(calls)]
            self._next += calls
            return taken
        one = self._requests[0]
        columns = one.count, one.payload, one.ends, one.topic_ids, one.topics, one.key_hashes, one.id_hashes
        first, self._sequence = self._sequence, self._sequence + calls * self.count
        return [ReadyScan(*columns, self.producer, 1, first + n * self.count) for n in range(calls)]

    def loop(self, n: int) -> int:
        """Publish so many events."""
        calls = max(1, n // self.count)
        requests = self._taken(calls)
        begin = thread_time_ns()
        self._run(self._publish(requests))
        return (thread_time_ns() - begin) * n // (calls * self.count)


def rows(quick: bool) -> list[Row]:
    """All results, in nanoseconds an event."""
    found = []
    for count in (1, 100, 1_000):
        numbered: Loop = Stream(count, "orders-7").loop
        by_ids: Loop = Stream(count, "").loop
        what = f"a producer's event in requests of {count:,}"
        found.append(row("publish", what, QUICK if quick else FULL, numbered, "by ids", by_ids))
    return found
