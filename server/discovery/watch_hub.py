"""All watches of a node: opened, acknowledged and cancelled by their clients, and told what the registry does.

No asyncio in here: `watch_loop` gives it its turns, and sinks take what it says without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trunkline.api.status import failure_to
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import InvalidArgument, LimitExceeded, RevisionInFuture, TrunklineError
from trunkline.core.selector import Selector

from ..registry.changes import RegistryStep
from . import wire
from .applied import AppliedTracker, AppliedWait, LateWatcher
from .policy_view import NoPolicies, PolicyView
from .registry_view import RegistryView
from .tokens import TokenMaker
from .watch import EventSink, Watch, WatchConnection
from .watch_config import CREDIT_DEFAULT, CREDIT_MAX, WatchConfig
from .watch_counts import WatchCounts
from .watch_group import Scope
from .watch_groups import WatchGroups
from .watch_teller import Job, WatchTeller


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOrder:
    """What a client asks for when it opens a watch."""

    watch_id: int
    namespace: str
    service: str = ""
    """Empty watches every service of the namespace."""
    selector: Selector
    resume_token: bytes = b""
    credit: int = 0
    client: str = ""


class WatchHub:
    """Every method is quick or does a bounded slice and leaves the rest to `work`, announced by `on_work`."""

    def __init__(
        self,
        registry: RegistryView,
        tokens: TokenMaker,
        *,
        clock: Clock,
        rng: Rng,
        on_work: Callable[[], None],
        encoded: wire.EncodedInstances,
        config: WatchConfig,
        policies: PolicyView | None = None,
    ) -> None:
        self.config = config
        self._policies: PolicyView = NoPolicies() if policies is None else policies
        self._clock = clock
        self._rng = rng
        self._encoded = encoded
        self._tokens = tokens
        self._groups = WatchGroups(registry, self._policies, encoded, tokens, config)
        self._teller = WatchTeller(self._groups, tokens, encoded, clock=clock, config=config, on_work=on_work)
        self._applied = AppliedTracker(config)
        self._connections: dict[WatchConnection, None] = {}
        self._skipped = -1
        """The last revision at which records were skipped."""
        self._buckets: list[dict[Watch, None]] = [{} for _ in range(config.buckets)]
        self._bucket = 0
        self._visiting = False
        self._staleness_ns = 0
        """The furthest that any watch is behind, of those visited in this round."""

    @property
    def counts(self) -> WatchCounts:
        """For metrics and status."""
        return self._teller.counts

    @property
    def revision(self) -> int:
        """The registry's."""
        return self._teller.revision

    @property
    def waits(self) -> int:
        """How many callers wait for watchers."""
        return len(self._applied)

    @property
    def backlog_steps(self) -> int:
        """Registry steps that have not been told to everybody yet."""
        return self._teller.steps

    def begin(self, revision: int) -> None:
        """The registry is loaded and stands at this revision. Before any watch is opened."""
        assert not self._connections
        self._teller.revision = self._teller.settled = revision

    def apply(self, step: RegistryStep) -> None:
        """The registry has taken a step: tell a first slice of watches at once."""
        if step.skipped:
            self._skipped = step.revision
        for change in step.changes:
            if change.after is None:
                self._encoded.forget(change.namespace, change.service, change.instance_id)
        self._applied.note(step.changes)
        self._teller.apply(step, self._policies.take_touched())

    def work(self) -> bool:
        """Do a slice of what is to be done; True when there is more."""
        return self._teller.work()

    # Connections.

    def connect(self, sink: EventSink, client: str) -> WatchConnection:
        """A stream begins. `client` names its watches that have no name. LimitExceeded when there are too many."""
        if len(self._connections) >= self.config.connections_max:
            raise LimitExceeded("watch_connections_max", self.config.connections_max)
        connection = WatchConnection(sink, client)
        self._connections[connection] = None
        self.counts.connections += 1
        sink.on_ready(lambda: self._ready(connection))
        return connection

    def disconnect(self, connection: WatchConnection) -> None:
        """The stream is over, whatever ended it: its watches go, and nobody waits for them."""
        if connection.closed:
            return
        connection.closed = True
        for watch in tuple(connection.watches.values()):
            self._close(watch)
        del self._connections[connection]
        self.counts.connections -= 1

    def _ready(self, connection: WatchConnection) -> None:
        """The sink takes more: those that lag go on."""
        connection.blocked = False
        for watch in connection.watches.values():
            if not watch.live:
                self._teller.catch_up(watch)

    # What clients say.

    def open(self, connection: WatchConnection, order: WatchOrder) -> None:
        """Begin a watch: with what changed since its token, or with a snapshot. A refusal ends that watch alone."""
        try:
            self._open(connection, order)
        except TrunklineError as refusal:
            self._end(connection, order.watch_id, refusal)

    def _open(self, connection: WatchConnection, order: WatchOrder) -> None:
        taken = connection.watches.get(order.watch_id)
        if taken is not None:
            self._close(taken)
            raise InvalidArgument.of(
                "open.watch_id", "unique on the stream; the watch that had it is ended too", taken.id
            )
        if not 0 <= order.credit <= CREDIT_MAX:
            raise InvalidArgument.of("open.credit", f"at most {CREDIT_MAX}", order.credit)
        if len(connection.watches) >= self.config.watches_per_connection_max:
            raise LimitExceeded("watches_per_connection_max", self.config.watches_per_connection_max)
        if self.counts.watches >= self.config.watches_max:
            raise LimitExceeded("watches_max", self.config.watches_max)
        scope = Scope(order.namespace, order.service, order.selector)
        resumed = self._tokens.decode(order.resume_token, scope.key, self.revision) if order.resume_token else None
        group = self._groups.of(scope)
        watch = Watch(
            order.watch_id,
            connection,
            group,
            credit=order.credit or CREDIT_DEFAULT,
            client=order.client or connection.client,
        )
        if resumed is not None:
            watch.covered = watch.acked = resumed
            watch.greet = True
        self._join(watch)

    def _join(self, watch: Watch) -> None:
        now_ns = self._clock.now_ns()
        watch.told_ns = watch.behind_since_ns = now_ns
        watch.connection.watches[watch.id] = watch
        watch.group.members[watch] = None
        watch.bucket = self._rng.below(len(self._buckets))
        self._buckets[watch.bucket][watch] = None
        self.counts.watches += 1
        self._applied.joined(watch)
        self._teller.catch_up(watch)

    def acknowledge(self, connection: WatchConnection, watch_id: int, revision: int) -> None:
        """The client has applied a revision. A watch that is not there is passed over: its end was on the way."""
        watch = connection.watches.get(watch_id)
        if watch is None:
            return
        if revision > self._teller.revision:
            self._close(watch)
            refusal = RevisionInFuture(f"acknowledged revision {revision}, the registry is at {self.revision}")
            self._end(connection, watch_id, refusal)
            return
        revision = min(revision, watch.covered)
        unacked = watch.unacked
        while unacked and unacked[0][0] <= revision:
            unacked.popleft()
        if revision > watch.acked:
            watch.acked = revision
            if watch.waits:
                self._applied.acknowledged(watch)
        if not watch.live:
            self._teller.catch_up(watch)

    def set_credit(self, connection: WatchConnection, watch_id: int, credit: int) -> None:
        """How many events may stand unacknowledged from now on."""
        watch = connection.watches.get(watch_id)
        if watch is None:
            return
        if not 1 <= credit <= CREDIT_MAX:
            self._close(watch)
            self._end(connection, watch_id, InvalidArgument.of("credit.credit", f"1 to {CREDIT_MAX}", credit))
            return
        watch.credit = credit
        if not watch.live:
            self._teller.catch_up(watch)

    def cancel(self, connection: WatchConnection, watch_id: int) -> None:
        """The client wants no more of it; ENDED without an error says that the id is free again."""
        watch = connection.watches.get(watch_id)
        if watch is not None:
            self._close(watch)
            self._teller.put(connection, wire.ended(watch_id, self.revision, None))
            self._teller.flush(connection)

    def refuse(self, connection: WatchConnection, watch_id: int, refusal: TrunklineError) -> None:
        """Something about this watch's command is not allowed: it ends, the others go on."""
        watch = connection.watches.get(watch_id)
        if watch is not None:
            self._close(watch)
        self._end(connection, watch_id, refusal)

    def _end(self, connection: WatchConnection, watch_id: int, refusal: TrunklineError) -> None:
        self.counts.ended += 1
        self._teller.put(connection, wire.ended(watch_id, self.revision, failure_to(refusal)))
        self._teller.flush(connection)

    def _close(self, watch: Watch) -> None:
        watch.closed = True
        watch.live = False
        watch.snapshot = None
        del watch.connection.watches[watch.id]
        del watch.group.members[watch]
        del self._buckets[watch.bucket][watch]
        self._groups.drop_if_empty(watch.group)
        self.counts.watches -= 1
        self._applied.left(watch)

    # Bookmarks.

    def tick(self) -> None:
        """Look through the next bucket of watches, once every `tick_ms`: who has been told nothing for too long?"""
        if not self._visiting:
            self._visiting = True
            self._teller.add_job(self._visit(tuple(self._buckets[self._bucket])))
            self._bucket = (self._bucket + 1) % len(self._buckets)
            self._teller.work()

    def _visit(self, watches: Sequence[Watch]) -> Job:
        """Queued behind the steps before it: what a bookmark covers has been told."""
        # A watch is visited five times in an interval: it is told at the visit nearest to the interval's end.
        silent_ns = self.config.bookmark_interval_ms * 1_000_000 - self.config.visit_interval_ns // 2
        for start in range(0, len(watches), self.config.slice_watches):
            now_ns = self._clock.now_ns()
            settled = self._teller.settled
            for watch in watches[start : start + self.config.slice_watches]:
                self._staleness_ns = max(self._staleness_ns, watch.staleness_ns(now_ns))
                if not watch.live or watch.connection.blocked or watch.covered > settled:
                    continue
                if now_ns - watch.told_ns >= silent_ns or watch.covered < self._skipped <= settled:
                    self._teller.send_bookmark(watch, settled)
            yield min(self.config.slice_watches, len(watches) - start)
        self._visiting = False
        if self._bucket == 0:
            self.counts.staleness_ns_max = self._staleness_ns
            self._staleness_ns = 0

    # Who has applied what.

    def begin_wait(
        self, namespace: str, service: str, instance_id: str | None, revision: int, on_done: Callable[[], None]
    ) -> AppliedWait:
        """Wait for those that could route to the instance, or for all of the service or namespace, to apply a revision.

        Those that had nothing to be told get a bookmark at once. Raises RevisionInFuture, LimitExceeded.
        """
        if revision > self.revision:
            raise RevisionInFuture(f"revision {revision} is waited for, the registry is at {self.revision}")
        scope = self._applied.scope(namespace, service, instance_id)
        wait = self._applied.open(scope, revision, groups=self._groups, now_ns=self._clock.now_ns(), on_done=on_done)
        if wait.pending:
            self._teller.add_job(self._nudge(wait))
        return wait

    def end_wait(self, wait: AppliedWait) -> tuple[LateWatcher, ...]:
        """Stop waiting; those that are late."""
        late = wait.late(self._clock.now_ns())
        self._applied.close(wait)
        return late

    def _nudge(self, wait: AppliedWait) -> Job:
        """Queued behind the steps before it, so that everything up to the revision has been told when it runs."""
        for cost, watch in enumerate(tuple(wait.pending), start=1):
            if watch.covered < wait.revision:
                self._teller.tell_revision(watch)
            if cost % self.config.slice_watches == 0:
                yield self.config.slice_watches
