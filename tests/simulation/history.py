"""What happened: every fact that the judges need, each with the time at which it was seen."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from guarantees import Seen

from trunkline.api.v1 import schedules_pb2
from trunkline.api.v1.events_pb2 import CloudEvent
from trunkline.core.selector import Selector


class AckedEvent(NamedTuple):
    """A publish that was answered."""

    at_s: float
    stream: str
    incarnation: int
    offset: int
    duplicate: bool
    event: CloudEvent


class AckedRegistration(NamedTuple):
    """A Register that was answered."""

    key: str
    lease_id: int
    revision: int
    changed: bool


class AckedRemoval(NamedTuple):
    """A Deregister that was answered with `changed`: the lease was gone at this revision at the latest."""

    lease_id: int
    revision: int


class Scheduled(NamedTuple):
    """A schedule, and when its making was answered."""

    at_s: float
    schedule: schedules_pb2.Schedule


@dataclass(eq=False)
class Sought:
    """A subscription was to be moved."""

    asked_s: float
    subscription: str
    offset: int | None
    """Where to; None for the stream's end."""
    answered: bool = False


@dataclass(eq=False)
class Redelivery:
    """Events were to be delivered again."""

    asked_s: float
    subscription: str
    offsets: tuple[int, ...]
    again: tuple[int, ...] = ()
    """What the answer says will be delivered again."""


class AckedDrain(NamedTuple):
    """A Drain that was answered."""

    lease_id: int
    revision: int


class Delivered(NamedTuple):
    """A delivery that came to a client."""

    at_s: float
    stream: str
    subscription: str
    consumer: str
    incarnation: int
    offset: int
    attempt: int
    event: CloudEvent


@dataclass(eq=False)
class Watched:
    """What one watch showed."""

    name: str
    service: str
    selector: Selector
    seen: list[Seen] = field(default_factory=list)


class Resumption(NamedTuple):
    """A watch went on from a token: what it had shown when it got that, and what it showed then."""

    before: Seen | None
    after: list[Seen]


class History:
    """One world's. `note` also goes into the digest by which two runs are compared."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, str], CloudEvent] = {}
        """By source and id, every event that came to the server's machine."""
        self.events: list[AckedEvent] = []
        self.registrations: list[AckedRegistration] = []
        self.removals: list[AckedRemoval] = []
        self.drains: list[AckedDrain] = []
        self.deliveries: list[Delivered] = []
        self.closed_clean: set[tuple[str, str]] = set()
        """(subscription, consumer) that left in good order: attempts of what it had in hand were taken back."""
        self.handled: dict[str, set[tuple[int, int]]] = defaultdict(set)
        """By subscription, (incarnation, offset) of what a consumer acknowledged."""
        self.heard: dict[int, list[float]] = defaultdict(list)
        """By lease, when a keep-alive came to the server's machine."""
        self.ttl_s: dict[int, float] = {}
        self.scheduled: dict[str, Scheduled] = {}
        """By name, every schedule whose making was answered."""
        self.unscheduled: dict[str, float] = {}
        """By name, when somebody began to delete it."""
        self.seeks: list[Sought] = []
        """In the order in which they came to the server's machine."""
        self.redeliveries: list[Redelivery] = []
        self.died: dict[str, float] = {}
        """By instance key, when its holder was killed."""
        self.watches: list[Watched] = []
        self.resumptions: list[Resumption] = []
        self.broken: list[str] = []
        """What was seen to be broken while it happened."""
        self.reached: Counter[tuple[str, str]] = Counter()
        """Cells of the matrix fault x operation."""
        self.lines: list[str] = []
        self._digest = hashlib.sha256()

    def note(self, *what: object) -> None:
        """Write a line."""
        line = f"{asyncio.get_running_loop().time():10.6f} " + " ".join(map(str, what))
        self._digest.update(line.encode())
        self.lines.append(line)

    @property
    def digest(self) -> str:
        """Equal for equal histories."""
        return self._digest.hexdigest()

    def breaks(self, guarantee: str, what: str) -> None:
        """A promise was broken before our eyes."""
        self.broken.append(f"{guarantee}: {what}")
