"""What the registry may and must do, slowly and plainly.

The model holds what holders did and when they were last heard of. It does not know when exactly the registry will look:
it is shown every change and says whether that was allowed, and it says what must be so by now.
"""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.core.model import Declared, Instance, RegisteredInstance, Status
from trunkline.server.registry.changes import RegistryChange

LATE_S = 1.0
"""How much later than its TTL a lease may still live."""
RETENTION_S = 600.0
Name = tuple[str, str]
"""Service and instance id."""


@dataclass
class Known:
    """An instance as its holder and operators left it."""

    instance: Instance
    secret: bytes
    ttl_s: float
    heard_s: float
    lapsed_s: float | None = None
    lapsed_wall_s: float = 0.0
    override: Status | None = None

    def status(self) -> Status:
        declared = {
            Declared.DRAINING: Status.DRAINING,
            Declared.STARTING: Status.STARTING,
            Declared.DEGRADED: Status.DEGRADED,
            Declared.SERVING: Status.SERVING,
        }[self.instance.declared]
        return self.override or (declared if self.lapsed_s is None else Status.STALE)

    def serves(self) -> bool:
        return self.lapsed_s is None and self.status() in (Status.SERVING, Status.DEGRADED)


class Model:
    """One namespace."""

    def __init__(self) -> None:
        self.known: dict[Name, Known] = {}
        self.now_ms = 0
        """Time that passed while the server was listening."""
        self.deaf_s = 0.0
        """Time that passed while it was not: it stood still, or was down."""
        self.served_since_s: dict[str, float] = {}
        self.held_s = 0.0

    @property
    def now_s(self) -> float:
        return self.now_ms / 1_000

    # What is asked, and what the answer must be.

    def register(self, instance: Instance, secret: bytes, ttl_s: float, *, take_over: bool) -> tuple[bool, bool]:
        """(accepted, changed)."""
        name = (instance.service, instance.id)
        there = self.known.get(name)
        if there is not None and there.secret != secret and there.lapsed_s is None and not take_over:
            return False, False
        same = there is not None and there.secret == secret
        changed = (
            there is None
            or not same
            or there.lapsed_s is not None
            or (there.instance, there.ttl_s) != (instance, ttl_s)
        )
        override = None if there is None else there.override
        self.known[name] = Known(instance, secret, ttl_s, self.now_s, override=override)
        return True, changed

    def heard_of(self, name: Name, secret: bytes) -> bool:
        """A keep-alive: whether the lease is there."""
        there = self.known.get(name)
        if there is None or there.secret != secret:
            return False
        there.heard_s = self.now_s
        there.lapsed_s = None
        return True

    def started(self) -> None:
        """The server started: everyone alive has a full TTL, and the others as long to come back."""
        self.held_s = self.now_s + max((t.ttl_s for t in self.known.values() if t.lapsed_s is not None), default=0.0)
        for there in self.known.values():
            if there.lapsed_s is None:
                there.heard_s = self.now_s

    # What the registry did by itself.

    def saw(self, change: RegistryChange) -> None:
        """A change that nobody asked for: was it allowed?"""
        name = (change.service, change.instance_id)
        there = self.known[name]
        silent_s = self.now_s - there.heard_s
        if change.what == "lease lapsed":
            assert there.lapsed_s is None, f"{name} lapsed twice"
            assert silent_s >= there.ttl_s, f"{name} lapsed after {silent_s} s of {there.ttl_s}"
            there.lapsed_s = self.now_s
            there.lapsed_wall_s = self.now_s + self.deaf_s
        elif change.what == "expired":
            assert silent_s >= there.ttl_s, f"{name} expired after {silent_s} s of {there.ttl_s}"
            del self.known[name]
            kept_s = self.now_s + self.deaf_s - there.lapsed_wall_s
            over = there.lapsed_s is not None and kept_s >= RETENTION_S - 2 * LATE_S
            leaving = there.instance.declared is Declared.DRAINING
            assert over or leaving or self.somebody_serves(change.service), f"{change.service} emptied by accident"
        else:
            assert change.what == "lease restored", change.what

    def somebody_serves(self, service: str) -> bool:
        return any(there.serves() for (of, _), there in self.known.items() if of == service)

    def look(self) -> None:
        """Note in which services somebody began to serve."""
        for service in {service for service, _ in self.known}:
            if self.somebody_serves(service):
                self.served_since_s.setdefault(service, self.now_s)
            else:
                self.served_since_s.pop(service, None)

    # What must be so.

    def check(self, shown: dict[Name, RegisteredInstance], *, paused: bool) -> None:
        """The registry shows what the model knows, and the dead are behind the living in time."""
        self.look()
        assert shown.keys() == self.known.keys()
        for name, there in self.known.items():
            assert shown[name].instance == there.instance
            silent_s = self.now_s - there.heard_s
            if silent_s < there.ttl_s:
                assert shown[name].status is (there.override or there.status()), name
                assert there.lapsed_s is None, f"{name} is alive and taken for dead"
            elif silent_s > there.ttl_s + LATE_S:
                assert there.lapsed_s is not None, f"{name} is dead and taken for alive"
                served_since_s = self.served_since_s.get(name[0], self.now_s)
                if not paused and self.now_s - max(there.lapsed_s, served_since_s, self.held_s) > 2 * LATE_S:
                    raise AssertionError(f"{name} is kept though others serve")
