"""Who has applied a revision: waiting for the watchers that could route to an instance, and naming the late ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trunkline.core.errors import LimitExceeded
from trunkline.core.model import RegisteredInstance

from ..registry.changes import RegistryChange
from .watch import Watch
from .watch_config import WatchConfig
from .watch_group import WatchGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class LateWatcher:
    """A watch that has not told that it applied a revision."""

    client: str
    applied_revision: int
    late_by_ns: int


@dataclass(frozen=True, slots=True)
class AppliedResult:
    """What a wait came to."""

    late: tuple[LateWatcher, ...] = ()
    """Empty when everyone has applied it, or has gone."""

    @property
    def complete(self) -> bool:
        """Nobody is late."""
        return not self.late


@dataclass(frozen=True, slots=True)
class AppliedScope:
    """Whose acknowledgement is waited for. An empty service means every watch of the namespace."""

    namespace: str
    service: str
    before: RegisteredInstance | None = None
    """The instance as it was before the revision; None waits for every watch in scope."""

    def concerns(self, watch: Watch) -> bool:
        """Whether the watch could act on what was there before.

        A watch whose selector did not match the instance could still have it from an earlier time that it has not left.
        """
        scope = watch.group.scope
        if not scope.holds(self.namespace, self.service):
            return False
        before = self.before
        return before is None or watch.acked < before.modified_revision or scope.selector.matches(before)


class AppliedWait:
    """One caller that waits. `on_done` is called once, when nobody is pending any more."""

    def __init__(self, scope: AppliedScope, revision: int, since_ns: int, on_done: Callable[[], None]) -> None:
        self.scope = scope
        self.revision = revision
        self.pending: dict[Watch, None] = {}
        self._since_ns = since_ns
        self._on_done = on_done

    def add(self, watch: Watch) -> None:
        """Wait for this watch too, unless it has applied the revision or is not concerned."""
        if watch.acked < self.revision and self.scope.concerns(watch):
            self.pending[watch] = None
            watch.waits.append(self)

    def settle(self, watch: Watch) -> None:
        """The watch has applied the revision, or is gone."""
        watch.waits.remove(self)
        del self.pending[watch]
        if not self.pending:
            self._on_done()

    def late(self, now_ns: int) -> tuple[LateWatcher, ...]:
        """Those that are still pending, the furthest behind first."""
        found = [
            LateWatcher(
                client=watch.client,
                applied_revision=max(0, watch.acked),
                late_by_ns=max(watch.staleness_ns(now_ns), now_ns - self._since_ns),
            )
            for watch in self.pending
        ]
        return tuple(sorted(found, key=lambda late: (late.applied_revision, late.client)))


class AppliedTracker:
    """The waits that are open, and what instances were like before their last change."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._waits: dict[AppliedWait, None] = {}
        self._recent: OrderedDict[tuple[str, str, str], RegisteredInstance | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waits)

    def note(self, changes: Iterable[RegistryChange]) -> None:
        """Remember what these instances were like before."""
        recent = self._recent
        for change in changes:
            key = (change.namespace, change.service, change.instance_id)
            recent[key] = change.before
            recent.move_to_end(key)
        while len(recent) > self._config.recent_changes_max:
            recent.popitem(last=False)

    def scope(self, namespace: str, service: str, instance_id: str | None) -> AppliedScope:
        """Who has to acknowledge: those that could route to the instance, or everyone if that is not known.

        If it has changed again since the revision that is waited for, what it was like before that is at least as new
        as the revision, and so every watch that has not applied the revision is concerned.
        """
        before = None if instance_id is None else self._recent.get((namespace, service, instance_id))
        return AppliedScope(namespace, service, before)

    def open(
        self,
        scope: AppliedScope,
        revision: int,
        *,
        groups: Iterable[WatchGroup],
        now_ns: int,
        on_done: Callable[[], None],
    ) -> AppliedWait:
        """Begin to wait. LimitExceeded when too many do. Nobody is pending when it is there already."""
        if len(self._waits) >= self._config.waits_max:
            raise LimitExceeded("waits_max", self._config.waits_max)
        wait = AppliedWait(scope, revision, now_ns, on_done)
        for group in groups:
            if group.scope.holds(scope.namespace, scope.service):
                for watch in group.members:
                    wait.add(watch)
        if wait.pending:
            self._waits[wait] = None
        return wait

    def close(self, wait: AppliedWait) -> None:
        """The caller does not wait any more."""
        self._waits.pop(wait, None)
        for watch in wait.pending:
            watch.waits.remove(wait)
        wait.pending.clear()

    def joined(self, watch: Watch) -> Sequence[AppliedWait]:
        """A watch was opened while others wait: perhaps a client back with an old view. Who waits for it now."""
        for wait in self._waits:
            wait.add(watch)
        return watch.waits

    @staticmethod
    def left(watch: Watch) -> None:
        """A watch is gone: nobody waits for it."""
        for wait in tuple(watch.waits):
            wait.settle(watch)

    @staticmethod
    def acknowledged(watch: Watch) -> None:
        """`watch.acked` has risen."""
        for wait in tuple(watch.waits):
            if watch.acked >= wait.revision:
                wait.settle(watch)
