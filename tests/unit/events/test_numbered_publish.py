"""Publishing what a producer numbered, against a log that becomes durable, or fails, when the test says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reference.held_log import SECOND, Bench, in_loop, shown, turns
from trunkline.core.errors import (
    DiskFull,
    LimitExceeded,
    NotSupported,
    OutOfOrderSequence,
    PositionMismatch,
    ProducerFenced,
    SequenceReused,
    StreamClosed,
    TrunklineError,
    UnknownProducer,
)
from trunkline.server.journal.event_log import EventLog, Published


def numbered(first: int, *, epoch: int = 1, producer: str = "p") -> dict[str, Any]:
    return {"producer": producer, "producer_epoch": epoch, "first_sequence": first}


async def refused(task: asyncio.Task[Published], kind: type[TrunklineError]) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        await task
    return caught.value.fields


def test_a_repeat_is_answered_with_the_offsets_of_the_first_time() -> None:
    async def main() -> None:
        bench = Bench()
        assert await bench.publish("a", "b", **numbered(1)) == [(0, 2, False)]
        await bench.publish("x")
        assert await bench.publish("c", **numbered(3)) == [(3, 1, False)]
        assert await bench.publish("a", "b", **numbered(1)) == [(0, 2, True)]
        assert await bench.publish("b", "c", **numbered(2)) == [(1, 1, True), (3, 1, True)]
        assert bench.log.next_offset == 4
        assert (bench.events.published, bench.events.duplicates) == (4, 4)

    in_loop(main)


def test_of_what_is_partly_a_repeat_the_rest_is_appended() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b", **numbered(1))
        await bench.publish("x")
        assert await bench.publish("b", "c", "d", **numbered(2)) == [(1, 1, True), (3, 2, False)]
        assert await bench.publish("d", **numbered(4)) == [(4, 1, True)]

    in_loop(main)


def test_what_comes_while_a_repeat_is_looked_into_waits_for_it() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b", **numbered(1))
        tasks = [bench.begin(*ids, **numbered(first)) for ids, first in (("bc", 2), ("d", 4), ("e", 5))]
        await turns()
        await bench.log.let_through()
        assert [shown(await task) for task in tasks] == [
            [(1, 1, True), (2, 1, False)],
            [(3, 1, False)],
            [(4, 1, False)],
        ]
        wrong, behind = bench.begin("?", "f", **numbered(5)), bench.begin("g", **numbered(7))
        await refused(wrong, SequenceReused)
        assert await refused(behind, OutOfOrderSequence) == {"expected": "6"}
        assert not bench.events.undecided

    in_loop(main)


def test_a_gap_is_refused_and_nothing_is_appended() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", **numbered(1))
        assert await refused(bench.begin("c", **numbered(3)), OutOfOrderSequence) == {"expected": "2"}
        assert await refused(bench.begin("c", **numbered(2, epoch=2)), UnknownProducer) == {"expected": "1"}
        assert await refused(bench.begin("c", **numbered(2, producer="q")), UnknownProducer) == {"expected": "1"}
        assert bench.log.next_offset == 1
        assert (bench.events.out_of_order, bench.events.fenced) == (1, 0)

    in_loop(main)


def test_another_event_under_a_used_number_is_refused_and_not_swallowed() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b", "c", **numbered(1))
        fields = await refused(bench.begin("a", "other", **numbered(1)), SequenceReused)
        assert fields == {"sequence": "1", "offset": "0"}
        assert await refused(bench.begin("other", "d", **numbered(3)), SequenceReused) == {
            "sequence": "3",
            "offset": "2",
        }
        assert bench.log.next_offset == 3

    in_loop(main)


def test_numbers_alone_decide_and_ids_are_left_alone() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a")
        assert await bench.publish("a", **numbered(1)) == [(1, 1, False)]
        assert await bench.publish("a", **numbered(1, producer="q")) == [(2, 1, False)]
        assert await bench.publish("b", **numbered(2)) == [(3, 1, False)]
        assert await bench.publish("a", "b") == [(0, 1, True), (4, 1, False)]

    in_loop(main)


def test_what_is_on_its_way_counts() -> None:
    async def main() -> None:
        bench = Bench()
        tasks = [
            bench.begin("a", "b", **numbered(1)),
            bench.begin("c", **numbered(3)),
            bench.begin("b", "c", "d", **numbered(2)),
        ]
        await turns()
        assert not any(task.done() for task in tasks)
        await bench.log.let_through(2)
        assert [task.done() for task in tasks] == [True, True, False]
        await bench.log.let_through()
        assert [shown(await task) for task in tasks] == [
            [(0, 2, False)],
            [(2, 1, False)],
            [(1, 2, True), (3, 1, False)],
        ]

    in_loop(main)


def test_when_one_on_its_way_fails_what_rested_on_it_is_refused() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", **numbered(1))
        tasks = [bench.begin("b", **numbered(2)), bench.begin("c", **numbered(3)), bench.begin("b", **numbered(2))]
        gap = bench.begin("e", **numbered(5))
        await turns()
        assert not gap.done(), "a refusal that rests on what is on its way waits for it"
        await bench.log.fail(DiskFull("no space"))
        for task in tasks:
            await refused(task, DiskFull)
        assert await refused(gap, OutOfOrderSequence) == {"expected": "2"}
        await refused(bench.begin("b", **numbered(2)), StreamClosed)
        await bench.events.recover()
        assert await refused(bench.begin("c", **numbered(3)), OutOfOrderSequence) == {"expected": "2"}
        assert await bench.publish("b", **numbered(2)) == [(1, 1, False)]

    in_loop(main)


def test_a_request_that_is_refused_is_not_overtaken() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("x")
        first = bench.begin("a", expected_offset=0, **numbered(1))
        behind = bench.begin("b", **numbered(2))
        assert await refused(first, PositionMismatch) == {"next": "1"}
        await refused(behind, UnknownProducer)
        assert await bench.publish("a", expected_offset=1, **numbered(1)) == [(1, 1, False)]
        assert await bench.publish("a", expected_offset=7, **numbered(1)) == [(1, 1, True)]
        with pytest.raises(PositionMismatch):
            await bench.begin("a", "b", expected_offset=1, **numbered(1))
        assert await bench.publish("a", "b", expected_offset=2, **numbered(1)) == [(1, 1, True), (2, 1, False)]

    in_loop(main)


def test_an_older_epoch_is_fenced_but_only_by_what_is_durable() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", **numbered(1, epoch=3))
        newer = bench.begin("n", **numbered(1, epoch=4))
        older = bench.begin("b", **numbered(2, epoch=3))
        await turns()
        assert not older.done()
        await bench.log.fail(DiskFull("no space"))
        await refused(newer, DiskFull)
        await refused(older, StreamClosed)
        await bench.events.recover()
        assert await bench.publish("b", **numbered(2, epoch=3)) == [(1, 1, False)]
        newer = bench.begin("n", **numbered(1, epoch=4))
        older = bench.begin("c", **numbered(3, epoch=3))
        await turns()
        await bench.log.let_through()
        assert shown(await newer) == [(2, 1, False)]
        assert await refused(older, ProducerFenced) == {"epoch": "4"}
        assert bench.events.fenced == 1

    in_loop(main)


def test_a_fenced_one_does_not_wait_for_what_its_successor_has_on_its_way() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", **numbered(1, epoch=3))
        await bench.publish("n", **numbered(1, epoch=4))
        busy = bench.begin("o", **numbered(2, epoch=4))
        await turns()
        await refused(bench.begin("b", **numbered(2, epoch=3)), ProducerFenced)
        await bench.log.let_through()
        await busy

    in_loop(main)


def test_another_event_under_the_number_of_one_on_its_way_waits_for_that() -> None:
    async def main() -> None:
        bench = Bench()
        first, other = bench.begin("a", **numbered(1)), bench.begin("b", **numbered(1))
        await turns()
        assert not other.done()
        await bench.log.let_through()
        assert shown(await first) == [(0, 1, False)]
        await refused(other, SequenceReused)

    in_loop(main)


def test_nobody_waits_for_itself() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", **numbered(1))
        tasks = [bench.begin("b", **numbered(2)), bench.begin("c", **numbered(3))]
        other = bench.begin("other", **numbered(3))
        await turns()
        await bench.log.fail(DiskFull("no space"))
        for task in tasks:
            await refused(task, DiskFull)
        async with asyncio.timeout(1):
            assert await refused(other, OutOfOrderSequence) == {"expected": "2"}
        assert not bench.events.undecided

    in_loop(main)


def test_producers_are_learned_from_the_log() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b", **numbered(1, epoch=6))
        await bench.publish("x", "y")
        await bench.publish("c", **numbered(3, epoch=6))
        held: Any = bench.log
        bench.events = EventLog(
            held, bench.clock, dedupe_window_ns=120 * SECOND, dedupe_ids=1_000, producers_max=10, seed=4
        )
        await bench.events.rebuild()
        assert await bench.publish("b", "c", "d", **numbered(2, epoch=6)) == [(1, 1, True), (4, 1, True), (5, 1, False)]
        await refused(bench.begin("z", **numbered(1, epoch=5)), ProducerFenced)
        # Its ids are not learned: they would be known after a start and not before it.
        assert await bench.publish("a", "x") == [(6, 1, False), (2, 1, True)]

    in_loop(main)


def test_one_that_was_forgotten_is_told_so() -> None:
    async def main() -> None:
        bench = Bench(window_s=10)
        await bench.publish("a", **numbered(1))
        bench.clock.advance(10 * SECOND)
        assert await refused(bench.begin("b", **numbered(2)), UnknownProducer) == {"expected": "1"}
        assert await bench.publish("b", **numbered(1, epoch=2)) == [(1, 1, False)]

    in_loop(main)


def test_producers_are_bounded() -> None:
    async def main() -> None:
        bench = Bench(window_s=10)
        for number in range(100):
            await bench.publish("a", **numbered(1, producer=f"p{number}"))
        with pytest.raises(LimitExceeded, match="producers_per_stream_max = 100"):
            await bench.begin("a", **numbered(1, producer="one-too-many"))
        assert bench.events.remembered_producers == 100
        assert await bench.publish("b") == [(100, 1, False)]
        bench.clock.advance(10 * SECOND)
        assert await bench.publish("a", **numbered(1, producer="one-too-many")) == [(101, 1, False)]

    in_loop(main)


def test_a_stream_without_a_window_takes_no_producer() -> None:
    async def main() -> None:
        bench = Bench(window_s=0)
        with pytest.raises(NotSupported, match="no dedupe window"):
            await bench.begin("a", **numbered(1))
        assert await bench.publish("a") == [(0, 1, False)]

    in_loop(main)


def test_what_retention_has_removed_is_a_repeat_by_its_number_alone() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.publish("a", "b", **numbered(1))
        await bench.publish("c", **numbered(3))
        del bench.log.blocks[0]
        bench.log.first_offset = 2
        reads = bench.log.reads
        assert await bench.publish("?", "b", "c", **numbered(1)) == [(0, 3, True)]
        assert bench.log.reads - reads <= 2
        await refused(bench.begin("a", "b", "?", **numbered(1)), SequenceReused)

    in_loop(main)
