"""The answering side of requests: a handler's result becomes the reply, its failure an error at who asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, TrunklineError

from ._delivery import Delivery
from ._event import Event
from ._request_events import Wish, failure_event, reply_event, wish_of

log = logging.getLogger("trunkline.client")

Handler = Callable[[Event], Awaitable[Event]]


@dataclass(frozen=True, slots=True)
class Answering:
    """Handles the requests of one subscription. What it returns from was answered, or needs no answer."""

    handler: Handler
    publish: Callable[[Event], Awaitable[object]]
    """To the requests' stream."""
    clock: Clock

    async def handle(self, delivery: Delivery) -> None:
        """Raises what the publishing of the reply raises: the request is delivered again."""
        request = delivery.event
        wish = wish_of(request)
        if wish is None:
            log.warning("event without a reply topic is no request", extra={"event_id": request.id})
            return
        reply = await self._reply(request, wish)
        if reply is not None:
            await self.publish(reply)

    async def _reply(self, request: Event, wish: Wish) -> Event | None:
        """None when its time is over, before or while it is handled."""
        remaining_s = None if wish.expires_ns is None else (wish.expires_ns - self.clock.time_ns()) / 1e9
        if remaining_s is not None and remaining_s <= 0:
            log.info("request expired before it was handled", extra={"event_id": request.id})
            return None
        limit = asyncio.timeout(remaining_s)
        try:
            async with limit:
                reply = await self.handler(request)
                if not isinstance(reply, Event):
                    raise InvalidArgument.of("reply", "an Event", type(reply).__qualname__)
                return reply_event(reply, wish)
        except TrunklineError as error:
            return failure_event(error, wish)
        except Exception as error:
            if limit.expired():
                log.warning("request expired while it was handled", extra={"event_id": request.id})
                return None
            log.exception("handler of requests failed", extra={"event_id": request.id})
            return failure_event(error, wish)
