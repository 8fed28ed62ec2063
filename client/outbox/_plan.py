"""What a relay does next, and what it makes of every answer. Without I/O: a test stops it between any two steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, TypeAlias

from trunkline.core.cloudevent import EVENT_BYTES_MAX, scan_event
from trunkline.core.errors import InvalidArgument, TrunklineError

READ_BYTES_MAX = EVENT_BYTES_MAX + 1
"""Of one event: more is not read of a row that can only be refused."""
REASON_CHARS_MAX = 1_000
"""Of what is kept beside a failed row."""

LATER_STATUSES = frozenset(
    {"ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"}
)
"""Of errors that say nothing about the events: the same request may succeed a little later."""


class Row(NamedTuple):
    """A committed row that waits. Ids grow in the order of the adds."""

    id: int
    event: bytes
    """A serialized CloudEvent, or the first READ_BYTES_MAX of what is too long."""


class Failed(NamedTuple):
    """A row that can never be published, and why."""

    row: Row
    reason: str


class Read(NamedTuple):
    """Read the first rows that wait, in the order of their ids."""


class Publish(NamedTuple):
    """Publish these together, all or none."""

    rows: tuple[Row, ...]


class Settle(NamedTuple):
    """In one transaction: the published rows wait no more, the failed ones are marked."""

    published: tuple[Row, ...]
    failed: tuple[Failed, ...]


class BackOff(NamedTuple):
    """The bus cannot take it now: wait, then go on with the same rows."""


class Rest(NamedTuple):
    """Nothing waits: sleep until something may."""


Action: TypeAlias = Read | Publish | Settle | BackOff | Rest


class Verdict(Enum):
    """What a failed publish means."""

    LATER = "later"
    """Nothing is wrong with the events, or the outcome is not known: repeat it as it was."""
    INVALID = "invalid"
    """One of the events, at least, breaks a rule."""
    REFUSED = "refused"
    """Not the events but the relay's own request: somebody has to do something (a token, a stream)."""


def verdict_on(error: TrunklineError) -> Verdict:
    """Tell from its class and fields alone."""
    if isinstance(error, InvalidArgument):
        about_events = all(violation.field.startswith("events") for violation in error.violations)
        return Verdict.INVALID if error.violations and about_events else Verdict.REFUSED
    return Verdict.LATER if error.status in LATER_STATUSES else Verdict.REFUSED


class Plan:
    """Rows in hand, in their order, and how far they have come.

    Every method but `next` is the answer to the action of its name. Rows are published in the order in which they were read;
    none is settled before it was acknowledged; the next are read when those in hand are settled. A request with an invalid
    event is repeated in halves until that event stands alone.
    """

    def __init__(self) -> None:
        self._groups: deque[tuple[Row, ...]] = deque()
        self._published: tuple[Row, ...] = ()
        self._failed: tuple[Failed, ...] = ()
        self._is_away = False
        self._is_empty = False

    def next(self) -> Action:
        """The same until it is answered."""
        if self._published or self._failed:
            return Settle(self._published, self._failed)
        if self._is_away:
            return BackOff()
        if self._groups:
            return Publish(self._groups[0])
        return Rest() if self._is_empty else Read()

    def read(self, rows: Iterable[Row]) -> None:
        """They were read; none means that nothing waits."""
        assert not self._groups, "what is in hand comes first"
        checked = [(row, fault_of(row)) for row in rows]
        self._is_empty = not checked
        self._failed = tuple(Failed(row, fault) for row, fault in checked if fault)
        sound = tuple(row for row, fault in checked if not fault)
        if sound:
            self._groups.append(sound)

    def published(self) -> None:
        """The bus has acknowledged them."""
        self._published = self._groups.popleft()

    def unpublished(self) -> None:
        """Not now, or nobody knows."""
        self._is_away = True

    def invalid(self, reason: str) -> None:
        """The bus takes none of them because of one."""
        rows = self._groups.popleft()
        if len(rows) == 1:
            self._failed = (Failed(rows[0], reason[:REASON_CHARS_MAX]),)
            return
        half = len(rows) // 2
        self._groups.extendleft((rows[half:], rows[:half]))

    def settled(self) -> None:
        """The table says so, too."""
        self._published, self._failed = (), ()

    def backed_off(self) -> None:
        """The wait is over."""
        self._is_away = False

    def rested(self) -> None:
        """Something may wait by now."""
        self._is_empty = False

    def forget(self) -> None:
        """The database was lost on the way: what was in hand is read again, and the bus recognises what it has."""
        self.__init__()  # type: ignore[misc]


def fault_of(row: Row) -> str:
    """What is wrong with a row that no bus would take; empty when nothing is."""
    try:
        scan_event(row.event)
    except InvalidArgument as error:
        return str(error)[:REASON_CHARS_MAX]
    return ""
