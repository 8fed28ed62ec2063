"""Events whose handling goes wrong, and the subscriptions that take them: what both clients and judges know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from simulation.chance import between, happens
from simulation.clients import DEAD_LETTERS, Client

from trunkline.api import convert
from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.client._event import Event
from trunkline.core.clock import Rng

FATES: Final = (("fine", 50), ("flaky", 20), ("doomed", 12), ("unwanted", 8), ("silent", 10))
"""What becomes of an event in the subscription CLINIC, and of how many in a hundred: it is acknowledged, refused half of the
time until there are no more faults, always refused, terminated, never settled in time."""
KEYS: Final = (
    ("well-0", 20),
    ("well-1", 20),
    ("well-2", 15),
    ("well-3", 10),
    ("stuck-0", 12),
    ("stuck-1", 12),
    ("sick", 11),
)
"""The lanes of LANES, and how many in a hundred events have each key."""
WELL: Final = "well"
"""Events of these keys are acknowledged at once."""


EXPIRES_PERCENT: Final = 20
EXPIRES_S: Final = (0.1, 4.0)
"""Of so many events in a hundred the time is up so soon."""


class Taken(NamedTuple):
    """A subscription as it is made, so that judges can hold it to that."""

    name: str
    max_deliveries: int
    ack_deadline_s: float
    ordering: Literal["parallel", "keyed"] = "parallel"
    backoff_s: tuple[float, ...] = ()
    dead_letter_stream: str = DEAD_LETTERS
    fate: str = ""
    """Of the events that it takes; empty takes all."""

    def takes(self, event: CloudEvent) -> bool:
        """Whether it is one of them."""
        return not self.fate or fate_of(event) == self.fate


CLINIC: Final = Taken("clinic", max_deliveries=3, ack_deadline_s=1.0, backoff_s=(0.05, 0.3))
LANES: Final = Taken("lanes", max_deliveries=3, ack_deadline_s=1.0, ordering="keyed")
CHOSEN: Final = Taken("chosen", max_deliveries=3, ack_deadline_s=1.0, backoff_s=(0.5, 1.5), fate="fine")
"""Filters by attribute, and puts events off until their time is up."""
TAKEN: Final = (CLINIC, LANES, CHOSEN)
HOOK: Final = Taken("hook", max_deliveries=4, ack_deadline_s=1.0)
"""Goes to a webhook."""
MOVED: Final = Taken("moved", max_deliveries=100, ack_deadline_s=1.0)
"""Is sought to other places."""


def event_of(client: Client, number: int, wall_ns: int) -> Event:
    """The next event of a publisher. `wall_ns` is what the server's clock shows."""
    attributes: dict[str, str | datetime] = {"fate": _drawn(client.rng, FATES)}
    if happens(client.rng, EXPIRES_PERCENT):
        now = datetime.fromtimestamp(wall_ns // 1_000_000 / 1_000, UTC)
        attributes["expirytime"] = now + timedelta(seconds=between(client.rng, *EXPIRES_S))
    return Event(
        id=f"{client.name}-{number}",
        type="order.placed",
        data=client.rng.bytes(20),
        key=_drawn(client.rng, KEYS),
        attributes=attributes,
    )


def _drawn(rng: Rng, chances: tuple[tuple[str, int], ...]) -> str:
    left = rng.below(sum(percent for _, percent in chances))
    for name, percent in chances:
        if left < percent:
            return name
        left -= percent
    raise AssertionError("the chances do not add up")


def text_of(event: CloudEvent, name: str) -> str:
    """An attribute; empty if it has none."""
    return event.attributes[name].ce_string if name in event.attributes else ""


def fate_of(event: CloudEvent) -> str:
    """What the consumers of CLINIC do with it."""
    return text_of(event, "fate")


def expires_ns(event: CloudEvent) -> int | None:
    """When its time is up; None if never."""
    if "expirytime" not in event.attributes:
        return None
    return convert.time_ns_from(event.attributes["expirytime"].ce_timestamp)


def key_of(event: CloudEvent) -> str:
    """Its lane in LANES."""
    return text_of(event, "partitionkey")
