"""What the registry writes, decided.

Each function returns a decision for the sequencer: pure, and run again when what it read has changed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.core.errors import InstanceAlive, InstanceNotFound, InstanceOverridden, RevisionMismatch
from trunkline.core.instances import write_registration
from trunkline.core.model import ROUTABLE, Declared, Registration, Status
from trunkline.core.records import Change
from trunkline.core.registered import Entry
from trunkline.server.journal.control.fold import View

from .entity import InstanceKey
from .reduce import DECLARED, LAPSED, MOVED, OVERRIDE, PROBE, REGISTERED, REMOVED, RESTORED, remember

Decide = Callable[[View], Sequence[Change]]

DEREGISTERED = control_pb2.InstanceRemoved.CAUSE_DEREGISTERED
EXPIRED = control_pb2.InstanceRemoved.CAUSE_EXPIRED


class Target(NamedTuple):
    """Which instance is meant; with `lease_id` only while that lease keeps it."""

    key: InstanceKey
    lease_id: int | None = None


def hash_secret(secret: bytes) -> bytes:
    """What is stored of a lease secret. It is random, so that a plain hash tells nothing."""
    return hashlib.sha256(secret).digest()


def lease_id_of(key: str, secret: bytes) -> int:
    """The lease that a secret's holder has on an instance: the same however often it is asked for, and as hard to guess
    as 64 bits of the secret. A keyed hash (RFC 7693, 2.5), in less than half of the time that HMAC takes.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=secret, person=b"trunkline lease")
    return int.from_bytes(digest.digest(), "big") or 1


def register(key: str, wanted: Registration, lease_id: int, *, node_id: int, keeps_all: bool) -> Decide:
    """Register or change the instance of a key. Refuses with InstanceAlive."""
    instance = wanted.instance
    secret_hash = hash_secret(wanted.secret)
    health_check = convert.health_check_bytes(instance.health_check)
    body = write_registration(instance, health_check, lease_id, secret_hash, wanted.ttl_ms, node_id)
    if health_check is None:
        remember(body, (instance, lease_id, secret_hash, wanted.ttl_ms, node_id))
    keeper = None if keeps_all else node_id
    return _Register(Change(REGISTERED, key, body, instance.namespace), wanted, secret_hash, keeper)


class _Register:
    """A decision as one object: thousands may wait for the disk, and a closure is made of ten."""

    __slots__ = ("_change", "_keeper", "_secret_hash", "_wanted")

    def __init__(self, change: Change, wanted: Registration, secret_hash: bytes, keeper: int | None) -> None:
        self._change = change
        self._wanted = wanted
        self._secret_hash = secret_hash
        self._keeper = keeper

    def __call__(self, view: View) -> Sequence[Change]:
        change, wanted = self._change, self._wanted
        entry: Entry | None = view.get(change.key)
        if entry is None:
            return (change,)
        lease = entry.lease
        if not hmac.compare_digest(lease.secret_hash, self._secret_hash):
            if not lease.lapsed and not wanted.take_over:
                instance = wanted.instance
                name = f"{instance.service}/{instance.id}"
                raise InstanceAlive(f"{name} is alive under another secret", instance=instance.id)
            return (change,)
        as_it_is = entry.registered.instance == wanted.instance and lease.ttl_ms == wanted.ttl_ms
        if as_it_is and not lease.lapsed and self._keeper in (None, lease.keeper):
            return ()
        return (change,)


def remove(target: Target) -> Decide:
    """Remove an instance; nothing if it is not there, or another lease keeps it."""

    def decide(view: View) -> Sequence[Change]:
        return () if _entry(view, target) is None else (_removed(target.key, DEREGISTERED),)

    return decide


def drain(target: Target) -> Decide:
    """Declare an instance DRAINING. A lapsed one has nothing to finish and is removed. Refuses with InstanceNotFound,
    InstanceOverridden."""

    def decide(view: View) -> Sequence[Change]:
        entry = _entry(view, target)
        if entry is None:
            raise InstanceNotFound(f"no instance {target.key.service}/{target.key.id}", instance=target.key.id)
        if entry.lease.lapsed:
            return (_removed(target.key, DEREGISTERED),)
        if entry.override is not None and entry.override.status in ROUTABLE:
            raise InstanceOverridden(
                f"an override holds {target.key.service}/{target.key.id} at {entry.override.status.name}",
                instance=target.key.id,
            )
        if entry.registered.instance.declared is Declared.DRAINING:
            return ()
        fact = control_pb2.InstanceDeclared(declared=convert.declared_to(Declared.DRAINING))
        return (_change(DECLARED, target.key, fact.SerializeToString()),)

    return decide


def override(key: InstanceKey, status: Status | None, *, reason: str, if_revision: int) -> Decide:
    """Set an operator's override, or take it back (None). Refuses with InstanceNotFound, RevisionMismatch."""
    fact = control_pb2.OverrideSet(status=convert.status_to(status))

    def decide(view: View) -> Sequence[Change]:
        entry = _entry(view, Target(key))
        if entry is None:
            raise InstanceNotFound(f"no instance {key.service}/{key.id}", instance=key.id)
        modified = entry.registered.modified_revision
        if if_revision and if_revision != modified:
            raise RevisionMismatch(
                f"{key.service}/{key.id} was last changed at revision {modified}, not {if_revision}",
                revision=str(modified),
            )
        there = None if entry.override is None else (entry.override.status, entry.override.reason)
        if there == (None if status is None else (status, reason)):
            return ()
        return (_change(OVERRIDE, key, fact.SerializeToString()),)

    return decide


def expire(targets: Sequence[Target], *, lapsed: bool) -> Decide:
    """Remove instances whose leases ran out: those that are live (`lapsed` False) or those that were kept (True)."""

    def decide(view: View) -> Sequence[Change]:
        return [
            _removed(target.key, EXPIRED)
            for target in targets
            if (entry := _entry(view, target)) is not None and entry.lease.lapsed is lapsed
        ]

    return decide


def lapse(targets: Sequence[Target]) -> Decide:
    """Keep instances whose leases ran out, as STALE."""

    def decide(view: View) -> Sequence[Change]:
        return [
            _change(LAPSED, target.key, control_pb2.LeaseLapsed(lease_id=entry.lease.id).SerializeToString())
            for target in targets
            if (entry := _entry(view, target)) is not None and not entry.lease.lapsed
        ]

    return decide


def restore(targets: Sequence[Target], *, node_id: int) -> Decide:
    """Leases that were heard of here: no longer lapsed, no longer kept elsewhere."""

    def decide(view: View) -> Sequence[Change]:
        changes = []
        for target in targets:
            entry = _entry(view, target)
            if entry is None:
                continue
            if entry.lease.lapsed:
                restored = control_pb2.LeaseRestored(lease_id=entry.lease.id, keeper=node_id)
                changes.append(_change(RESTORED, target.key, restored.SerializeToString()))
            elif entry.lease.keeper != node_id:
                moved = control_pb2.LeaseMoved(lease_id=entry.lease.id, keeper=node_id)
                changes.append(_change(MOVED, target.key, moved.SerializeToString()))
        return changes

    return decide


def probed(verdicts: Sequence[tuple[Target, str | None]]) -> Decide:
    """Changed verdicts of the prober: what it said if 'failed', None if it passed."""

    def decide(view: View) -> Sequence[Change]:
        return [
            _change(
                PROBE,
                target.key,
                control_pb2.ProbeChanged(failed=failure is not None, message=failure or "").SerializeToString(),
            )
            for target, failure in verdicts
            if (entry := _entry(view, target)) is not None and (entry.probe_failure is None) != (failure is None)
        ]

    return decide


def _entry(view: View, target: Target) -> Entry | None:
    entry: Entry | None = view.get(target.key.text)
    if entry is None or (target.lease_id is not None and entry.lease.id != target.lease_id):
        return None
    return entry


def _change(topic: str, key: InstanceKey, body: bytes) -> Change:
    return Change(topic=topic, key=key.text, body=body, namespace=key.namespace)


def _removed(key: InstanceKey, cause: control_pb2.InstanceRemoved.Cause.ValueType) -> Change:
    return _change(REMOVED, key, control_pb2.InstanceRemoved(cause=cause).SerializeToString())
