"""The soft state of leases on this node: what is timed, what is kept, what was lost, and who was heard of.

Pure: it follows the fold's lease changes and answers keep-alives. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trunkline.api.journal.v1 import control_pb2
from trunkline.core.clock import Rng
from trunkline.core.leases import LeaseTable
from trunkline.core.model import Declared, Instance
from trunkline.core.registered import Entry, Lease

from .config import RegistryConfig
from .entity import InstanceKey
from .fold import LeaseChange, RegistryFold
from .guard import Guard, Lapse
from .lost import LostLeases, LostReason
from .stall import StallDetector
from .status import SERVES

_LOST = {
    int(control_pb2.InstanceRemoved.CAUSE_EXPIRED): LostReason.EXPIRED,
    int(control_pb2.InstanceRemoved.CAUSE_TAKEN_OVER): LostReason.TAKEN_OVER,
}


class KeptAlive(NamedTuple):
    """The answer to a keep-alive."""

    renewed: int
    lost: list[tuple[int, LostReason]]
    next_within_ms: int
    """When the next one is expected at the latest: a third of the shortest TTL."""


class LeaseKeeper:
    """Times the leases that this node keeps."""

    def __init__(self, fold: RegistryFold, guard: Guard, rng: Rng, config: RegistryConfig, *, node_id: int) -> None:
        self.fold = fold
        self.guard = guard
        self.config = config
        expiry = config.expiry
        self.live = LeaseTable(rng, jitter_ms_max=expiry.jitter_ms_max)
        self.kept = LeaseTable(rng, jitter_ms_max=expiry.jitter_ms_max)
        """Lapsed leases, timed until `stale_retention` is over."""
        self.kept_of: dict[tuple[str, str], dict[int, None]] = {}
        """The same by (namespace, service)."""
        self.lost = LostLeases(limit=config.limits.lost_leases_max)
        self.restoring: dict[int, None] = {}
        """Leases that were heard of and need a record: lapsed ones, and those kept elsewhere. Oldest first."""
        self.stalls = StallDetector(tick_ms=expiry.tick_ms, tolerance_ms=expiry.stall_tolerance_ms)
        self.stalled_ns = 0
        """How long the server has stood still altogether."""
        self.stalls_seen = 0
        self.settled_ns: int | None = None
        """Nothing lapses before."""
        self.silence_ms_max = 0
        """Longest time beyond its TTL that a lease was silent when it was seen to have run out."""
        self._node_id = node_id

    def begin(self, now_ns: int, time_ns: int) -> None:
        """After a start: each lease has its full time, each lapsed one the rest of its retention but at least a TTL."""
        live: list[tuple[int, int, str]] = []
        for entry in self.fold.entries():
            lease = entry.lease
            if not self.is_mine(lease):
                continue
            if lease.lapsed:
                passed_ms = max(0, time_ns - lease.lapsed_ns) // 1_000_000
                left_ms = self.config.guard.stale_retention_ms - passed_ms
                self._keep(entry.registered.instance, lease, max(lease.ttl_ms, left_ms), now_ns)
            else:
                live.append((lease.id, lease.ttl_ms, entry.registered.instance.namespace))
        self.live.grant_many(live, now_ns=now_ns)
        self.guard.begin(self.fold.namespaces(), self.fold, self.served_ns(now_ns))
        self.stalls.ticked(now_ns)  # until `run` begins nobody is heard: that is a stall like any other

    def is_mine(self, lease: Lease) -> bool:
        """This node times it."""
        return self.config.keeps_all or lease.keeper == self._node_id

    # Time.

    def served_ns(self, now_ns: int) -> int:
        """Time that passed while the server was listening."""
        return now_ns - self.stalled_ns

    def observe(self, now_ns: int) -> None:
        """Find out whether the server stood still; if it did, every deadline moves by that."""
        stall_ns = self.stalls.observe(now_ns)
        if not stall_ns:
            return
        self.stalls_seen += 1
        self.stalled_ns += stall_ns
        self.live.shift(stall_ns)
        self.kept.shift(stall_ns)
        self.settled_ns = now_ns + self.config.expiry.settle_ms * 1_000_000

    # Keep-alives.

    def keep_alive(self, lease_ids: Iterable[int], now_ns: int) -> KeptAlive:
        """Renew leases. A lapsed one, or one that another node keeps, counts as renewed: its record follows."""
        self.observe(now_ns)
        renewed, missing, shortest_ms = self.live.renew(lease_ids, now_ns)
        lost = []
        for lease_id in missing:
            entry = self.fold.of_lease(lease_id)
            if entry is None:
                lost.append((lease_id, self.lost.reason(lease_id)))
                continue
            shortest_ms = min(shortest_ms, entry.lease.ttl_ms)
            if lease_id in self.restoring or len(self.restoring) < self.config.limits.restores_max:
                self.restoring[lease_id] = None
                renewed += 1
        return KeptAlive(renewed, lost, shortest_ms // 3)

    # What has run out.

    def due(self, now_ns: int, *, limit: int) -> list[Lapse]:
        """Leases that have run out, at most `limit` of them."""
        lapses = []
        for lease_id in self.live.due(now_ns, limit=limit):
            entry = self.fold.of_lease(lease_id)
            if entry is None:
                self.live.drop(lease_id)
                continue
            lapses.append(_lapse(entry))
            silent_ns = self.live.silent_ns(lease_id, now_ns) or 0
            self.silence_ms_max = max(self.silence_ms_max, silent_ns // 1_000_000 - entry.lease.ttl_ms)
        return lapses

    def count_silent(self, counts: dict[str, int], now_ns: int) -> Iterator[None]:
        """How many live leases of each namespace are about to lapse, into `counts`, a step at a time."""
        return self.live.count_silent(counts, now_ns, percent=self.config.guard.silent_percent)

    def is_due(self, lease_id: int, now_ns: int) -> bool:
        """It has run out and was not renewed since."""
        deadline_ns = self.live.deadline_ns(lease_id)
        return deadline_ns is not None and deadline_ns <= now_ns

    def over(self, now_ns: int) -> list[int]:
        """Lapsed leases whose retention is over, and that were not heard of."""
        return [lease_id for lease_id in self.kept.due(now_ns) if lease_id not in self.restoring]

    def kept_in(self, namespace: str) -> list[tuple[str, str]]:
        """Services of a namespace that have lapsed leases."""
        return [service for service in self.kept_of if service[0] == namespace]

    # What the fold has become.

    def take(self, change: LeaseChange, now_ns: int) -> None:
        """Follow a change of a lease."""
        instance, before, after, _, cause = change
        if before is not None and (after is None or after.id != before.id):
            self._end(instance, before, after, cause)
        if after is None:
            return
        if after.lapsed:
            self.live.drop(after.id)
            if self.is_mine(after):
                self._keep(instance, after, self.config.guard.stale_retention_ms, now_ns)
            return
        lease_id, namespace = after.id, instance.namespace
        self._unkeep(instance, lease_id)
        self.restoring.pop(lease_id, None)
        self.lost.discard(lease_id)
        self.guard.restored(namespace, lease_id)
        if self.is_mine(after):
            self.live.grant(lease_id, ttl_ms=after.ttl_ms, now_ns=now_ns, group=namespace)
        else:
            self.live.drop(lease_id)

    def _end(self, instance: Instance, before: Lease, after: Lease | None, cause: int) -> None:
        self.live.drop(before.id)
        self._unkeep(instance, before.id)
        self.restoring.pop(before.id, None)
        if after is None:
            self.lost.add(before.id, _LOST.get(cause, LostReason.DEREGISTERED))
            self.guard.removed(instance.namespace, before.id)
        else:  # another holder has the id now
            self.lost.add(before.id, LostReason.EXPIRED if before.lapsed else LostReason.TAKEN_OVER)
            self.guard.restored(instance.namespace, before.id)

    def _keep(self, instance: Instance, lease: Lease, for_ms: int, now_ns: int) -> None:
        self.kept.grant(lease.id, ttl_ms=for_ms, now_ns=now_ns)
        self.kept_of.setdefault((instance.namespace, instance.service), {})[lease.id] = None

    def _unkeep(self, instance: Instance, lease_id: int) -> None:
        if lease_id not in self.kept:
            return
        self.kept.drop(lease_id)
        service = (instance.namespace, instance.service)
        of_service = self.kept_of[service]
        del of_service[lease_id]
        if not of_service:
            del self.kept_of[service]


def _lapse(entry: Entry) -> Lapse:
    registered = entry.registered
    return Lapse(
        lease_id=entry.lease.id,
        instance=InstanceKey.of(registered.instance),
        ttl_ms=entry.lease.ttl_ms,
        serving=registered.status in SERVES,
        draining=registered.instance.declared is Declared.DRAINING,
    )
