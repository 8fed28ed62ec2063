"""Requests are taken where they come in, one after the other, also where one has to be waited for; on both transports."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trunkline.core.clock import ManualClock
from trunkline.server.chain.call import Call as ChainCall
from trunkline.server.security.principal import Principal, Via
from trunkline.server.transport.native.answering import Answering
from trunkline.server.transport.native.call import Call


class Arrivals:
    """What Answering wants of a call: requests in, answers out."""

    def __init__(self, *requests: str) -> None:
        self.here = list(requests)
        self.sent: list[str] = []
        self.flushes = 0
        self.stream = SimpleNamespace(is_ended=False)
        config = SimpleNamespace(write_high_water_bytes=100)
        self.connection = SimpleNamespace(
            loop=asyncio.get_running_loop(), server=SimpleNamespace(config=config), want_flush=self._flushed
        )

    def _flushed(self) -> None:
        self.flushes += 1

    def take(self) -> str | None:
        return self.here.pop(0) if self.here else None

    def send(self, answer: str) -> int:
        self.sent.append(answer)
        return 0


class Servant:
    """Answers requests; those with a "?" have to be waited for, those with a "-" have no answer, "!" is refused."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.may_go_on = asyncio.Event()

    def __call__(self, request: str) -> str | Coroutine[Any, Any, None] | None:
        self.taken.append(request)
        if request == "!":
            raise ValueError(request)
        if request.startswith("?"):
            return self._wait(request)
        return None if request == "-" else request.upper()

    async def _wait(self, request: str) -> None:
        await self.may_go_on.wait()
        if request == "?!":
            raise ValueError(request)
        self.taken.append("waited")


def answering(arrivals: Arrivals, servant: Servant) -> tuple[Answering, asyncio.Task[None]]:
    made = Answering(cast("Call", arrivals), servant)
    return made, asyncio.get_running_loop().create_task(made.run())


async def test_what_comes_behind_one_that_waits_is_taken_when_it_is_done() -> None:
    arrivals, servant = Arrivals("a", "?", "b"), Servant()
    made, running = answering(arrivals, servant)
    await asyncio.sleep(0)
    arrivals.here.append("c")
    made.changed()
    await asyncio.sleep(0)
    assert (servant.taken, arrivals.sent) == (["a", "?"], ["A"])
    servant.may_go_on.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert servant.taken == ["a", "?", "waited", "b", "c"]
    arrivals.here.append("d")
    made.changed()
    assert arrivals.sent == ["A", "B", "C", "D"], "taken at once again"
    arrivals.stream.is_ended = True
    made.changed()
    await asyncio.wait_for(running, 1)


async def test_the_stream_ends_behind_one_that_waits() -> None:
    arrivals, servant = Arrivals("?", "-"), Servant()
    arrivals.stream.is_ended = True
    _, running = answering(arrivals, servant)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not running.done()
    servant.may_go_on.set()
    await asyncio.wait_for(running, 1)
    assert servant.taken == ["?", "waited", "-"]
    assert arrivals.sent == [], "nothing is said where there is nothing to say"


@pytest.mark.parametrize("refused", ["!", "?!"])
async def test_nothing_is_taken_behind_one_that_fails(refused: str) -> None:
    arrivals, servant = Arrivals("a", refused, "b"), Servant()
    servant.may_go_on.set()
    made, running = answering(arrivals, servant)
    with pytest.raises(ValueError, match=refused[-1]):
        await asyncio.wait_for(running, 1)
    made.changed()
    assert servant.taken == ["a", refused]


async def test_what_was_not_begun_when_the_call_ends_is_let_go() -> None:
    arrivals, servant = Arrivals(), Servant()
    made, running = answering(arrivals, servant)
    await asyncio.sleep(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that was never awaited
        arrivals.here.append("?")
        made.changed()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert servant.taken == ["?"]


@pytest.mark.parametrize("request_", ["?", "!", "a"])
async def test_nothing_is_taken_once_the_handler_is_cancelled(request_: str) -> None:
    arrivals, servant = Arrivals(), Servant()
    made, running = answering(arrivals, servant)
    await asyncio.sleep(0)
    running.cancel()
    arrivals.here.append(request_)
    arrivals.stream.is_ended = True
    made.changed()  # before the handler has woken
    assert servant.taken == []
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_transport_without_it_takes_them_in_the_same_way() -> None:
    class Written:
        def __init__(self) -> None:
            self.sent: list[str] = []

        async def write(self, message: str) -> None:
            self.sent.append(message)

    async def requests() -> AsyncIterator[str]:
        for request in ("a", "?", "-", "b"):
            yield request

    written, servant = Written(), Servant()
    call = ChainCall(written, Principal(name="x", role=None, via=Via.TOKEN), lambda data, _: data, ManualClock())
    servant.may_go_on.set()
    await call.answer_each(requests(), servant)
    assert servant.taken == ["a", "?", "waited", "-", "b"]
    assert written.sent == ["A", "B"]
