"""Requests over events: a reply topic of this connection's own, and who waits for which reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.core.errors import DeadlineExceeded, InvalidArgument, LimitExceeded, TrunklineError, Unreachable

from ._edge import Edge
from ._event import Event
from ._link import Link
from ._publish import publish
from ._request_events import CORRELATION, REPLY_WORDS, Wish, error_of_reply, request_event
from ._subscription import Subscription
from ._tasks import Tasks

log = logging.getLogger("trunkline.client")

TOPIC_BYTES = 16
CORRELATION_BYTES = 16

Place = tuple[str, str]
"""Namespace and stream."""


@dataclass(slots=True)
class RequestCounts:
    """Of one connection, since it was made."""

    sent: int = 0
    """Requests, whatever became of them."""
    replied: int = 0
    """Of them, those with a reply in time, errors included."""
    dropped: int = 0
    """Replies that nobody waited for (any more): late, or a second one."""


class Requests:
    """All requests of a connection. The reply topic of a stream is opened with the first request there."""

    def __init__(self, link: Link, edge: Edge, tasks: Tasks, *, source: str, requests_max: int) -> None:
        self._link = link
        self._edge = edge
        self._tasks = tasks
        self._source = source
        self._requests_max = requests_max
        self._inboxes: dict[Place, Inbox] = {}
        self._open = 0
        self.counts = RequestCounts()

    async def request(
        self, event: Event, place: Place, subscribe: Callable[..., Subscription], *, timeout_s: float
    ) -> Event:
        """See Trunkline.request; `subscribe` is the connection's."""
        if timeout_s <= 0:
            raise InvalidArgument.of("timeout_s", "more than 0", timeout_s)
        if self._open >= self._requests_max:
            raise LimitExceeded("requests_max", self._requests_max)
        correlation = self._edge.entropy(CORRELATION_BYTES).hex()
        expires_ns = self._edge.clock.time_ns() + int(timeout_s * 1e9)
        inbox = self._inbox(place, subscribe)
        asked = request_event(event, Wish(correlation, inbox.topic, expires_ns))
        self._open += 1
        self.counts.sent += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(asked, inbox, correlation, place, timeout_s)
        except TimeoutError:
            raise self._link.last_error or DeadlineExceeded(f"no reply within {timeout_s:g} s") from None
        finally:
            self._open -= 1
            inbox.waiting.pop(correlation, None)

    async def _ask(self, asked: Event, inbox: Inbox, correlation: str, place: Place, timeout_s: float) -> Event:
        reply: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        inbox.waiting[correlation] = reply
        await inbox.subscription.opened()  # else the reply could come before there is anybody to hear it
        named = asked.named(source=self._source, entropy=self._edge.entropy)
        namespace, stream = place
        await publish(self._link, [named], namespace=namespace, stream=stream, require=None, timeout_s=timeout_s)
        answer = await reply
        self.counts.replied += 1
        if (error := error_of_reply(answer)) is not None:
            raise error
        return answer

    def _inbox(self, place: Place, subscribe: Callable[..., Subscription]) -> Inbox:
        if place not in self._inboxes:
            topic = f"{REPLY_WORDS}{self._edge.entropy(TOPIC_BYTES).hex()}"
            namespace, stream = place
            subscription = subscribe(filters=[topic], stream=stream, namespace=namespace, acknowledge=False)
            inbox = self._inboxes[place] = Inbox(topic, subscription, self.counts)
            self._tasks.spawn(self._read(place, inbox), name=f"replies on {place[1]}")
        return self._inboxes[place]

    async def _read(self, place: Place, inbox: Inbox) -> None:
        """Until the connection ends, or the control plane refuses the topic; the next request opens another."""
        try:
            await inbox.read()
        finally:
            del self._inboxes[place]


class Inbox:
    """The reply topic of one stream, and the requests whose replies come there."""

    def __init__(self, topic: str, subscription: Subscription, counts: RequestCounts) -> None:
        self.topic = topic
        self.subscription = subscription
        self.waiting: dict[str, asyncio.Future[Event]] = {}
        """By correlation."""
        self._counts = counts

    async def read(self) -> None:
        """Hand replies to who waits for them, until there are no more; then nobody waits for ever."""
        error: TrunklineError = Unreachable("the connection is closed")
        try:
            while (delivery := await self.subscription.next()) is not None:
                self._received(delivery.event)
        except TrunklineError as refused:
            error = refused
        finally:
            for reply in self.waiting.values():
                if not reply.done():
                    reply.set_exception(error)
                    reply.exception()  # it may be that nobody has come to wait for it yet

    def _received(self, event: Event) -> None:
        reply = self.waiting.pop(str(event.attributes.get(CORRELATION)), None)
        if reply is None or reply.done():
            self._counts.dropped += 1
            log.debug("reply that nobody waits for", extra={"event_id": event.id})
        else:
            reply.set_result(event)
