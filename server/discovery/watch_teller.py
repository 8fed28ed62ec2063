"""Tells watches what the registry did: steps in, encoded events out to the connections' sinks, in bounded slices.

A step is computed once per group of equal watches; telling one watch appends a reference to its connection. A watch
without credit, or on a full connection, is left behind and later catches up from the latest state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from trunkline.core.clock import Clock

from ..registry.changes import RegistryStep, Transition, transitions
from . import wire
from .tokens import TokenMaker
from .watch import NEEDS_SNAPSHOT, Watch, WatchConnection
from .watch_config import WatchConfig
from .watch_counts import WatchCounts
from .watch_group import RESYNC, Changed, WatchGroup
from .watch_groups import WatchGroups

Job = Iterator[int]
"""Work in slices: each item is what the slice cost, in watches told."""

Concerned = tuple[WatchGroup, Changed, Sequence[str]]
"""A group, what a step did to its instances, and the services whose policies it touched."""

GROUP_COST = 10
"""Computing one group's event, in watches told."""
ENCODE_COST = 8
"""Encoding one instance or policy, in watches told."""
BYTES_PER_COST = 512
"""Putting so many bytes of encoded instances together takes as long as telling one watch."""


class WatchTeller:
    """Knows who is up to date and who has to catch up. `on_work` is called when there is work left for `work`.

    No asyncio and no I/O but the sinks' `offer`, which does not wait.
    """

    def __init__(
        self,
        groups: WatchGroups,
        tokens: TokenMaker,
        encoded: wire.EncodedInstances,
        *,
        clock: Clock,
        config: WatchConfig,
        on_work: Callable[[], None],
    ) -> None:
        self.groups = groups
        self.counts = WatchCounts()
        self.revision = 0
        """The registry's."""
        self.settled = 0
        """Every step up to here has been told to all live watches."""
        self._tokens = tokens
        self._encoded = encoded
        self._clock = clock
        self._config = config
        self._on_work = on_work
        self._jobs: deque[tuple[Job, bool]] = deque()
        """In order; the flag says that it tells a step."""
        self.steps = 0
        """Steps that have not been told to everybody yet."""
        self._catching: deque[Watch] = deque()
        self._policies_made = 0
        """For parts of snapshots, so far."""
        self._gathered = 0
        """Bytes of all frames so far, but those of `_tell`: what the rest of the work is weighed by."""
        self._dirty: list[WatchConnection] = []
        self._header = b""
        self._header_revision = -1

    # What happens to the registry.

    def apply(self, step: RegistryStep, touched: Sequence[tuple[str, str]] = ()) -> None:
        """The registry has taken a step, which touched these policies; a first slice of watches is told at once."""
        self.revision = step.revision
        concerned: list[Concerned] = [(group, changed, ()) for group, changed in self._concerned(step)]
        if touched:
            concerned = self._with_policies(concerned, touched)
        if self.steps >= self._config.backlog_steps_max:
            self._leave_all_behind()
        if concerned or self.steps:
            self._jobs.append((self._fan_out(step.revision, concerned), True))
            self.steps += 1
            self.work()
        else:
            self.settled = step.revision

    def _concerned(self, step: RegistryStep) -> list[tuple[WatchGroup, Changed]]:
        """The groups whose scope holds a service that the step touched."""
        groups = self.groups
        found: list[tuple[WatchGroup, Changed]] = []
        by_namespace: dict[str, list[tuple[str, Mapping[str, Transition]]]] = {}
        watched = [change for change in step.changes if groups.concern(change.namespace, change.service)]
        for (namespace, service), of_service in transitions(watched).items():
            changed = (service, of_service)
            by_namespace.setdefault(namespace, []).append(changed)
            found.extend((group, (changed,)) for group in groups.of_service(namespace, service))
        for namespace, of_namespace in by_namespace.items():
            for group in groups.of_every_service(namespace):
                group.note(step.revision, [service for service, _ in of_namespace])
                found.append((group, of_namespace))
        return found

    def _with_policies(self, concerned: Sequence[Concerned], touched: Sequence[tuple[str, str]]) -> list[Concerned]:
        """The same, and the groups to which policies were touched, with the services whose they are."""
        changes = {group: changed for group, changed, _ in concerned}
        policies: dict[WatchGroup, list[str]] = {group: [] for group in changes}
        for namespace, service in touched:
            for group in self.groups.of_policy(namespace, service):
                policies.setdefault(group, []).append(service)
        return [(group, changes.get(group, ()), services) for group, services in policies.items()]

    def _fan_out(self, revision: int, concerned: Sequence[Concerned]) -> Job:
        now_ns = self._clock.now_ns()
        for group, changed, touched in concerned:
            body = group.delta(revision, changed, touched)
            # Who starts over has thousands of items in the snapshot that there was: giving them back takes some ms, too.
            yield self._config.slice_watches if body == RESYNC else GROUP_COST + (ENCODE_COST if touched else 0)
            if body is None:
                continue
            yield from self._tell(group, revision, body, now_ns)
        self.settled = revision

    def _tell(self, group: WatchGroup, revision: int, body: bytes, now_ns: int) -> Job:
        """Append an event to every member that is up to date. The hot path: 10,000 watches run through it."""
        members = tuple(group.members)
        mark = (revision, now_ns)
        size = len(body)
        frames: dict[int, bytes] = {}  # clients count their watches from 1, so most frames are shared too
        for start in range(0, len(members), self._config.slice_watches):
            told = 0
            for watch in members[start : start + self._config.slice_watches]:
                if not watch.live or watch.covered >= revision:
                    continue  # it catches up, or did so already, from a state that has this change
                connection = watch.connection
                unacked = watch.unacked
                if connection.blocked or len(unacked) >= watch.credit or not body:
                    self._leave_behind(watch, now_ns)
                    continue
                frame = frames.get(watch.id)
                if frame is None:
                    frame = frames[watch.id] = wire.event(watch.id, body)
                pieces = connection.pieces
                if not pieces:
                    self._dirty.append(connection)
                    pieces.append(self._response_header())
                pieces.append(frame)
                unacked.append(mark)
                watch.covered = revision
                watch.told_ns = now_ns
                told += 1
                connection.bytes += size
                if connection.bytes > self._config.offer_bytes_max:
                    self.flush(connection)
            self.counts.events += told
            yield min(self._config.slice_watches, len(members) - start)

    def _leave_behind(self, watch: Watch, now_ns: int) -> None:
        """It is not told step by step any more: it will catch up when it can."""
        watch.live = False
        watch.covered = max(watch.covered, self.settled)
        watch.behind_since_ns = now_ns
        self.counts.left_behind += 1
        if watch.has_credit and not watch.connection.blocked:
            self.catch_up(watch)

    def _leave_all_behind(self) -> None:
        """Steps come faster than they can be told: let everyone catch up from the latest state."""
        now_ns = self._clock.now_ns()
        self._jobs = deque(entry for entry in self._jobs if not entry[1])
        self.steps = 0
        for group in self.groups:
            for watch in group.members:
                if watch.live:
                    self._leave_behind(watch, now_ns)
        self.settled = self.revision
        self.counts.backlogs_dropped += 1

    # Work in slices.

    @property
    def has_work(self) -> bool:
        """Whether `work` would do something."""
        return bool(self._jobs or self._catching)

    def work(self) -> bool:
        """Do one slice; True when there is more."""
        budget = self._config.slice_watches
        while budget > 0 and (self._jobs or self._catching):
            if self._jobs:
                cost = next(self._jobs[0][0], None)
                if cost is None:
                    _, is_step = self._jobs.popleft()
                    self.steps -= is_step
                else:
                    budget -= cost
            if self._catching and budget > 0:
                budget -= self._catch_up_one()
        self.flush_all()
        if self.has_work:
            self._on_work()
            return True
        return False

    def add_job(self, job: Job) -> None:
        """Do this after what is queued, slice by slice."""
        self._jobs.append((job, False))
        self._on_work()

    def catch_up(self, watch: Watch) -> None:
        """The watch may have become able to go on."""
        if not watch.queued:
            watch.queued = True
            self._catching.append(watch)
            self._on_work()

    def _catch_up_one(self) -> int:
        """Take the next watch a step further; returns the cost."""
        watch = self._catching.popleft()
        watch.queued = False
        if watch.live or watch.closed or watch.connection.blocked:
            return 1
        encoded, gathered = self._encoded.made + self._policies_made, self._gathered
        if watch.snapshot is not None or not self._catch_up_by_event(watch):
            self._send_part(watch)
        encoded, gathered = self._encoded.made + self._policies_made - encoded, self._gathered - gathered
        return GROUP_COST + ENCODE_COST * encoded + gathered // BYTES_PER_COST

    def _catch_up_by_event(self, watch: Watch) -> bool:
        """One event with all that it missed, if that is possible; else its snapshot is ready to be sent."""
        if not watch.has_credit:
            return True  # its acknowledgement brings it back
        body: bytes | None = RESYNC
        if watch.covered != NEEDS_SNAPSHOT:
            body = watch.group.since(watch.covered, self.revision)
        if body != RESYNC:
            self._caught_up(watch, body)
            return True
        watch.snapshot = watch.group.snapshot(self.revision, watch.covered)
        watch.part = 0
        self.counts.snapshots += 1
        return False

    def _caught_up(self, watch: Watch, body: bytes | None) -> None:
        """It goes on step by step, after an event with all that it missed."""
        if body is not None:
            self._send(watch, self.revision, body)
        elif watch.greet:
            self.send_bookmark(watch, self.revision)
        watch.greet = False
        watch.covered = self.revision
        watch.live = True

    def _send_part(self, watch: Watch) -> None:
        snapshot = watch.snapshot
        assert snapshot is not None
        looked_at = snapshot.policies_looked_at
        body = snapshot.part(watch.part)
        self._policies_made += snapshot.policies_looked_at - looked_at
        if body is not None and not snapshot.is_last(watch.part):
            watch.part += 1
            self._put(watch, body)
        elif body is not None:
            watch.snapshot = None
            watch.greet = False
            watch.covered = snapshot.revision
            self._send(watch, snapshot.revision, body)
        self.flush(watch.connection)
        if watch.snapshot is None and snapshot.revision == self.revision:
            watch.live = True
        else:
            self.catch_up(watch)

    # Writing.

    def _send(self, watch: Watch, revision: int, body: bytes) -> None:
        """An event that takes credit."""
        watch.unacked.append((revision, self._clock.now_ns()))
        watch.covered = revision
        self._put(watch, body)

    def tell_revision(self, watch: Watch) -> None:
        """Somebody waits for this watch: tell it how far it is, or have that told when it has caught up."""
        if watch.live and not watch.connection.blocked:
            self.send_bookmark(watch, self.settled)
            return
        watch.greet = True
        if watch.live:
            self._leave_behind(watch, self._clock.now_ns())

    def send_bookmark(self, watch: Watch, revision: int) -> None:
        """Tell a live watch that nothing concerned it up to here. Takes no credit."""
        watch.covered = revision
        self._put(watch, watch.group.bookmark(revision))
        self.counts.bookmarks += 1

    def _put(self, watch: Watch, body: bytes) -> None:
        watch.told_ns = self._clock.now_ns()
        self.counts.events += 1
        self.put(watch.connection, wire.event(watch.id, body))

    def put(self, connection: WatchConnection, frame: bytes) -> None:
        """Gather an event for a connection; it leaves with the next slice."""
        if not connection.pieces:
            self._dirty.append(connection)
            connection.pieces.append(self._response_header())
        connection.pieces.append(frame)
        connection.bytes += len(frame)
        self._gathered += len(frame)
        if connection.bytes > self._config.offer_bytes_max:
            self.flush(connection)

    def flush_all(self) -> None:
        """Offer what was gathered."""
        for connection in self._dirty:
            self.flush(connection)
        self._dirty.clear()

    def flush(self, connection: WatchConnection) -> None:
        """Offer what was gathered for a connection; a full sink leaves it blocked."""
        pieces = connection.pieces
        if not pieces:
            return
        connection.pieces = []
        connection.bytes = 0
        if not connection.closed and not connection.sink.offer(pieces):
            connection.blocked = True

    def _response_header(self) -> bytes:
        if self._header_revision != self.revision:
            self._header_revision = self.revision
            self._header = wire.header(self._tokens.journal_id, self._tokens.incarnation, self.revision)
        return self._header
