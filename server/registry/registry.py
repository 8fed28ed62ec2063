"""The registry of one node: requests become decisions, folded records become deadlines and steps for who follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import InstanceNotFound, InvalidArgument, LeaseNotFound, LimitExceeded
from trunkline.core.model import Instance, RegisteredInstance, Registration, Status
from trunkline.server.journal.control.sequencer import Group, Origin, Sequencer

from . import decisions
from .changes import RegistryChange, RegistryStep
from .config import RegistryConfig
from .decisions import Target, lease_id_of
from .entity import InstanceKey
from .expiry import AUTHOR, Expiry
from .fold import RegistryFold
from .guard import Guard
from .lease_keeper import KeptAlive, LeaseKeeper
from .status import SERVES

log = logging.getLogger(__name__)


class Late(Protocol):
    """A watcher that has not told that it applied a revision."""

    @property
    def client(self) -> str: ...
    @property
    def applied_revision(self) -> int: ...
    @property
    def late_by_ns(self) -> int: ...


class Applied(Protocol):
    """What a wait for watchers came to."""

    @property
    def complete(self) -> bool: ...
    @property
    def late(self) -> Sequence[Late]: ...


class Watchers(Protocol):
    """Who follows the registry, and how far they have come."""

    async def wait_applied(
        self, namespace: str, service: str, instance_id: str | None, revision: int, limit_ns: int
    ) -> Applied:
        """Return when every watcher that could route to the instance has applied the revision, or at the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Which registration is meant: by its lease, by its name, or by both."""

    namespace: str
    lease_id: int = 0
    service: str = ""
    instance_id: str = ""


class Registered(NamedTuple):
    """The answer to Register."""

    lease_id: int
    ttl_ms: int
    modified_revision: int
    changed: bool


class Drained(NamedTuple):
    """The answer to Drain."""

    revision: int
    complete: bool
    late: Sequence[Late]


class Alarm(NamedTuple):
    """Something that an operator should know; it stands until its cause is gone."""

    name: str
    namespace: str
    subject: str
    message: str
    since_ns: int
    """Nanoseconds since the epoch."""


class Registry:
    """Registers, keeps and ends instances. `begin` once the fold is rebuilt, then `run`."""

    def __init__(
        self,
        fold: RegistryFold,
        sequencer: Sequencer,
        clock: Clock,
        rng: Rng,
        *,
        node_id: int,
        config: RegistryConfig | None = None,
        watchers: Watchers | None = None,
    ) -> None:
        self.config = config or RegistryConfig()
        self.fold = fold
        self.guard = Guard(self.config.guard)
        self.keeper = LeaseKeeper(fold, self.guard, rng, self.config, node_id=node_id)
        self.expiry = Expiry(self.keeper, sequencer, clock, node_id=node_id)
        self.watchers = watchers
        """Asked by Drain; set it before the first call."""
        self._sequencer = sequencer
        self._clock = clock
        self._node_id = node_id
        self._listeners: list[Callable[[RegistryStep], None]] = []
        self._counts = dict.fromkeys(COUNTERS, 0)

    def begin(self) -> None:
        """The fold is as the journal left it: give every lease its time and follow what comes."""
        self.fold.changes.clear()
        self.fold.lease_changes.clear()
        self.fold.collecting = True
        self.keeper.begin(self._clock.now_ns(), self._clock.time_ns())
        self.expiry.begin()
        self._sequencer.on_group(self._on_group)

    async def run(self) -> None:
        """Expire and restore until cancelled."""
        await self.expiry.run()

    def on_step(self, listener: Callable[[RegistryStep], None]) -> None:
        """Call `listener` after each group of control records, in order, before writes are answered."""
        self._listeners.append(listener)

    # What was folded.

    def _on_group(self, group: Group) -> None:
        fold = self.fold
        changes, fold.changes = fold.changes, []
        lease_changes, fold.lease_changes = fold.lease_changes, []
        now_ns = self._clock.now_ns()
        for lease_change in lease_changes:
            self.keeper.take(lease_change, now_ns)
        for change in changes:
            self._count(change)
            after = change.after
            if after is not None and after.status in SERVES:
                self.expiry.serves(change.namespace, change.service)
        step = RegistryStep(revision=group.revision, time_ns=group.time_ns, changes=changes, skipped=group.skipped)
        for listener in self._listeners:
            listener(step)

    def _count(self, change: RegistryChange) -> None:
        counter = COUNTER_OF.get(change.what)
        if counter is not None:
            self._counts[counter] += 1

    # What is asked.

    async def register(self, wanted: Registration, origin: Origin, *, deadline_ns: int | None = None) -> Registered:
        """Register or change an instance. Raises InstanceAlive, LimitExceeded and what the sequencer raises."""
        key = wanted.instance.key
        if self.fold.get(key) is None:
            self._refuse_beyond_limits(wanted.instance)
        lease_id = lease_id_of(key, wanted.secret)
        decide = decisions.register(key, wanted, lease_id, node_id=self._node_id, keeps_all=self.config.keeps_all)
        written = await self._sequencer.write(decide, origin, deadline_ns=deadline_ns)
        if not written.records:
            self.keep_alive((lease_id,))
        entry = self.fold.get(key)
        revision = written.revision if entry is None else entry.registered.modified_revision
        return Registered(lease_id, wanted.ttl_ms, revision, bool(written.records))

    def _refuse_beyond_limits(self, new: Instance) -> None:
        # Against what is folded: writes that are on their way may go over a limit by their own number.
        limits = self.config.limits
        if len(self.fold) >= limits.instances_max:
            raise LimitExceeded("instances_max", limits.instances_max)
        if self.fold.leases(new.namespace)[0] >= limits.namespace_instances_max:
            raise LimitExceeded("namespace_instances_max", limits.namespace_instances_max)
        state = self.fold.service(new.namespace, new.service)
        if state is not None and len(state.instances) >= limits.service_instances_max:
            raise LimitExceeded("service_instances_max", limits.service_instances_max)

    def keep_alive(self, lease_ids: Iterable[int]) -> KeptAlive:
        """Renew leases. Touches no disk and waits for nothing."""
        kept = self.keeper.keep_alive(lease_ids, self._clock.now_ns())
        if self.keeper.restoring:
            self.expiry.heard()
        self._counts["keep_alives"] += 1
        self._counts["leases_renewed"] += kept.renewed
        self._counts["leases_lost"] += len(kept.lost)
        return kept

    async def deregister(self, reference: Reference, origin: Origin, *, deadline_ns: int | None = None) -> bool:
        """Remove an instance at once. False when it was not there."""
        target = self._target(reference)
        if target is None:
            return False
        written = await self._sequencer.write(decisions.remove(target), origin, deadline_ns=deadline_ns)
        return bool(written.records) or written.repeated

    async def drain(
        self, reference: Reference, origin: Origin, *, limit_ns: int, deadline_ns: int | None = None
    ) -> Drained:
        """Declare an instance DRAINING, then wait for the watchers that could route to it.

        Raises InstanceNotFound, LeaseNotFound, InstanceOverridden.
        """
        target = self._target(reference)
        if target is None:
            raise LeaseNotFound("no such lease (any more)")
        key = target.key
        written = await self._sequencer.write(decisions.drain(target), origin, deadline_ns=deadline_ns)
        entry = self.fold.get(key.text)
        there = not written.records and entry is not None
        revision = entry.registered.modified_revision if there and entry is not None else written.revision
        if self.watchers is None:
            return Drained(revision, True, ())
        applied = await self.watchers.wait_applied(key.namespace, key.service, key.id, revision, limit_ns)
        return Drained(revision, applied.complete, applied.late)

    async def set_override(
        self,
        key: InstanceKey,
        status: Status | None,
        origin: Origin,
        *,
        if_revision: int = 0,
        deadline_ns: int | None = None,
    ) -> RegisteredInstance:
        """Set an operator's override; None takes it back.

        Raises InstanceNotFound, RevisionMismatch, InvalidArgument.
        """
        if status is Status.STALE:
            raise InvalidArgument.of("status", "STALE follows from a lease and cannot be set", status.name)
        decide = decisions.override(key, status, reason=origin.reason, if_revision=if_revision)
        await self._sequencer.write(decide, origin, deadline_ns=deadline_ns)
        entry = self.fold.get(key.text)
        if entry is None:
            raise InstanceNotFound(f"no instance {key.service}/{key.id}", instance=key.id)
        return entry.registered

    async def end_expiry_pause(self, namespace: str, origin: Origin) -> int:
        """Let a namespace's lapsed instances go although expiry is paused. How many went."""
        return await self.expiry.end_pause(namespace, author=origin.author, reason=origin.reason)

    async def record_verdicts(self, verdicts: Sequence[tuple[Target, str | None]]) -> None:
        """Write what the prober found: a failure, or None where it passed. Nothing is written where nothing changed."""
        await self._sequencer.write(decisions.probed(verdicts), Origin(author=AUTHOR, reason="probe"))

    def _target(self, reference: Reference) -> Target | None:
        """None when the lease is not there, or not in this namespace."""
        named = bool(reference.service and reference.instance_id)
        if not reference.lease_id:
            if not named:
                raise InvalidArgument.of("registration", "needs lease_id, or service and instance_id", "neither")
            return Target(InstanceKey(reference.namespace, reference.service, reference.instance_id))
        text = self.fold.key_of_lease(reference.lease_id)
        if text is None:
            return None
        key = InstanceKey.of_text(text)
        # Rights were checked on the namespace: a lease elsewhere is as good as none.
        if key.namespace != reference.namespace:
            return None
        if named and (key.service, key.id) != (reference.service, reference.instance_id):
            return None
        return Target(key, reference.lease_id)

    # What is told.

    def alarms(self) -> list[Alarm]:
        """Namespaces in which expiry is paused."""
        now_ns, time_ns = self.keeper.served_ns(self._clock.now_ns()), self._clock.time_ns()
        alarms = []
        for namespace in self.guard.paused():
            since_ns = self.guard.paused_since_ns(namespace) or now_ns
            why = self.guard.explain(namespace, self.fold)
            alarms.append(Alarm("EXPIRY_PAUSED", namespace, "", why, time_ns - (now_ns - since_ns)))
        return alarms

    def metrics(self) -> Mapping[str, int]:
        """Counters and gauges by name, without the prefix `trunkline_registry_`."""
        keeper = self.keeper
        return {
            **{f"{name}_total": count for name, count in self._counts.items()},
            "instances": len(self.fold),
            "leases_live": len(keeper.live),
            "leases_lapsed": len(keeper.kept),
            "leases_restoring": len(keeper.restoring),
            "namespaces_paused": len(self.guard.paused()),
            "stalls_total": keeper.stalls_seen,
            "stalled_ms_total": keeper.stalled_ns // 1_000_000,
            "expiry_failures_total": self.expiry.failures,
            "silence_beyond_ttl_ms_max": keeper.silence_ms_max,
        }


COUNTER_OF = {
    "registered": "registrations",
    "registered again": "registrations",
    "taken over": "take_overs",
    "changed": "updates",
    "deregistered": "deregistrations",
    "expired": "expired",
    "lease lapsed": "lapsed",
    "lease restored": "restored",
    "declared draining": "drains",
    "probe failed": "probe_failures",
    "override set": "overrides",
}
"""Which counter a change adds to."""
COUNTERS = (*dict.fromkeys(COUNTER_OF.values()), "keep_alives", "leases_renewed", "leases_lost")
