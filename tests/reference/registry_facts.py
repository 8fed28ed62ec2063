"""Records of the registry, made by hand: what tests fold."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.model import Declared, Endpoint, Instance, Status
from trunkline.core.records import Record

HERE = 7
"""A node's id."""


def instance(instance_id: str = "a", service: str = "orders", namespace: str = "default", **fields: object) -> Instance:
    """A plain instance."""
    made = Instance(namespace=namespace, service=service, id=instance_id, endpoints=(Endpoint("10.0.0.1", 8080),))
    return replace(made, **fields)  # type: ignore[arg-type]


def secret_hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


class Journal:
    """Makes records with growing offsets; a second goes by with each."""

    def __init__(self, *, offset: int = 1, time_ns: int = 1_700_000_000_000_000_000) -> None:
        self.offset = offset
        self.time_ns = time_ns

    def _record(self, topic: str, key: str, body: bytes, *, author: str = "tests", reason: str = "") -> Record:
        record = Record(
            offset=self.offset, time_ns=self.time_ns, topic=topic, key=key, body=body, author=author, reason=reason
        )
        self.offset += 1
        self.time_ns += 1_000_000_000
        return record

    def registered(self, declared: Instance, *, lease_id: int = 1, ttl_ms: int = 10_000, keeper: int = HERE) -> Record:
        body = control_pb2.InstanceRegistered(
            instance=convert.instance_to(declared),
            lease_id=lease_id,
            secret_hash=secret_hash(b"%d" % lease_id),
            ttl_ms=ttl_ms,
            keeper=keeper,
        )
        return self._record("instance.registered", declared.key, body.SerializeToString())

    def declared(self, key: str, declared: Declared) -> Record:
        body = control_pb2.InstanceDeclared(declared=convert.declared_to(declared))
        return self._record("instance.declared", key, body.SerializeToString())

    def removed(self, key: str, cause: int = control_pb2.InstanceRemoved.CAUSE_DEREGISTERED) -> Record:
        body = control_pb2.InstanceRemoved(cause=control_pb2.InstanceRemoved.Cause.ValueType(cause))
        return self._record("instance.removed", key, body.SerializeToString())

    def lapsed(self, key: str, lease_id: int = 1) -> Record:
        return self._record("lease.lapsed", key, control_pb2.LeaseLapsed(lease_id=lease_id).SerializeToString())

    def restored(self, key: str, lease_id: int = 1, keeper: int = HERE) -> Record:
        body = control_pb2.LeaseRestored(lease_id=lease_id, keeper=keeper)
        return self._record("lease.restored", key, body.SerializeToString())

    def moved(self, key: str, lease_id: int = 1, keeper: int = HERE + 1) -> Record:
        body = control_pb2.LeaseMoved(lease_id=lease_id, keeper=keeper)
        return self._record("lease.moved", key, body.SerializeToString())

    def probed(self, key: str, failure: str | None) -> Record:
        body = control_pb2.ProbeChanged(failed=failure is not None, message=failure or "")
        return self._record("probe.changed", key, body.SerializeToString())

    def policy_applied(self, policy: TrafficPolicy, *, destinations_changed: bool = False) -> Record:
        key = f"policy/{policy.namespace}/{policy.service}"
        body = control_pb2.PolicyApplied(policy=policy, destinations_changed=destinations_changed)
        return self._record("policy.applied", key, body.SerializeToString())

    def policy_deleted(self, service: str, namespace: str = "default") -> Record:
        return self._record("policy.deleted", f"policy/{namespace}/{service}", b"")

    def overridden(self, key: str, status: Status | None, reason: str = "") -> Record:
        body = control_pb2.OverrideSet(status=convert.status_to(status))
        return self._record("override.set", key, body.SerializeToString(), reason=reason)
