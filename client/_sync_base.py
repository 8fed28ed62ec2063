"""What the generated blocking classes stand on, and the few methods that no rule can derive."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ._connection import Trunkline
from ._delivery import Delivery
from ._event import Event
from ._portal import Portal
from ._publish import Published
from ._publisher import Publisher
from ._subscription import Subscription

log = logging.getLogger("trunkline.client")

Async = TypeVar("Async")


class SyncFace(Generic[Async]):
    """A blocking view of one async object. Threads may share it."""

    def __init__(self, portal: Portal, face_of: Async) -> None:
        self._portal = portal
        self._async = face_of


class SyncConnection(SyncFace[Trunkline]):
    """The connection owns the loop's thread."""

    _entered = False

    def __enter__(self) -> Self:
        self._portal.open()
        self._entered = True
        try:
            self._portal.call(self._async.__aenter__)
        except BaseException:
            self._portal.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drain and end registrations, wait for publishers' answers, give deliveries back, hang up. Idempotent."""
        if self._entered:
            self._entered = False
            try:
                self._portal.call(self._async.close)
            finally:
                self._portal.close()

    def _serve_requests(
        self, filters: Iterable[str], handler: Callable[[Event], Event], *, concurrency: int, **options: Any
    ) -> None:
        with concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix="trunkline-handler") as threads:

            async def handle(request: Event) -> Event:
                return await asyncio.wrap_future(threads.submit(handler, request))

            self._portal.call(self._async.serve_requests, filters, handle, concurrency=concurrency, **options)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._entered and not self._async.guard.forked:
            _warn(f"unclosed connection to {self._async.target}", ResourceWarning, source=self, stacklevel=2)


class SyncSender(SyncFace[Publisher]):
    """Futures of threads instead of the loop's."""

    def send(self, events: Event | Iterable[Event]) -> concurrent.futures.Future[Published]:
        """Wait for room only; the future has the answer, or the error that came instead.

        Events given together are appended together or not at all.
        """
        answer: concurrent.futures.Future[Published] = concurrent.futures.Future()

        def answered(sent: asyncio.Future[Published]) -> None:
            error = sent.exception()
            if error is None:
                answer.set_result(sent.result())
            else:
                answer.set_exception(error)

        async def send() -> None:
            (await self._async.send(events)).add_done_callback(answered)

        self._portal.call(send)
        return answer


class SyncDeliveryFields(SyncFace[Delivery]):
    """What is fixed when an event is delivered."""

    @property
    def event(self) -> Event:
        """What was delivered."""
        return self._async.event

    @property
    def offset(self) -> int:
        """Position in the stream."""
        return self._async.offset

    @property
    def incarnation(self) -> int:
        """Of the stream; offsets of another one are not comparable."""
        return self._async.incarnation

    @property
    def attempt(self) -> int:
        """1 at the first delivery."""
        return self._async.attempt

    @property
    def time_ns(self) -> int:
        """When the event was appended, in nanoseconds since the epoch."""
        return self._async.time_ns

    @property
    def settled(self) -> bool:
        """Something final was said."""
        return self._async.settled

    def __repr__(self) -> str:
        return repr(self._async)


class SyncConsumer(SyncFace[Subscription]):
    """Handlers in threads instead of tasks."""

    def _consume(
        self,
        handler: Callable[[Delivery], None],
        *,
        concurrency: int,
        nack_delay_s: float | None,
        finish_within_s: float,
    ) -> None:
        with concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix="trunkline-handler") as threads:

            async def handle(delivery: Delivery) -> None:
                await asyncio.wrap_future(threads.submit(handler, delivery))

            self._portal.call(
                self._async.consume,
                handle,
                concurrency=concurrency,
                nack_delay_s=nack_delay_s,
                finish_within_s=finish_within_s,
            )
