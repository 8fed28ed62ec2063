"""Publishing with dedupe against a log that becomes durable, or fails, when the test says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reference.held_log import SECOND, Bench, in_loop, scan_of, shown, turns
from trunkline.core.errors import DiskFull, DurabilityUnmet, StreamClosed
from trunkline.core.model import Sync
from trunkline.core.wire import Scan
from trunkline.server.journal.event_log import EventLog


def test_answered_when_durable_and_not_before() -> None:
    async def main() -> None:
        bench = Bench()
        task = bench.begin("a", "b")
        await turns()
        assert not task.done()
        await bench.log.let_through()
        published = await task
        assert shown(published) == [(0, 2, False)]
        assert (published.sync, published.incarnation) == (Sync.FSYNCED, 7)

    in_loop(main)


def test_duplicates_get_their_original_places_and_the_rest_is_appended() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b", "c")
        assert await bench.publish("x", "b", "c", "y", "a") == [
            (3, 1, False),
            (1, 2, True),
            (4, 1, False),
            (0, 1, True),
        ]
        assert await bench.publish("y") == [(4, 1, True)]
        assert bench.log.next_offset == 5
        assert (bench.events.published, bench.events.duplicates, bench.events.collisions) == (5, 4, 0)

    in_loop(main)


def test_the_same_event_twice_in_one_request_is_appended_once() -> None:
    async def main() -> None:
        bench = Bench()
        assert await bench.publish("a", "b", "a", "a") == [(0, 2, False), (0, 1, True), (0, 1, True)]
        assert await bench.publish("b", "n", "b", "n") == [(1, 1, True), (2, 1, False), (1, 2, True)]

    in_loop(main)


def test_a_duplicate_of_what_is_on_its_way_waits_for_it() -> None:
    async def main() -> None:
        bench = Bench()
        first, second = bench.begin("a"), bench.begin("a", "b")
        await turns()
        await bench.log.let_through(1)
        assert first.done()
        assert not second.done()
        await bench.log.let_through()
        assert shown(await second) == [(0, 1, True), (1, 1, False)]
        third = bench.begin("c")
        fourth = bench.begin("c")
        await turns()
        assert not fourth.done()
        await bench.log.let_through()
        assert shown(await third) == [(2, 1, False)]
        assert shown(await fourth) == [(2, 1, True)]

    in_loop(main)


def test_a_failed_append_takes_its_ids_back_and_fails_its_duplicates() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("kept")
        first, second = bench.begin("a"), bench.begin("a")
        await turns()
        await bench.log.fail(DiskFull("no space"))
        for task in (first, second):
            with pytest.raises(DiskFull):
                await task
        assert bench.events.failed
        with pytest.raises(StreamClosed):
            await bench.events.publish(scan_of("a"))
        await bench.events.recover()
        assert await bench.publish("a", "kept") == [(1, 1, False), (0, 1, True)]

    in_loop(main)


def test_a_publisher_that_goes_away_does_not_take_its_events_along() -> None:
    async def main() -> None:
        bench = Bench()
        first, second = bench.begin("a"), bench.begin("a")
        await turns()
        first.cancel()
        await turns()
        await bench.log.let_through()
        assert shown(await second) == [(0, 1, True)]

    in_loop(main)


def test_the_window_ends_by_time_and_by_count() -> None:
    async def main() -> None:
        bench = Bench(window_s=10, ids=3)
        await bench.publish("a")
        bench.clock.advance(9 * SECOND)
        assert await bench.publish("a") == [(0, 1, True)]
        bench.clock.advance(1 * SECOND)
        assert await bench.publish("a") == [(1, 1, False)]
        await bench.publish("b", "c", "d")
        assert await bench.publish("a") == [(5, 1, False)]

    in_loop(main)


def test_ids_are_learned_from_the_log() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b")
        again = Bench()
        again.log = bench.log
        held: Any = bench.log
        again.events = EventLog(
            held, again.clock, dedupe_window_ns=120 * SECOND, dedupe_ids=1_000, producers_max=100, seed=4
        )
        await again.events.rebuild()
        assert await again.publish("b", "c") == [(1, 1, True), (2, 1, False)]

    in_loop(main)


class OneHash:
    """A scan whose events all have the same hash: what must be told apart by source and id."""

    def __init__(self, scan: Scan) -> None:
        self.count, self.payload, self.ends = scan.count, scan.payload, scan.ends
        self.topic_ids, self.topics, self.key_hashes = scan.topic_ids, scan.topics, scan.key_hashes
        self.producer, self.producer_epoch, self.first_sequence = "", 0, 0
        self.id_hashes = scan.id_hashes[:0]
        for _ in range(scan.count):
            self.id_hashes.extend([1, 2])


def test_equal_hashes_of_different_events_are_told_apart() -> None:
    async def main() -> None:
        bench = Bench()

        async def publish(*ids: str) -> list[tuple[int, int, bool]]:
            task = asyncio.create_task(bench.events.publish(OneHash(scan_of(*ids))))
            await turns()
            await bench.log.let_through()
            return shown(await task)

        assert await publish("a", "b", "a") == [(0, 2, False), (0, 1, True)]
        assert await publish("c", "b", "a") == [(2, 1, False), (1, 1, True), (0, 1, True)]
        assert bench.events.collisions == 2

    in_loop(main)


def test_more_durability_than_the_stream_promises_is_refused() -> None:
    async def main() -> None:
        bench = Bench()
        bench.log.sync = Sync.WRITTEN
        with pytest.raises(DurabilityUnmet):
            await bench.events.publish(scan_of("a"), require_sync=Sync.FSYNCED)
        assert await bench.publish("a") == [(0, 1, False)]

    in_loop(main)
