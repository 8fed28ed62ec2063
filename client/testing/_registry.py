"""Registration and discovery in memory: instances, leases, one revision line, a log of changes to resume from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from trunkline.core.errors import InstanceAlive, RevisionCompacted
from trunkline.core.model import Declared, Instance, RegisteredInstance, Status

Key = tuple[str, str, str]
"""Namespace, service, id."""


@dataclass(slots=True)
class Held:
    """An instance and its lease."""

    registered: RegisteredInstance
    lease_id: int
    secret: bytes
    ttl_ms: int
    deadline_ns: int
    lapsed: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one revision did to one instance."""

    revision: int
    key: Key
    before: RegisteredInstance | None
    after: RegisteredInstance | None


class MemoryRegistry:
    """The registry's state. Time is an argument."""

    def __init__(self) -> None:
        self.revision = 1
        self.held: dict[Key, Held] = {}
        self.leases: dict[int, Key] = {}
        self.ended: dict[int, int] = {}
        """Why a lease is gone: LostLease.Reason by lease id."""
        self.steps: list[Step] = []
        self.first_step = 0
        """Steps up to this revision are compacted away."""
        self.listeners: set[asyncio.Event] = set()
        """Set at each step."""
        self._last_lease = 0

    def register(
        self, instance: Instance, secret: bytes, ttl_ms: int, *, take_over: bool, now_ns: int, time_ns: int
    ) -> Held:
        """Register, change, or find unchanged. InstanceAlive when another holder has the id."""
        key = instance.namespace, instance.service, instance.id
        held = self.held.get(key)
        if held is not None and held.secret != secret:
            if not take_over and not held.lapsed:
                raise InstanceAlive(f"instance {instance.id} of {instance.service} is alive under another holder")
            self.ended[held.lease_id] = TAKEN_OVER
            del self.leases[held.lease_id]
            held = None
        if held is None:
            self._last_lease += 1
            created, lease_id = self.revision + 1, self._last_lease
        else:
            created, lease_id = held.registered.created_revision, held.lease_id
        status = status_of(instance.declared)
        if held is None or held.registered.instance != instance or held.lapsed:
            registered = RegisteredInstance(
                instance=instance,
                status=status,
                status_reason="declared",
                created_revision=created,
                modified_revision=self.revision + 1,
                registered_at_ns=time_ns,
            )
            self.held[key] = Held(registered, lease_id, secret, ttl_ms, now_ns + ttl_ms * 1_000_000)
            self.leases[lease_id] = key
            self._step(key, held.registered if held else None, registered)
        return self.held[key]

    def renew(self, lease_id: int, *, now_ns: int) -> Held | None:
        """None when it is not there."""
        key = self.leases.get(lease_id)
        if key is None:
            return None
        held = self.held[key]
        held.deadline_ns = now_ns + held.ttl_ms * 1_000_000
        if held.lapsed:
            held.lapsed = False
            self._change(key, status_of(held.registered.instance.declared), "declared")
        return held

    def lapse(self, lease_id: int) -> None:
        """The lease ran out: the instance goes, unless it is its service's last, which turns STALE."""
        key = self.leases[lease_id]
        others = [other for other in self.held if other[:2] == key[:2] and other != key and not self.held[other].lapsed]
        if others:
            self.remove(key, EXPIRED)
        elif not self.held[key].lapsed:
            self.held[key].lapsed = True
            self._change(key, Status.STALE, "lease lapsed")

    def declare(self, key: Key, declared: Declared) -> None:
        """The holder, or an operator, said something of the instance."""
        held = self.held[key]
        instance = replace(held.registered.instance, declared=declared)
        held.registered = held.registered.replace(instance=instance)
        self._change(key, status_of(declared), "declared")

    def remove(self, key: Key, reason: int) -> bool:
        """False when it was not there."""
        held = self.held.pop(key, None)
        if held is None:
            return False
        del self.leases[held.lease_id]
        self.ended[held.lease_id] = reason
        self._step(key, held.registered, None)
        return True

    def expired(self, now_ns: int) -> list[int]:
        """Leases whose deadline has passed."""
        return [held.lease_id for held in self.held.values() if held.deadline_ns <= now_ns and not held.lapsed]

    def since(self, revision: int) -> list[Step]:
        """What happened behind a revision. RevisionCompacted when that is not known any more."""
        if revision < self.first_step:
            raise RevisionCompacted(f"revision {revision} is compacted")
        return [step for step in self.steps if step.revision > revision]

    def touch(self) -> None:
        """Something else changed: a policy."""
        self.revision += 1
        for listener in self.listeners:
            listener.set()

    def compact(self) -> None:
        """Forget the log: whoever resumes from before now starts over."""
        self.steps.clear()
        self.first_step = self.revision

    def _change(self, key: Key, status: Status, reason: str) -> None:
        held = self.held[key]
        before = held.registered
        held.registered = before.replace(status=status, status_reason=reason, modified_revision=self.revision + 1)
        self._step(key, before, held.registered)

    def _step(self, key: Key, before: RegisteredInstance | None, after: RegisteredInstance | None) -> None:
        self.revision += 1
        self.steps.append(Step(self.revision, key, before, after))
        for listener in self.listeners:
            listener.set()


EXPIRED, DEREGISTERED, TAKEN_OVER = 2, 3, 4
"""LostLease.Reason."""


def status_of(declared: Declared) -> Status:
    """Without override, lapse and probe the declaration decides."""
    return {
        Declared.STARTING: Status.STARTING,
        Declared.DEGRADED: Status.DEGRADED,
        Declared.DRAINING: Status.DRAINING,
    }.get(declared, Status.SERVING)
