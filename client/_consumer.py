"""Runs a handler over deliveries with bounded concurrency, and ends without losing any.

A task for each delivery would cost as much as all else that is done with it. Here a task handles one after the other,
and there are more of them only as handlers wait: for whoever is called, it is as if each delivery had its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from trunkline.core.errors import InvalidArgument

from ._delivery import Delivery

log = logging.getLogger("trunkline.client")

IN_A_TURN_MAX = 64
"""Deliveries that a task handles before it lets the event loop go on: what was said of them leaves meanwhile."""


class Deliveries(Protocol):
    """Where deliveries come from."""

    async def next(self) -> Delivery | None:
        """None when there are no more."""


async def consume(
    deliveries: Deliveries, handler: Callable[[Delivery], Awaitable[None]], *, concurrency: int, nack_delay_s: float | None,
    finish_within_s: float,
) -> None:  # fmt: skip
    """See Subscription.consume."""
    if concurrency < 1:
        raise InvalidArgument.of("concurrency", "at least 1", concurrency)
    handling = _Handling(handler, concurrency=concurrency, nack_delay_s=nack_delay_s)
    try:
        while True:
            await handling.room()
            delivery = await deliveries.next()
            if delivery is None:
                return
            handling.take(delivery)
    finally:
        await handling.finish(finish_within_s)


class _Handling:
    """Deliveries that were taken: each is handled, or waits for the next turn of the event loop."""

    def __init__(
        self, handler: Callable[[Delivery], Awaitable[None]], *, concurrency: int, nack_delay_s: float | None
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._nack_delay_s = nack_delay_s
        self._open = 0
        """Taken and not done, at most `concurrency`."""
        self._waiting: deque[Delivery] = deque()
        self._room = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._coming = 0
        """Tasks among them that look for a waiting delivery in the next turn."""

    async def room(self) -> None:
        """Return when one more may be taken."""
        while self._open >= self._concurrency:
            self._room.clear()
            await self._room.wait()

    def take(self, delivery: Delivery) -> None:
        """Handle it from the next turn on."""
        self._open += 1
        self._waiting.append(delivery)
        if not self._coming:
            self._begin()

    def _begin(self) -> None:
        task = asyncio.get_running_loop().create_task(self._run())
        self._coming += 1
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting and not self._coming:  # a handler took its task along: it was cancelled
            self._begin()

    def _begin_others(self) -> None:
        """A handler waits: whatever else was taken begins without it."""
        for _ in range(len(self._waiting) - self._coming):
            self._begin()

    async def _run(self) -> None:
        task, handled = asyncio.current_task(), 0
        assert task is not None
        self._coming -= 1
        while self._waiting and not task.cancelling():
            if handled == IN_A_TURN_MAX:
                handled = 0
                await self._turn()
                continue
            handled += 1
            try:
                await _Apart(self._handle(self._waiting.popleft()), self._begin_others)
            finally:
                self._open -= 1
                self._room.set()

    async def _turn(self) -> None:
        self._coming += 1
        try:
            await asyncio.sleep(0)
        finally:
            self._coming -= 1

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._handler(delivery)
        except Exception as error:
            log.exception("handler failed", extra={"event_id": delivery.event.id, "attempt": delivery.attempt})
            delivery.nack(self._nack_delay_s, f"{type(error).__name__}: {error}")
        else:
            delivery.ack()

    async def finish(self, within_s: float) -> None:
        """Let handlers end; those that do not are cancelled, and their events go back by the subscription's end."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + within_s
        while self._running:
            done, _ = await asyncio.wait(set(self._running), timeout=max(0.0, ends_s - loop.time()))
            if not done:
                await self._cancel()

    async def _cancel(self) -> None:
        log.warning("handlers cancelled at the end", extra={"count": self._open})
        self._waiting.clear()
        late = set(self._running)
        for task in late:
            task.cancel()
        await asyncio.wait(late)


class _Apart:
    """Awaits a coroutine in a context of its own, as a task would, and calls `on_wait` when it has to wait."""

    __slots__ = ("_coroutine", "_on_wait")

    def __init__(self, coroutine: Coroutine[Any, Any, None], on_wait: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_wait = on_wait

    def __await__(self) -> Generator[Any, Any, None]:
        coroutine, run = self._coroutine, copy_context().run
        try:
            waited_for = run(coroutine.send, None)
        except StopIteration:
            return
        self._on_wait()
        while True:
            try:
                said = yield waited_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                go_on: Callable[[], Any] = partial(coroutine.throw, error)
            else:
                go_on = partial(coroutine.send, said)
            try:
                waited_for = run(go_on)
            except StopIteration:
                return
