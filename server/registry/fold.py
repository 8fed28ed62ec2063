"""The registry: every instance by key, by service and by lease, as the control stream's records leave it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

from trunkline.api.journal.v1 import control_pb2
from trunkline.core.model import Instance, RegisteredInstance
from trunkline.core.records import Change, Record
from trunkline.core.registered import Entry, Lease

from .changes import RegistryChange
from .image import Tombstone, pieces, read_pieces
from .reduce import REMOVED, TOPICS, describe, reduce
from .service_state import NamespaceState, ServiceState

FOLD_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TombstoneConfig:
    """How long it is remembered which instances went, so that watches can resume."""

    retention_s: int = 7 * 86_400
    """In the journal's time; the same as the control stream's history_retention_s."""
    per_service_max: int = 10_000
    """Beyond it a service's oldest are forgotten."""
    total_max: int = 100_000
    """Beyond it the oldest of all are forgotten."""


class LeaseChange(NamedTuple):
    """What a record did to an instance's lease: granted (no `before`), changed, replaced or ended (no `after`)."""

    instance: Instance
    before: Lease | None
    after: Lease | None
    topic: str
    cause: int
    """InstanceRemoved.Cause when the instance was removed, else 0."""


class RegistryFold:
    """Folds instance.*, lease.*, probe.* and override.*.

    While `collecting`, each change of an instance is appended to `changes` and each change of a lease to
    `lease_changes`, for the shell to drain after every group; while not (as during a replay) nothing piles up.
    """

    name = "registry"
    version = FOLD_VERSION
    topics: Sequence[str] = TOPICS

    def __init__(self, config: TombstoneConfig | None = None, *, collecting: bool = False) -> None:
        self.config = config or TombstoneConfig()
        self.collecting = collecting
        self.changes: list[RegistryChange] = []
        self.lease_changes: list[LeaseChange] = []
        self.floor = 0
        """Removals at or before this revision may have been forgotten together with their service."""
        self._entries: dict[str, Entry] = {}  # ordered by modified_revision
        self._leases: dict[int, str] = {}
        self._namespaces: dict[str, NamespaceState] = {}
        self._gone: deque[Tombstone] = deque()  # some may have come back: their service no longer lists them

    # Reading.

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """The entry of `instance/<namespace>/<service>/<id>`."""
        return self._entries.get(key)

    def key_of_lease(self, lease_id: int) -> str | None:
        """The key of the instance that a lease keeps registered."""
        return self._leases.get(lease_id)

    def of_lease(self, lease_id: int) -> Entry | None:
        """The entry that a lease keeps registered."""
        key = self._leases.get(lease_id)
        return None if key is None else self._entries[key]

    def entries(self) -> Iterable[Entry]:
        """Every entry, ordered by modified_revision. Not to be held across a change."""
        return self._entries.values()

    def service(self, namespace: str, service: str) -> ServiceState | None:
        """None when nothing is known of it: it has no instances, and its tombstones are forgotten."""
        of_namespace = self._namespaces.get(namespace)
        return None if of_namespace is None else of_namespace.services.get(service)

    def instances(self, namespace: str, service: str) -> Sequence[RegisteredInstance]:
        """All instances of a service, ordered by their last change."""
        state = self.service(namespace, service)
        return () if state is None else tuple(state.instances.values())

    def namespace(self, namespace: str) -> NamespaceState | None:
        """None when none of its services is known."""
        return self._namespaces.get(namespace)

    def leases(self, namespace: str) -> tuple[int, int]:
        """How many leases a namespace has, and how many of them have lapsed."""
        of_namespace = self._namespaces.get(namespace)
        return (0, 0) if of_namespace is None else (of_namespace.instances, of_namespace.lapsed)

    def serving(self, namespace: str, service: str) -> int:
        """How many instances of a service are SERVING or DEGRADED, and alive."""
        state = self.service(namespace, service)
        return 0 if state is None else state.serving

    def services(self, namespace: str) -> Iterable[str]:
        """Names of a namespace's services that `service` answers for."""
        of_namespace = self._namespaces.get(namespace)
        return () if of_namespace is None else of_namespace.services.keys()

    def namespaces(self) -> Iterable[str]:
        """Names of the namespaces that have services."""
        return self._namespaces.keys()

    # Folding.

    def reduce(self, entity: Entry | None, change: Change, *, revision: int, time_ns: int) -> Entry | None:
        """What a pending change will make of an entry. Its author's reason is not known yet."""
        return reduce(entity, change.topic, change.body, revision=revision, time_ns=time_ns)

    def apply(self, record: Record) -> None:
        """Take in a record."""
        key, topic, body = record.key, record.topic, record.body
        revision, time_ns = record.offset, record.time_ns
        before = self._entries.get(key)
        after = reduce(before, topic, body, revision=revision, time_ns=time_ns, reason=record.reason)
        if after is before:
            return
        if before is None:
            assert after is not None
            self._add(key, after)
        elif after is None:
            self._remove(key, before, revision, time_ns)
        else:
            self._replace(key, before, after)
        self._forget_old(time_ns)
        if self.collecting:
            self._collect(record, before, after)

    def _collect(self, record: Record, before: Entry | None, after: Entry | None) -> None:
        old, old_lease = (None, None) if before is None else (before.registered, before.lease)
        new, new_lease = (None, None) if after is None else (after.registered, after.lease)
        shown = new or old
        assert shown is not None
        instance = shown.instance
        if old is not new:
            self.changes.append(
                RegistryChange(
                    record.offset,
                    record.time_ns,
                    instance.namespace,
                    instance.service,
                    instance.id,
                    old,
                    new,
                    describe(record.topic, record.body, before, after),
                    record.author,
                    record.reason,
                )
            )
        if old_lease is not new_lease:
            cause = control_pb2.InstanceRemoved.FromString(record.body).cause if record.topic == REMOVED else 0
            self.lease_changes.append(LeaseChange(instance, old_lease, new_lease, record.topic, cause))

    def _add(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry
        self._leases[entry.lease.id] = key
        self._list(entry)

    def _list(self, entry: Entry) -> None:
        """Put a new entry into the lists of its service."""
        instance = entry.registered.instance
        of_namespace, state = self._known(instance.namespace, instance.service)
        state.instances[instance.id] = entry.registered
        if state.tombstones:
            state.tombstones.pop(instance.id, None)
        state.count(entry, +1)
        of_namespace.instances += 1
        of_namespace.lapsed += entry.lease.lapsed

    def _replace(self, key: str, before: Entry, after: Entry) -> None:
        instance = after.registered.instance
        of_namespace, state = self._known(instance.namespace, instance.service)
        if before.registered is not after.registered:  # shown differently: it moves to the end
            del self._entries[key]
            del state.instances[instance.id]
        self._entries[key] = after
        state.instances[instance.id] = after.registered
        if before.lease.id != after.lease.id:
            self._leases.pop(before.lease.id, None)
            self._leases[after.lease.id] = key
        state.count(before, -1)
        state.count(after, +1)
        of_namespace.lapsed += after.lease.lapsed - before.lease.lapsed

    def _remove(self, key: str, entry: Entry, revision: int, time_ns: int) -> None:
        instance = entry.registered.instance
        of_namespace, state = self._known(instance.namespace, instance.service)
        del self._entries[key]
        self._leases.pop(entry.lease.id, None)
        del state.instances[instance.id]
        state.count(entry, -1)
        of_namespace.instances -= 1
        of_namespace.lapsed -= entry.lease.lapsed
        state.tombstones[instance.id] = revision
        self._gone.append(Tombstone(instance.namespace, instance.service, instance.id, revision, time_ns))
        if len(state.tombstones) > self.config.per_service_max:
            _, state.floor = state.tombstones.popitem(last=False)

    def _known(self, namespace: str, service: str) -> tuple[NamespaceState, ServiceState]:
        of_namespace = self._namespaces.get(namespace)
        if of_namespace is None:
            of_namespace = self._namespaces[namespace] = NamespaceState(namespace)
        state = of_namespace.services.get(service)
        if state is None:
            state = of_namespace.services[service] = ServiceState(namespace, service, floor=self.floor)
        return of_namespace, state

    def _forget_old(self, now_ns: int) -> None:
        """Forget the tombstones that are too old or too many, and services of which nothing is left."""
        oldest_ns = now_ns - self.config.retention_s * 1_000_000_000
        while self._gone and (self._gone[0].time_ns < oldest_ns or len(self._gone) > self.config.total_max):
            gone = self._gone.popleft()
            state = self.service(gone.namespace, gone.service)
            if state is None:
                continue
            if state.tombstones.get(gone.id) == gone.revision:
                del state.tombstones[gone.id]
                state.floor = gone.revision
            if not state.instances and not state.tombstones:
                self._forget_service(state)

    def _forget_service(self, state: ServiceState) -> None:
        self.floor = max(self.floor, state.floor)
        of_namespace = self._namespaces[state.namespace]
        del of_namespace.services[state.name]
        if not of_namespace.services:
            del self._namespaces[state.namespace]

    # Snapshots.

    def dump(self) -> Iterator[bytes]:
        """Encode the state as of this call, piece by piece."""
        services = [(s.namespace, s.name, s.floor) for n in self._namespaces.values() for s in n.services.values()]
        return pieces(self.floor, services, list(self._gone), list(self._entries.values()))

    def load(self, version: int, data: Iterable[bytes]) -> None:
        """Become the state that `dump` encoded; the fold must be empty. ValueError for an unknown version."""
        if version != FOLD_VERSION:
            raise ValueError(f"registry section of version {version}")
        assert not self._namespaces, "loaded into a fold that is in use"
        entries: list[Entry] = []
        for piece in read_pieces(data):
            self.floor = max(self.floor, piece.floor)
            for namespace, service, floor in piece.services:
                _, state = self._known(namespace, service)
                state.floor = floor
            for gone in piece.tombstones:
                self._load_tombstone(gone)
            entries.extend(piece.entries)
        # One index after the other, which takes half the time of one entry after the other.
        keys = [intern(entry.registered.instance.key) for entry in entries]  # the admission has the same
        self._entries = dict(zip(keys, entries, strict=True))
        self._leases = dict(zip([entry.lease.id for entry in entries], keys, strict=True))
        for entry in entries:
            self._list(entry)

    def _load_tombstone(self, gone: Tombstone) -> None:
        # It counts unless it fell below its service's floor; if the instance came back, `_list` will find it.
        self._gone.append(gone)
        state = self.service(gone.namespace, gone.service)
        if state is not None and gone.revision > state.floor:
            state.tombstones[gone.id] = gone.revision
            state.tombstones.move_to_end(gone.id)

    def digest(self) -> str:
        """SHA-256 of the state: equal states, and no others, have the same."""
        digest = hashlib.sha256()
        for piece in self.dump():
            digest.update(piece)
        return digest.hexdigest()
