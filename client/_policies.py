"""Policies, as users change and read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trunkline.api import convert
from trunkline.api.policies import policy_from
from trunkline.api.policy_text import read_policies
from trunkline.api.v1 import traffic_pb2
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.errors import InvalidArgument
from trunkline.core.policy import Policy

from ._edge import Edge
from ._registration import LateClient


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPolicy:
    """A policy as it is kept."""

    policy: TrafficPolicy
    revision: int
    changed_at: datetime
    author: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One change of a policy."""

    policy: TrafficPolicy | None
    """None: it was deleted."""
    revision: int
    changed_at: datetime
    author: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """What is said of a service, and what holds."""

    own: KeptPolicy | None
    """Its own policy; None when it has none."""
    effective: TrafficPolicy
    """All sections that hold: its own over the namespace's, with the shares of its release."""
    policy: Policy
    """The same as values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlastRadius:
    """What a change takes away from one service."""

    service: str
    capacity_before: int
    """Weight of the instances that get calls."""
    capacity_after: int
    capacity_removed_percent: float
    keys_moved_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPolicy:
    """What a change came to."""

    policy: KeptPolicy | None
    """As it is kept now, or would be; None when there is none."""
    changed: bool
    revision: int
    """What has to be applied for the change to be; see `wait_until_applied`."""
    blast_radius: tuple[BlastRadius, ...]
    """Of each service that is touched and has instances, those that lose most first; at most 100."""


class ChangeOptions:
    """How a change is to be made: what ApplyPolicy, DeletePolicy and RollBackPolicy have in common."""

    def __init__(
        self, *, reason: str, dry_run: bool, force: bool, max_capacity_removed_percent: int | None,
        max_keys_moved_percent: int | None,
    ) -> None:  # fmt: skip
        self._said: dict[str, Any] = {"reason": reason, "dry_run": dry_run, "force": force}
        self._limits = traffic_pb2.BlastRadiusLimits(
            max_capacity_removed_percent=max_capacity_removed_percent, max_keys_moved_percent=max_keys_moved_percent
        )

    def fields(self, edge: Edge) -> dict[str, Any]:
        """Those of the request."""
        return {**self._said, "limits": self._limits, "request_id": edge.entropy(16).hex()}


def policy_of(given: TrafficPolicy | str, namespace: str) -> TrafficPolicy:
    """A policy that a user gave, as a message or as the text of one, with its namespace filled in. InvalidArgument."""
    if isinstance(given, str):
        found = read_policies(given, namespace=namespace)
        if len(found) != 1:
            raise InvalidArgument.of("policy", "one policy", f"{len(found)} policies")
        return found[0]
    policy = TrafficPolicy()
    policy.CopyFrom(given)
    policy.namespace = policy.namespace or namespace
    return policy


def kept_from(message: traffic_pb2.KeptPolicy) -> KeptPolicy:
    """A policy as it is kept."""
    return KeptPolicy(
        policy=message.policy,
        revision=message.revision,
        changed_at=message.changed_at.ToDatetime(tzinfo=UTC),
        author=message.author,
        reason=message.reason,
    )


def change_from(message: traffic_pb2.PolicyChange) -> PolicyChange:
    """One change."""
    return PolicyChange(
        policy=message.policy if message.HasField("policy") else None,
        revision=message.revision,
        changed_at=message.changed_at.ToDatetime(tzinfo=UTC),
        author=message.author,
        reason=message.reason,
    )


def state_from(message: traffic_pb2.GetPolicyResponse) -> PolicyState:
    """What is said and what holds."""
    effective = message.effective
    return PolicyState(
        own=kept_from(message.own) if message.HasField("own") else None,
        effective=effective.policy,
        policy=policy_from(effective.policy, effective.revision),
    )


def applied_from(
    kept: traffic_pb2.KeptPolicy | None, radii: Iterable[traffic_pb2.BlastRadius], *, changed: bool, revision: int
) -> AppliedPolicy:
    """What a change came to; `revision` is that of the answer."""
    return AppliedPolicy(
        policy=None if kept is None else kept_from(kept),
        changed=changed,
        revision=revision if kept is None else kept.revision,
        blast_radius=tuple(
            BlastRadius(
                service=one.service,
                capacity_before=one.capacity_before,
                capacity_after=one.capacity_after,
                capacity_removed_percent=one.capacity_removed_percent,
                keys_moved_percent=one.keys_moved_percent,
            )
            for one in radii
        ),
    )


def late_from(message: Any) -> LateClient:
    """A watcher that has not applied a revision."""
    return LateClient(
        client=message.client,
        applied_revision=message.applied_revision,
        late_by_s=convert.ms_from(message, "late_by", 0) / 1_000,
    )
