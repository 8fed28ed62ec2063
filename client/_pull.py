"""Deliveries on demand: fetched, worked on, and spoken of in one further call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from trunkline.api import convert
from trunkline.api.v1.events_pb2 import (
    Acknowledgement,
    AcknowledgeRequest,
    AcknowledgeResponse,
    FetchRequest,
    FetchResponse,
)

from ._delivery import Delivery, Said
from ._event import event_from
from ._link import Link


@dataclass(frozen=True, slots=True)
class PullPlace:
    """Whose deliveries are fetched."""

    namespace: str
    stream: str
    subscription: str
    client: str


class Fetched:
    """The deliveries of one fetch. What is said of them is sent by `settle()`, which leaving `async with` calls."""

    def __init__(self, link: Link, place: PullPlace) -> None:
        self._link = link
        self._place = place
        self._deliveries: list[Delivery] = []
        self._said = Said()

    async def settle(self, *, sync: bool = False) -> tuple[int, ...]:
        """Send what was said since the last time; with `sync`, return when the control plane has it on disk.

        Returns offsets for which no delivery stood open: acknowledged before, or given to another consumer after the
        deadline.
        """
        acknowledgements = self._said.take(0)
        if not acknowledgements:
            return ()
        answer = await self._link.call(
            lambda stubs: stubs.events.Acknowledge,
            AcknowledgeRequest(
                namespace=self._place.namespace,
                stream=self._place.stream,
                subscription=self._place.subscription,
                acknowledgements=acknowledgements,
                sync=sync,
            ),
            AcknowledgeResponse,
        )
        return tuple(answer.not_open)

    def say(
        self,
        delivery: Delivery,
        outcome: Acknowledgement.Outcome.ValueType,
        *,
        delay_ms: int | None = None,
        reason: str = "",
    ) -> None:
        """See Settler."""
        self._said.add(outcome, delivery.offset, delay_ms=delay_ms, reason=reason)

    def take(self, answer: FetchResponse) -> None:
        """The deliveries that came."""
        for message in answer.deliveries:
            self._deliveries.append(
                Delivery(
                    self,
                    event=event_from(message.event),
                    offset=message.offset,
                    incarnation=0,
                    attempt=message.attempt,
                    time_ns=message.time_ns,
                )
            )

    def __len__(self) -> int:
        return len(self._deliveries)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._deliveries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.settle()


async def fetch(link: Link, place: PullPlace, *, max_events: int, max_bytes: int, wait_s: float) -> Fetched:
    """See Trunkline.fetch."""
    request = FetchRequest(
        namespace=place.namespace,
        stream=place.stream,
        subscription=place.subscription,
        max_events=max_events,
        max_bytes=max_bytes,
        wait=convert.ms_to(int(wait_s * 1_000)),
        client=place.client,
    )
    fetched = Fetched(link, place)
    fetched.take(
        await link.call(lambda stubs: stubs.events.Fetch, request, FetchResponse, timeout_s=wait_s + FETCH_TIMEOUT_S)
    )
    return fetched


FETCH_TIMEOUT_S = 10.0
"""Beyond the wait for the first event."""
