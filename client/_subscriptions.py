"""All subscriptions of a connection over one stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from trunkline.api.status import failure_from
from trunkline.api.v1.events_pb2 import (
    CloseSubscription,
    SubscribeRequest,
    SubscribeResponse,
    SubscriptionNotice,
)
from trunkline.core.errors import SubscriptionMoved, TrunklineError

from ._backoff import Backoff
from ._duplex import Duplex
from ._errors import is_transient
from ._link import Link
from ._subscription import Subscription

log = logging.getLogger("trunkline.client")

FLUSH_WITHIN_S = 1.0
"""How long the end of a connection waits for the last words to leave."""


class Subscriptions:
    """Opens, resumes, and says in one request what all of them have to say in one turn of the loop."""

    silent_after_s: float | None = None

    def __init__(self, link: Link, backoff: Backoff) -> None:
        self._open: dict[int, Subscription] = {}
        self._last_id = 0
        self._said: list[SubscribeRequest] = []
        self._closing: dict[int, Subscription] = {}
        """Those of which the control plane is yet to say that they have ended."""
        self._resting: set[int] = set()
        """Refused for a passing reason, until they are asked for again."""
        self._backoff = backoff
        self._stream: Duplex[SubscribeRequest, SubscribeResponse] = Duplex(
            link, lambda stubs: stubs.events.Subscribe, self, backoff
        )

    def open(self, subscription: Subscription) -> None:
        """Begin to deliver."""
        self._last_id += 1
        self._open[self._last_id] = subscription
        self._said.extend(subscription.opening(self._last_id))
        self._stream.wake()

    def wake(self) -> None:
        """A subscription has something to say."""
        self._stream.wake()

    def close_subscription(self, subscription: Subscription) -> None:
        """Say what is left to say, then that nothing more is wanted."""
        for subscription_id, known in list(self._open.items()):
            if known is subscription:
                acknowledgements, _ = subscription.outgoing(subscription_id)
                del self._open[subscription_id]
                self._closing[subscription_id] = known
                close = CloseSubscription(subscription_id=subscription_id)
                self._said.append(SubscribeRequest(acknowledgements=acknowledgements))
                self._said.append(SubscribeRequest(close=close))
                self._stream.wake()

    async def close_all(self) -> None:
        """The connection ends: handlers finish, as long as `consume` lets them."""
        subscriptions = list(self._open.values())
        for subscription in subscriptions:
            subscription.close()
        await asyncio.gather(*(subscription.finished() for subscription in subscriptions))

    async def flushed(self) -> None:
        """Give what was said a moment to leave."""
        await self._stream.flushed(within_s=FLUSH_WITHIN_S)

    async def run(self) -> None:
        """Until cancelled."""
        await self._stream.run()

    def opening(self) -> Sequence[SubscribeRequest]:
        self._said.clear()
        self._resting.clear()
        return [request for key, subscription in self._open.items() for request in subscription.opening(key)]

    def outgoing(self) -> Sequence[SubscribeRequest]:
        said, self._said = self._said, []
        together = SubscribeRequest()
        for subscription_id, subscription in self._open.items():
            if subscription_id in self._resting:
                continue
            acknowledgements, credit = subscription.outgoing(subscription_id)
            together.acknowledgements.extend(acknowledgements)
            if credit is not None:
                together.credits.append(credit)
        if together.acknowledgements or together.credits:
            said.append(together)
        return said

    def received(self, response: SubscribeResponse) -> None:
        # OPENED and GAP say which incarnation the deliveries beside them belong to; BOOKMARK and ENDED come behind
        # these.
        for notice in response.notices:
            if notice.kind in (SubscriptionNotice.KIND_OPENED, SubscriptionNotice.KIND_GAP):
                self._noticed(notice)
        for delivery in response.deliveries:
            subscription = self._open.get(delivery.subscription_id)
            if subscription is not None:
                subscription.delivered(delivery)
        for notice in response.notices:
            if notice.kind in (SubscriptionNotice.KIND_BOOKMARK, SubscriptionNotice.KIND_ENDED):
                self._noticed(notice)

    def _noticed(self, notice: SubscriptionNotice) -> None:
        subscription = self._open.get(notice.subscription_id)
        if subscription is None:
            if notice.kind == SubscriptionNotice.KIND_ENDED:
                self._all_gone([notice.subscription_id])
            return  # closed meanwhile
        if notice.kind == SubscriptionNotice.KIND_ENDED:
            self._ended(notice.subscription_id, subscription, failure_from(notice.error))
        else:
            subscription.noticed(notice)

    def _all_gone(self, subscription_ids: Iterable[int]) -> None:
        for subscription_id in list(subscription_ids):
            closed = self._closing.pop(subscription_id, None)
            if closed is not None:
                closed.gone()

    def lost(self, error: TrunklineError) -> None:
        self._all_gone(self._closing)
        if not is_transient(error):
            for subscription_id, subscription in list(self._open.items()):
                del self._open[subscription_id]
                subscription.ended(error)
        if not self._open:
            self._stream.rest()

    def _ended(self, subscription_id: int, subscription: Subscription, error: TrunklineError) -> None:
        del self._open[subscription_id]
        if not is_transient(error):
            subscription.ended(error)
            return
        if isinstance(error, SubscriptionMoved):
            subscription.moved()
        log.info("subscription put off", extra={"subscription": subscription.name, "error": str(error)})
        self._last_id += 1
        self._open[self._last_id] = subscription
        self._resting.add(self._last_id)
        asyncio.get_running_loop().call_later(self._backoff.next_s(), self._open_again, self._last_id)

    def _open_again(self, subscription_id: int) -> None:
        if subscription_id in self._resting and subscription_id in self._open:
            self._resting.discard(subscription_id)
            self._said.extend(self._open[subscription_id].opening(subscription_id))
            self._stream.wake()
