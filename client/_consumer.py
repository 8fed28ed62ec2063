"""Runs a handler over deliveries with bounded concurrency, and ends without losing any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from trunkline.core.errors import InvalidArgument

from ._delivery import Delivery

log = logging.getLogger("trunkline.client")


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
    running: set[asyncio.Task[None]] = set()
    room = asyncio.Semaphore(concurrency)

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        room.release()

    try:
        while True:
            await room.acquire()
            delivery = await deliveries.next()
            if delivery is None:
                return
            task = asyncio.get_running_loop().create_task(_handle(delivery, handler, nack_delay_s))
            running.add(task)
            task.add_done_callback(ended)
    finally:
        if running:
            await _finish(running, finish_within_s)


async def _handle(
    delivery: Delivery, handler: Callable[[Delivery], Awaitable[None]], nack_delay_s: float | None
) -> None:
    try:
        await handler(delivery)
    except Exception as error:
        log.exception("handler failed", extra={"event_id": delivery.event.id, "attempt": delivery.attempt})
        delivery.nack(nack_delay_s, f"{type(error).__name__}: {error}")
    else:
        delivery.ack()


async def _finish(running: set[asyncio.Task[None]], within_s: float) -> None:
    """Let handlers end; those that do not are cancelled, and their events go back by the subscription's end."""
    _, late = await asyncio.wait(set(running), timeout=within_s)
    for task in late:
        task.cancel()
    if late:
        log.warning("handlers cancelled at the end", extra={"count": len(late)})
        await asyncio.wait(late)
