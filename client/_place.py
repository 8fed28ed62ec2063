"""Where a subscription stands in its stream, as far as its deliveries' words go."""

from __future__ import annotations

from typing import Protocol

from trunkline.api.v1.events_pb2 import Acknowledgement

from ._delivery import Delivery


class Speaks(Protocol):
    """The subscription, from here."""

    def say(
        self,
        place: Place,
        delivery: Delivery,
        outcome: Acknowledgement.Outcome.ValueType,
        *,
        delay_ms: int | None,
        reason: str,
    ) -> None: ...


class Place:
    """Settles deliveries as long as the subscription stands where it was when they came: offsets may mean other events
    after that, or the same ones anew."""

    def __init__(self, subscription: Speaks) -> None:
        self._subscription = subscription

    def say(
        self,
        delivery: Delivery,
        outcome: Acknowledgement.Outcome.ValueType,
        *,
        delay_ms: int | None = None,
        reason: str = "",
    ) -> None:
        """See Settler."""
        self._subscription.say(self, delivery, outcome, delay_ms=delay_ms, reason=reason)
