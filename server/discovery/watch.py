"""One client's watch, and the connection that carries it. Values that the hub moves; no decisions here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .applied import AppliedWait
    from .watch_group import WatchGroup
    from .watch_snapshot import WatchSnapshot

NEEDS_SNAPSHOT = -1
"""`covered` of a watch that has been told nothing yet that changes could be added to."""

NEVER = -1
"""`acked` of a watch whose client has acknowledged nothing."""


class EventSink(Protocol):
    """What a connection writes to."""

    @property
    def ready(self) -> bool:
        """Whether it takes more."""

    def offer(self, data: bytes | Sequence[bytes]) -> bool:
        """Take encoded pieces of one message; False when it is full and wants to be left alone until ready."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call when it takes more again."""


class WatchConnection:
    """One stream and its watches."""

    __slots__ = ("blocked", "bytes", "client", "closed", "pieces", "sink", "watches")

    def __init__(self, sink: EventSink, client: str) -> None:
        self.sink = sink
        self.client = client
        """Names a watch that does not name its client."""
        self.watches: dict[int, Watch] = {}
        self.pieces: list[bytes] = []
        """Gathered in this slice, not yet offered."""
        self.bytes = 0
        self.blocked = False
        """The sink is full: its watches lag until it is ready."""
        self.closed = False


class Watch:
    """What one watch has been told and has applied.

    It is `live` while every step is told to it as it comes. Otherwise it catches up, with a snapshot or with one event
    that takes it from what it was told last to the latest state.
    """

    __slots__ = (
        "acked",
        "behind_since_ns",
        "bucket",
        "client",
        "closed",
        "connection",
        "covered",
        "credit",
        "greet",
        "group",
        "id",
        "live",
        "part",
        "queued",
        "snapshot",
        "told_ns",
        "unacked",
        "waits",
    )

    def __init__(
        self, watch_id: int, connection: WatchConnection, group: WatchGroup, *, credit: int, client: str
    ) -> None:
        self.id = watch_id
        self.connection = connection
        self.group = group
        self.credit = credit
        self.client = client
        self.covered = NEEDS_SNAPSHOT
        """Everything up to this revision is in what was sent."""
        self.acked = NEVER
        """The client says that it has applied this revision."""
        self.unacked: deque[tuple[int, int]] = deque()
        """(revision, when) of events sent and not acknowledged; at most `credit` of them."""
        self.live = False
        self.closed = False
        self.behind_since_ns = 0
        """When it stopped being live."""
        self.told_ns = 0
        """When it was last sent anything."""
        self.snapshot: WatchSnapshot | None = None
        """The snapshot that is being sent, from `part` on."""
        self.part = 0
        self.queued = False
        """It stands in the queue of those that catch up."""
        self.greet = False
        """It resumed: tell it something even if nothing has changed."""
        self.bucket = 0
        self.waits: list[AppliedWait] = []
        """Who waits for its acknowledgement."""

    @property
    def has_credit(self) -> bool:
        """Whether another event may be sent."""
        return len(self.unacked) < self.credit

    def staleness_ns(self, now_ns: int) -> int:
        """How long ago the oldest thing happened that the client has not said it applied; 0 when it is up to date."""
        if self.unacked:
            return max(0, now_ns - self.unacked[0][1])
        return 0 if self.live else max(0, now_ns - self.behind_since_ns)
