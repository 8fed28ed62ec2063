"""Those who take a subscription's deliveries: over a stream that stays, or with one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from trunkline.core.deliveries import delivery as encoded_delivery
from trunkline.core.deliveries import subscription_prefix
from trunkline.core.errors import TrunklineError

from . import notices
from .delivery import Delivery
from .outlet import Outlet


class Consumer(Protocol):
    """One of those that share the work. `id` is positive for one that is pushed to, negative for one that pulls."""

    id: int
    client: str
    """Its own name for itself, for people; may be empty."""

    @property
    def ready(self) -> bool:
        """Whether to give it more."""

    def put(self, delivery: Delivery, suffix: bytes) -> None:
        """A delivery for it; sent with the next `send`."""

    def send(self) -> None:
        """Send what was put."""

    def flush(self) -> None:
        """Everybody was sent what there is: see Outlet.flush."""

    def gap(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        """Delivery goes on at another place; see notices.gap."""

    def end(self, error: TrunklineError | None) -> None:
        """The subscription ended."""


class PushConsumer:
    """A subscription that a client has open on its Subscribe stream."""

    def __init__(
        self,
        consumer_id: int,
        outlet: Outlet,
        *,
        subscription_id: int,
        client: str,
        on_end: Callable[[], None],
    ) -> None:
        self.id = consumer_id
        self.client = client
        self._outlet = outlet
        self._subscription_id = subscription_id
        self._prefix = subscription_prefix(subscription_id)
        self._pieces: list[bytes] = []
        self._on_end = on_end

    @property
    def ready(self) -> bool:
        return self._outlet.ready

    def put(self, delivery: Delivery, suffix: bytes) -> None:
        self._pieces.append(encoded_delivery(self._prefix, delivery.credit, delivery.attempt, suffix))

    def send(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._outlet.offer(pieces)

    def flush(self) -> None:
        self._outlet.flush()

    def gap(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        self._outlet.offer(notices.gap(self._subscription_id, old=old, new=new))

    def end(self, error: TrunklineError | None) -> None:
        self._outlet.offer(notices.ended(self._subscription_id, error))
        self._on_end()


class PullConsumer:
    """One Fetch call: takes at most so many deliveries and bytes, and is done with the first `send` that has any."""

    ready = True

    def __init__(self, consumer_id: int, *, client: str, max_bytes: int) -> None:
        self.id = consumer_id
        self.client = client
        self.taken: list[Delivery] = []
        self.left_over: list[Delivery] = []
        """Put after the bytes were used up: to be given back."""
        self.pieces: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room = max_bytes

    def put(self, delivery: Delivery, suffix: bytes) -> None:
        encoded = encoded_delivery(b"", 0, delivery.attempt, suffix)
        self._room -= len(encoded)
        if self.taken and self._room < 0:
            self.left_over.append(delivery)
            return
        self.taken.append(delivery)
        self.pieces.append(encoded)

    def send(self) -> None:
        if self.taken and not self.done.done():
            self.done.set_result(None)

    def flush(self) -> None:
        """The call goes on in a turn of its own."""

    def gap(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        """A puller has no channel for it; the subscription's counts show what was missed."""

    def end(self, error: TrunklineError | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
