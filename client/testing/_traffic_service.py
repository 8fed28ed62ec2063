"""TrafficService over MemoryPolicies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.api import convert
from trunkline.api.policies import merged
from trunkline.api.v1 import common_pb2, traffic_pb2, traffic_pb2_grpc
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.clock import Clock
from trunkline.core.errors import PolicyNotFound, RevisionInFuture

from ._policies import Key, MemoryPolicies, PastPolicy
from ._registry import MemoryRegistry
from ._registry_service import answered

AUTHOR = "loopback"


class TrafficServicer(traffic_pb2_grpc.TrafficServiceServicer):
    """All but ExplainPick."""

    def __init__(
        self,
        registry: MemoryRegistry,
        policies: MemoryPolicies,
        clock: Clock,
        header: Callable[[], common_pb2.ResponseHeader],
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._clock = clock
        self._header = header

    def change(
        self, key: Key, policy: TrafficPolicy | None, *, expected: int | None = None, reason: str = "",
        dry_run: bool = False,
    ) -> bool:  # fmt: skip
        """Whether anything is, or would be, different. Raises what ApplyPolicy and DeletePolicy are refused with."""
        self._policies.refuse(key, policy, expected)
        if policy == self._policies.own(key):
            return False
        if not dry_run:
            kept = None if policy is None else merged(policy, None)
            self._policies.put(key, PastPolicy(kept, self._registry.revision + 1, self._clock.time_ns(), reason))
            self._registry.touch()
        return True

    async def ApplyPolicy(
        self, request: traffic_pb2.ApplyPolicyRequest, context: Any
    ) -> traffic_pb2.ApplyPolicyResponse:
        async def answer() -> traffic_pb2.ApplyPolicyResponse:
            policy = request.policy
            key = policy.namespace, policy.service
            changed = self.change(
                key, policy, expected=_expected(request), reason=request.reason, dry_run=request.dry_run
            )
            kept = traffic_pb2.KeptPolicy(policy=policy) if request.dry_run else self._kept(key)
            return traffic_pb2.ApplyPolicyResponse(header=self._header(), policy=kept, changed=changed)

        return await answered(context, answer)

    async def GetPolicy(self, request: traffic_pb2.GetPolicyRequest, context: Any) -> traffic_pb2.GetPolicyResponse:
        async def answer() -> traffic_pb2.GetPolicyResponse:
            key = request.namespace, request.service
            if request.HasField("revision"):
                past = self._at(key, request.revision)
                return traffic_pb2.GetPolicyResponse(header=self._header(), own=_kept_to(past))
            effective = self._policies.effective(*key)
            return traffic_pb2.GetPolicyResponse(header=self._header(), own=self._kept(key), effective=effective)

        return await answered(context, answer)

    async def ListPolicies(
        self, request: traffic_pb2.ListPoliciesRequest, context: Any
    ) -> traffic_pb2.ListPoliciesResponse:
        keys = sorted(key for key in self._policies.changes if request.namespace in ("", key[0]))
        kept = [one for key in keys if (one := self._kept(key)) is not None]
        return traffic_pb2.ListPoliciesResponse(header=self._header(), policies=kept)

    async def DeletePolicy(
        self, request: traffic_pb2.DeletePolicyRequest, context: Any
    ) -> traffic_pb2.DeletePolicyResponse:
        async def answer() -> traffic_pb2.DeletePolicyResponse:
            key = request.namespace, request.service
            self.change(key, None, expected=_expected(request), reason=request.reason, dry_run=request.dry_run)
            return traffic_pb2.DeletePolicyResponse(header=self._header())

        return await answered(context, answer)

    async def ListPolicyChanges(
        self, request: traffic_pb2.ListPolicyChangesRequest, context: Any
    ) -> traffic_pb2.ListPolicyChangesResponse:
        changes = list(reversed(self._policies.changes.get((request.namespace, request.service), [])))
        most = request.max_changes or 100
        return traffic_pb2.ListPolicyChangesResponse(
            header=self._header(), changes=map(_change_to, changes[:most]), truncated=len(changes) > most
        )

    async def RollBackPolicy(
        self, request: traffic_pb2.RollBackPolicyRequest, context: Any
    ) -> traffic_pb2.RollBackPolicyResponse:
        async def answer() -> traffic_pb2.RollBackPolicyResponse:
            key = request.namespace, request.service
            last = self._policies.last(key)
            if last is None:
                raise PolicyNotFound(f"there never was a policy of {key[1] or key[0]}", service=key[1])
            past = self._at(key, request.revision or last.revision - 1)
            policy, own = None if past is None else past.policy, self._policies.own(key)
            changed = policy != own and self.change(key, policy, reason=request.reason, dry_run=request.dry_run)
            return traffic_pb2.RollBackPolicyResponse(header=self._header(), policy=self._kept(key), changed=changed)

        return await answered(context, answer)

    def _at(self, key: Key, revision: int) -> PastPolicy | None:
        if revision > self._registry.revision:
            raise RevisionInFuture(f"revision {revision} is asked for, the registry is at {self._registry.revision}")
        found = [one for one in self._policies.changes.get(key, []) if one.revision <= revision]
        return found[-1] if found else None

    def _kept(self, key: Key) -> traffic_pb2.KeptPolicy | None:
        return _kept_to(self._policies.last(key))


def _expected(request: Any) -> int | None:
    return request.expected_revision if request.HasField("expected_revision") else None


def _kept_to(past: PastPolicy | None) -> traffic_pb2.KeptPolicy | None:
    if past is None or past.policy is None:
        return None
    return traffic_pb2.KeptPolicy(
        policy=past.policy,
        revision=past.revision,
        changed_at=convert.time_ns_to(past.time_ns),
        author=AUTHOR,
        reason=past.reason,
    )


def _change_to(past: PastPolicy) -> traffic_pb2.PolicyChange:
    return traffic_pb2.PolicyChange(
        policy=past.policy,
        revision=past.revision,
        changed_at=convert.time_ns_to(past.time_ns),
        author=AUTHOR,
        reason=past.reason,
    )
