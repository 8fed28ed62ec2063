"""Policies in memory: what is kept of each, what holds, and what changed when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trunkline.api.policies import check_policy, merged
from trunkline.api.v1.policy_pb2 import EffectivePolicy, TrafficPolicy
from trunkline.core.errors import PolicyNotFound, RevisionMismatch

Key = tuple[str, str]
"""Namespace and service; an empty service for the namespace."""


@dataclass(frozen=True, slots=True)
class PastPolicy:
    """One change."""

    policy: TrafficPolicy | None
    revision: int
    time_ns: int
    reason: str


class MemoryPolicies:
    """Without a blast radius: nothing is refused for what it takes away."""

    def __init__(self) -> None:
        self.changes: dict[Key, list[PastPolicy]] = {}

    def last(self, key: Key) -> PastPolicy | None:
        """The last change of a policy."""
        found = self.changes.get(key)
        return found[-1] if found else None

    def own(self, key: Key) -> TrafficPolicy | None:
        """The policy itself."""
        last = self.last(key)
        return None if last is None else last.policy

    def refuse(self, key: Key, policy: TrafficPolicy | None, expected: int | None) -> None:
        """Raise what a control plane would: InvalidArgument, RevisionMismatch, PolicyNotFound."""
        last = self.last(key)
        revision = 0 if last is None or last.policy is None else last.revision
        if expected is not None and expected != revision:
            raise RevisionMismatch(f"the policy is of revision {revision}, not {expected}", revision=str(revision))
        if policy is None and not revision:
            raise PolicyNotFound(f"no policy of {key[1] or key[0]}", service=key[1])
        if policy is not None:
            check_policy(policy, self.own((key[0], "")) if key[1] else None)

    def put(self, key: Key, change: PastPolicy) -> None:
        """It is so from its revision on."""
        self.changes.setdefault(key, []).append(change)

    def effective(self, namespace: str, service: str) -> EffectivePolicy:
        """What holds for a service."""
        keys = {(namespace, ""), (namespace, service)}
        policy = merged(self.own((namespace, service)) if service else None, self.own((namespace, "")))
        policy.namespace, policy.service = namespace, service
        revisions = [last.revision for key in keys if (last := self.last(key)) is not None]
        return EffectivePolicy(service=service, policy=policy, revision=max(revisions, default=0))

    def since(self, namespace: str, service: str, revision: int) -> Iterator[EffectivePolicy]:
        """What a watch is told that knows everything up to a revision."""
        named = sorted({key[1] for key in self.changes if key[0] == namespace})
        for one in [service] if service else named:
            effective = self.effective(namespace, one)
            if effective.revision > revision:
                yield effective
