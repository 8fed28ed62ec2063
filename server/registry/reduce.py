"""What a record makes of an instance. Pure: the same entry and record give the same entry, on every node and in every
version that can read the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.core.instances import read_registration
from trunkline.core.model import Instance, Override, RegisteredInstance
from trunkline.core.registered import Entry, Lease

from .status import status_of

REGISTERED = "instance.registered"
DECLARED = "instance.declared"
REMOVED = "instance.removed"
LAPSED = "lease.lapsed"
RESTORED = "lease.restored"
MOVED = "lease.moved"
PROBE = "probe.changed"
OVERRIDE = "override.set"

TOPICS = ("instance", "lease", "probe", "override")
"""First words of the topics above."""


def reduce(
    entry: Entry | None, topic: str, body: bytes, *, revision: int, time_ns: int, reason: str = ""
) -> Entry | None:
    """The entry after a record; the same object when the record changes nothing."""
    step = _STEPS.get(topic)
    return entry if step is None else step(entry, body, revision, time_ns, reason)


def _derived(entry: Entry, revision: int, *, instance: Instance | None = None) -> Entry:
    """`entry` with its status derived anew, and with another declaration if one is given."""
    registered = entry.registered
    instance = instance or registered.instance
    status, reason = status_of(instance.declared, entry.lease, entry.probe_failure, entry.override)
    registered = registered.replace(instance=instance, status=status, status_reason=reason, modified_revision=revision)
    return Entry(registered, entry.lease, entry.probe_failure, entry.override)


Registered = tuple[Instance, int, bytes, int, int]
"""What the fact of a registration says: instance, lease id, hash of its secret, TTL in ms, keeper."""
REMEMBERED_MAX = 2_048

_remembered: dict[bytes, Registered] = {}


def remember(body: bytes, said: Registered) -> None:
    """Whoever writes a fact knows what it says: it need not be read again when it is durable."""
    if len(_remembered) >= REMEMBERED_MAX:
        _remembered.clear()
    _remembered[body] = said


def _registered(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry:
    said = _remembered.pop(body, None) or read_registration(body, convert.health_check_of)
    instance, lease_id, secret_hash, ttl_ms, keeper = said
    lease = Lease(lease_id, secret_hash, ttl_ms, keeper)
    created, registered_at_ns = revision, time_ns
    probe_failure = override = None
    if entry is not None:
        override = entry.override  # an operator's word is on the id, whoever holds it
        if entry.lease.id == lease.id:
            old = entry.registered
            created, registered_at_ns = old.created_revision, old.registered_at_ns
            if _probed_alike(old.instance, instance):
                probe_failure = entry.probe_failure
    status, why = status_of(instance.declared, lease, probe_failure, override)
    registered = RegisteredInstance(instance, status, why, created, revision, registered_at_ns)
    return Entry(registered, lease, probe_failure, override)


def _probed_alike(old: Instance, new: Instance) -> bool:
    """A verdict on the old declaration holds for the new one."""
    return old.health_check is not None and (old.health_check, old.endpoints) == (new.health_check, new.endpoints)


def _declared(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry | None:
    if entry is None:
        return None
    declared = convert.declared_from(control_pb2.InstanceDeclared.FromString(body).declared)
    instance = entry.registered.instance
    if declared is instance.declared:
        return entry
    return _derived(entry, revision, instance=dataclasses.replace(instance, declared=declared))


def _removed(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> None:
    return None


def _lapsed(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry | None:
    if entry is None or entry.lease.lapsed:
        return entry
    if control_pb2.LeaseLapsed.FromString(body).lease_id != entry.lease.id:
        return entry
    lease = entry.lease.at(lapsed_revision=revision, lapsed_ns=time_ns)
    return _derived(Entry(entry.registered, lease, entry.probe_failure, entry.override), revision)


def _restored(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry | None:
    fact = control_pb2.LeaseRestored.FromString(body)
    if entry is None or fact.lease_id != entry.lease.id or not entry.lease.lapsed:
        return entry
    lease = entry.lease.at(keeper=fact.keeper)
    return _derived(Entry(entry.registered, lease, entry.probe_failure, entry.override), revision)


def _moved(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry | None:
    # Who times a lease is nobody's business but the keepers': no change of the instance.
    fact = control_pb2.LeaseMoved.FromString(body)
    if entry is None or fact.lease_id != entry.lease.id or fact.keeper == entry.lease.keeper:
        return entry
    lease = entry.lease
    moved = lease.at(keeper=fact.keeper, lapsed_revision=lease.lapsed_revision, lapsed_ns=lease.lapsed_ns)
    return Entry(entry.registered, moved, entry.probe_failure, entry.override)


def _probed(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry | None:
    if entry is None:
        return None
    fact = control_pb2.ProbeChanged.FromString(body)
    failure = fact.message if fact.failed else None
    if failure == entry.probe_failure:
        return entry
    return _derived(Entry(entry.registered, entry.lease, failure, entry.override), revision)


def _overridden(entry: Entry | None, body: bytes, revision: int, time_ns: int, reason: str) -> Entry | None:
    if entry is None:
        return None
    status = convert.status_from(control_pb2.OverrideSet.FromString(body).status)
    override = None if status is None else Override(status, reason)
    if override == entry.override:
        return entry
    return _derived(Entry(entry.registered, entry.lease, entry.probe_failure, override), revision)


Step = Callable[[Entry | None, bytes, int, int, str], Entry | None]
"""From an entry, and the body, revision, time and author's reason of a record."""

_STEPS: dict[str, Step] = {
    REGISTERED: _registered,
    DECLARED: _declared,
    REMOVED: _removed,
    LAPSED: _lapsed,
    RESTORED: _restored,
    MOVED: _moved,
    PROBE: _probed,
    OVERRIDE: _overridden,
}


_REMOVED_WORDS = {
    control_pb2.InstanceRemoved.CAUSE_DEREGISTERED: "deregistered",
    control_pb2.InstanceRemoved.CAUSE_EXPIRED: "expired",
    control_pb2.InstanceRemoved.CAUSE_TAKEN_OVER: "taken over",
}


def describe(topic: str, body: bytes, before: Entry | None, after: Entry | None) -> str:
    """What a record did, in a few words for people."""
    if topic == REGISTERED:
        return _describe_registered(before, after)
    if topic == REMOVED:
        return _REMOVED_WORDS.get(control_pb2.InstanceRemoved.FromString(body).cause, "removed")
    if topic == DECLARED:
        return "declared" if after is None else f"declared {after.registered.instance.declared.name.lower()}"
    if topic == PROBE:
        return "probe passed" if after is None or after.probe_failure is None else "probe failed"
    if topic == OVERRIDE:
        return "override taken back" if after is None or after.override is None else "override set"
    return topic.replace(".", " ")


def _describe_registered(before: Entry | None, after: Entry | None) -> str:
    if before is None or after is None:
        return "registered"
    if before.lease.id != after.lease.id:
        return "registered again" if before.lease.lapsed else "taken over"
    return "registered again" if before.lease.lapsed else "changed"
