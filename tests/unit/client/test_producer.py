"""A publisher that numbers its events: order, repeats, fencing, and what becomes of what is behind a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import async_solipsism
import pytest

from trunkline.client import ClientOptions, Event, Publisher, Trunkline
from trunkline.client.testing import FakeControlPlane
from trunkline.core.clock import Clock
from trunkline.core.errors import (
    InvalidArgument,
    NotReady,
    OutcomeUnknown,
    OutOfOrderSequence,
    PermissionDenied,
    ProducerFenced,
    SequenceReused,
    TrunklineError,
    UnknownProducer,
    Unreachable,
)


class LoopClock(Clock):
    """The clock of the virtual loop."""

    def now_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    def time_ns(self) -> int:
        return self.now_ns()


class Plane(FakeControlPlane):
    """Notes what it is asked to publish, and makes trouble when told: `trouble` is asked before each publish."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int, int]] = []
        """Epoch, first sequence, count."""
        self.trouble: Callable[[Any], None] | None = None
        self.after: Callable[[Any], None] | None = None
        publish = self._events._publish

        def noted(request: Any) -> Any:
            self.asked.append((request.producer_epoch, request.first_sequence, len(request.events)))
            if self.trouble is not None:
                self.trouble(request)
            answer = publish(request)
            if self.after is not None:
                self.after(request)
            return answer

        self._events._publish = noted  # type: ignore[method-assign]

    @property
    def stored(self) -> list[str]:
        return [record.event.text_data for record in self.stream().records]

    def lose_the_answer(self) -> None:
        """Break the connection between what was done and its answer."""
        self.go_away()
        self.come_back()
        raise asyncio.CancelledError


def refusing(*errors: TrunklineError | None) -> Callable[[Any], None]:
    """One after the other; then nothing."""
    left = list(errors)

    def refuse(_: Any) -> None:
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    return refuse


def in_virtual_time(test: Callable[[Plane, Trunkline], Awaitable[None]]) -> None:
    async def run() -> None:
        plane = Plane()
        async with plane.connect(options=ClientOptions(), clock=LoopClock()) as trunkline:
            await test(plane, trunkline)

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(run())


async def send(publisher: Publisher, *texts: str) -> list[asyncio.Future[Any]]:
    """Each in a request of its own."""
    answers = []
    for text in texts:
        answers.append(await publisher.send(Event(type="tick", data=text)))
        await asyncio.sleep(0.001)
    return answers


async def outcomes(answers: list[asyncio.Future[Any]]) -> list[object]:
    """The offset, or the class of the error, of each."""
    found = await asyncio.gather(*answers, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one.offsets[0] for one in found]


def test_it_numbers_its_events_and_leaves_their_ids_alone() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await trunkline.publish(Event(type="tick", id="same", data="x"))
        async with trunkline.publisher(producer="orders-7", epoch=5) as publisher:
            await publisher.publish([Event(type="tick", id="same", data=text) for text in "abc"])
            await publisher.publish(Event(type="tick", id="same", data="d"))
            assert publisher.epoch == 5
        assert plane.asked[1:] == [(5, 1, 3), (5, 4, 1)]
        assert plane.stored == ["x", "a", "b", "c", "d"]

    in_virtual_time(test)


def test_what_was_not_answered_is_repeated_in_order_after_a_reconnect() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p") as publisher:
            answers: list[asyncio.Future[Any]] = []

            def lose_the_answer(_: Any) -> None:
                if len(plane.asked) in (1, 4, 8):
                    plane.lose_the_answer()

            plane.after = lose_the_answer
            while len(plane.asked) < 12:
                answers += await send(publisher, str(len(answers)))
            assert await outcomes(answers) == list(range(len(answers)))
        assert plane.stored == [str(n) for n in range(len(answers))]
        firsts = [first for _, first, _ in plane.asked]
        assert len(firsts) - len(set(firsts)) == 3, "each was repeated under its number"

    in_virtual_time(test)


@pytest.mark.parametrize("error", [NotReady("soon"), OutcomeUnknown("perhaps")])
def test_one_that_is_refused_for_now_is_not_overtaken(error: TrunklineError) -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p") as publisher:
            plane.trouble = refusing(None, error, None, error)
            assert await outcomes(await send(publisher, *"abcdef")) == list(range(6))
        assert plane.stored == list("abcdef")

    in_virtual_time(test)


def test_without_a_producer_it_is() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher() as publisher:
            assert publisher.epoch is None
            plane.trouble = refusing(None, NotReady("soon"))
            await outcomes(await send(publisher, *"abc"))
        assert plane.stored == list("acb")

    in_virtual_time(test)


def test_one_that_fails_for_good_ends_it_and_what_is_behind_it_is_not_published() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p") as publisher:
            plane.trouble = refusing(None, PermissionDenied("not yours"))
            answers = [await publisher.send(Event(type="tick", data=text)) for text in "a"]
            await asyncio.sleep(0.001)
            answers += await send(publisher, "b")
            assert await outcomes(answers) == [0, PermissionDenied]
            assert publisher.closed
            with pytest.raises(OutOfOrderSequence, match="not yours"):
                await publisher.send(Event(type="tick", data="c"))
        assert plane.stored == ["a"]

    in_virtual_time(test)


def test_those_in_flight_behind_a_failure_are_told_what_failed() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p") as publisher:
            plane.trouble = refusing(*[NotReady("soon")] * 3, PermissionDenied("not yours"))
            answers = await send(publisher, "a", "b", "c")
            assert await outcomes(answers) == [PermissionDenied, OutOfOrderSequence, OutOfOrderSequence]
            assert isinstance(answers[2].exception().__cause__, PermissionDenied)  # type: ignore[union-attr]
        assert plane.stored == []

    in_virtual_time(test)


def test_the_one_that_was_opened_last_fences_the_others() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        await asyncio.sleep(1)
        async with trunkline.publisher(producer="p") as older:
            await older.publish(Event(type="tick", data="a"))
            await asyncio.sleep(1)
            async with trunkline.publisher(producer="p") as newer:
                await newer.publish(Event(type="tick", data="b"))
                assert (older.epoch, newer.epoch) == (1_000, 2_000)
                answers = [await older.send(Event(type="tick", data="c")) for _ in range(3)]
                assert await outcomes(answers) == [ProducerFenced] * 3
                with pytest.raises(ProducerFenced):
                    await older.publish(Event(type="tick", data="d"))
                assert older.closed
                await newer.publish(Event(type="tick", data="e"))
        assert plane.stored == ["a", "b", "e"]

    in_virtual_time(test)


def test_two_of_one_epoch_do_not_swallow_each_others_events() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p", epoch=1) as one, trunkline.publisher(producer="p", epoch=1) as two:
            await one.publish(Event(type="tick", data="a"))
            with pytest.raises(SequenceReused):
                await two.publish(Event(type="tick", data="b"))
        assert plane.stored == ["a"]

    in_virtual_time(test)


def test_one_that_the_stream_has_forgotten_begins_a_new_epoch() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p", epoch=7) as publisher:
            await outcomes(await send(publisher, "a", "b"))
            plane.stream().forget_producers()
            answers = [await publisher.send(Event(type="tick", data=text)) for text in ("c", "d")]
            assert await outcomes([*answers, *await send(publisher, "e")]) == [2, 3, 4]
            assert publisher.epoch == 8
        assert plane.stored == list("abcde")
        assert plane.asked[-2:] == [(7, 3, 3), (8, 1, 3)]

    in_virtual_time(test)


def test_but_not_when_it_cannot_know_whether_the_stream_has_what_it_sent() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p") as publisher:
            await publisher.publish(Event(type="tick", data="a"))

            def lose_the_answer_and_forget(_: Any) -> None:
                plane.after = None
                plane.stream().forget_producers()
                plane.lose_the_answer()

            plane.after = lose_the_answer_and_forget
            assert await outcomes(await send(publisher, "b", "c")) == [UnknownProducer, OutOfOrderSequence]
        assert plane.stored == ["a", "b"]

    in_virtual_time(test)


def test_no_more_requests_are_unanswered_than_a_stream_remembers() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p") as publisher:
            plane.go_away()
            answers = await send(publisher, *(str(n) for n in range(300)))
            assert len(publisher._sent) <= 256
            plane.come_back()
            assert await outcomes(answers) == list(range(300))
        assert plane.stored == [str(n) for n in range(300)]

    in_virtual_time(test)


def test_a_deadline_ends_it() -> None:
    async def test(plane: Plane, trunkline: Trunkline) -> None:
        async with trunkline.publisher(producer="p", timeout_s=5) as publisher:
            await publisher.publish(Event(type="tick", data="a"))
            plane.go_away()
            assert await outcomes(await send(publisher, "b", "c")) == [Unreachable, Unreachable]
            plane.come_back()
            with pytest.raises(OutOfOrderSequence):
                await publisher.publish(Event(type="tick", data="d"))

    in_virtual_time(test)


def test_names_and_epochs_that_no_stream_takes_are_refused_at_once() -> None:
    async def test(_: Plane, trunkline: Trunkline) -> None:
        for name in ("", "a b", "p" * 129):
            with pytest.raises(InvalidArgument, match="producer"):
                trunkline.publisher(producer=name)
        for wrong in ({"epoch": 1}, {"producer": "p", "epoch": -1}, {"producer": "p", "epoch": 2**63}):
            with pytest.raises(InvalidArgument, match="epoch"):
                trunkline.publisher(**wrong)

    in_virtual_time(test)
