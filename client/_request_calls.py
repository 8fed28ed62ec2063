"""What a connection does with requests over events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from ._answering import Answering
from ._event import Event
from ._event_calls import EventCalls
from ._requests import RequestCounts, Requests
from ._subscription_options import SubscriptionOptions


class RequestCalls(EventCalls):
    """See Trunkline."""

    _requests: Requests

    async def request(
        self, event: Event, *, stream: str = "events", timeout_s: float | None = None, namespace: str | None = None
    ) -> Event:
        """Publish the event and return the reply of whoever serves it (`serve_requests`).

        Raises what its handler raised (RequestFailed for other than TrunklineErrors), DeadlineExceeded without a reply
        in time, LimitExceeded when too many requests wait. Leave the event's id empty: a repeated one is no new request.
        """
        self._check_open()
        limit_s = self._options.timeout_s if timeout_s is None else timeout_s
        place = namespace or self._namespace, stream
        return await self._requests.request(event, place, self.subscribe, timeout_s=limit_s)

    @property
    def request_counts(self) -> RequestCounts:
        """Requests sent, replied to, and replies that came too late."""
        return self._requests.counts

    async def serve_requests(
        self, filters: Iterable[str], handler: Callable[[Event], Awaitable[Event]], *, name: str, stream: str = "events",
        concurrency: int = 16, ack_deadline_s: float | None = None, namespace: str | None = None,
    ) -> None:  # fmt: skip
        """Handle requests whose topic one of `filters` takes, at most `concurrency` at a time, until cancelled.

        Who serves by one `name` shares the work: it is a durable subscription. What the handler returns is the reply; what
        it raises, is raised at who asked. A request past its deadline is not handled; a handler still at it is cancelled.
        One that takes longer than `ack_deadline_s` is joined by another.
        """
        options = SubscriptionOptions(filters=filters)
        if ack_deadline_s is not None:
            options["ack_deadline_s"] = ack_deadline_s
        # No more credit than hands: what waits here could be handled elsewhere.
        subscription = self.subscribe(name, stream=stream, credit=concurrency, namespace=namespace, **options)
        replies = partial(self.publish, stream=stream, namespace=namespace)
        await subscription.consume(Answering(handler, replies, self._edge.clock).handle, concurrency=concurrency)
