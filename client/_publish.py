"""Publishing: one request and its answer, safe to repeat because events are named before the first attempt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trunkline.api.v1 import common_pb2
from trunkline.api.v1.events_pb2 import PublishRequest, PublishResponse, PublishStreamResponse
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Sync

from ._edge import Edge
from ._event import Event, event_to
from ._link import Link

EVENTS_PER_REQUEST_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Durability:
    """What an acknowledgement promises."""

    sync: Sync
    copies: int


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """Where one event is."""

    id: str
    source: str
    offset: int
    duplicate: bool
    """It had been published before, at this offset."""


@dataclass(frozen=True, slots=True)
class Published:
    """The answer to a publish; `events` are in the order of the request."""

    stream: str
    incarnation: int
    """Of the stream: offsets of another one are not comparable."""
    durability: Durability
    events: tuple[PublishedEvent, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """One per event."""
        return tuple(event.offset for event in self.events)

    @property
    def duplicates(self) -> tuple[PublishedEvent, ...]:
        """Those that had been published before."""
        return tuple(event for event in self.events if event.duplicate)


def named_events(events: Event | Iterable[Event], *, source: str, edge: Edge) -> list[Event]:
    """The events with ids and sources, between 1 and EVENTS_PER_REQUEST_MAX of them."""
    given = [events] if isinstance(events, Event) else list(events)
    if not 0 < len(given) <= EVENTS_PER_REQUEST_MAX:
        raise InvalidArgument.of("events", f"between 1 and {EVENTS_PER_REQUEST_MAX} events", len(given))
    return [event.named(source=source, entropy=edge.entropy) for event in given]


def published_from(answer: PublishResponse | PublishStreamResponse, stream: str, events: Sequence[Event]) -> Published:
    """Spread the answer's runs over the events that were asked for."""
    placed = []
    asked = iter(events)
    for run in answer.published:
        for offset, event in zip(range(run.offset, run.offset + run.count), asked, strict=False):
            placed.append(PublishedEvent(event.id, event.source, offset, run.duplicate))
    assert len(placed) == len(events), "the answer does not cover the request"
    durability = Durability(Sync(answer.durability.sync or Sync.MEMORY), answer.durability.copies)
    return Published(stream, answer.incarnation, durability, tuple(placed))


async def publish(
    link: Link, events: Sequence[Event], *, namespace: str, stream: str, require: Sync | None, timeout_s: float | None,
    expected_offset: int | None = None,
) -> Published:  # fmt: skip
    """Append all named events or none; repeated with the same ids until the deadline when the outcome is not known."""
    answer = await link.call(
        lambda stubs: stubs.events.Publish,
        PublishRequest(
            namespace=namespace,
            stream=stream,
            require_sync=sync_to(require),
            expected_offset=expected_offset,
            events=[event_to(event) for event in events],
        ),
        PublishResponse,
        timeout_s=timeout_s,
    )
    return published_from(answer, stream, events)


def sync_to(sync: Sync | None) -> common_pb2.Sync.ValueType:
    """The contract's value; None asks for nothing."""
    return common_pb2.Sync.ValueType(sync or 0)
