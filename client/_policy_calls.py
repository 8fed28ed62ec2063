"""What a connection does with policies."""

from __future__ import annotations

from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2, traffic_pb2
from trunkline.api.v1.policy_pb2 import TrafficPolicy

from ._connected import Connected
from ._policies import (
    AppliedPolicy,
    ChangeOptions,
    KeptPolicy,
    PolicyChange,
    PolicyState,
    applied_from,
    change_from,
    kept_from,
    late_from,
    policy_of,
    state_from,
)
from ._registration import LateClient


class PolicyCalls(Connected):
    """See Trunkline."""

    async def apply_policy(
        self, policy: TrafficPolicy | str, *, reason: str = "", expected_revision: int | None = None,
        dry_run: bool = False, force: bool = False, max_capacity_removed_percent: int | None = None,
        max_keys_moved_percent: int | None = None,
    ) -> AppliedPolicy:  # fmt: skip
        """Keep a policy (a message, or the YAML or JSON of one) in place of the one there was.

        Without a service it holds for all of the namespace that have no such section. BlastRadius when it would take
        away more than the limits (50 percent, of capacity and of keys), unless forced. RevisionMismatch when
        `expected_revision` (0: there was none) is not that of what there is. A `dry_run` says what would be done.
        """
        self._check_open()
        options = ChangeOptions(
            reason=reason, dry_run=dry_run, force=force, max_capacity_removed_percent=max_capacity_removed_percent,
            max_keys_moved_percent=max_keys_moved_percent,
        )  # fmt: skip
        answer = await self._link.call(
            lambda stubs: stubs.traffic.ApplyPolicy,
            traffic_pb2.ApplyPolicyRequest(
                policy=policy_of(policy, self._namespace),
                expected_revision=expected_revision,
                **options.fields(self._edge),
            ),
            traffic_pb2.ApplyPolicyResponse,
        )
        kept = answer.policy if answer.HasField("policy") else None  # somebody else's change may have come right after
        return applied_from(kept, answer.blast_radius, changed=answer.changed, revision=answer.header.revision)

    async def get_policy(self, service: str = "", *, namespace: str | None = None) -> PolicyState:
        """A service's own policy and what holds for it; the namespace's, when `service` is empty."""
        self._check_open()
        answer = await self._link.call(
            lambda stubs: stubs.traffic.GetPolicy,
            traffic_pb2.GetPolicyRequest(namespace=namespace or self._namespace, service=service),
            traffic_pb2.GetPolicyResponse,
        )
        return state_from(answer)

    async def list_policies(self, *, namespace: str | None = None) -> tuple[KeptPolicy, ...]:
        """Every policy of the namespace, its own first."""
        self._check_open()
        request = traffic_pb2.ListPoliciesRequest(namespace=namespace or self._namespace)
        found: list[KeptPolicy] = []
        while True:
            answer = await self._link.call(
                lambda stubs: stubs.traffic.ListPolicies, request, traffic_pb2.ListPoliciesResponse
            )
            found += map(kept_from, answer.policies)
            if not answer.next_page_token:
                return tuple(found)
            request.page_token = answer.next_page_token

    async def delete_policy(
        self, service: str = "", *, reason: str = "", expected_revision: int | None = None, dry_run: bool = False,
        force: bool = False, max_capacity_removed_percent: int | None = None,
        max_keys_moved_percent: int | None = None, namespace: str | None = None,
    ) -> AppliedPolicy:  # fmt: skip
        """Keep no policy of a service, or of the namespace. PolicyNotFound, and otherwise as `apply_policy`."""
        self._check_open()
        options = ChangeOptions(
            reason=reason, dry_run=dry_run, force=force, max_capacity_removed_percent=max_capacity_removed_percent,
            max_keys_moved_percent=max_keys_moved_percent,
        )  # fmt: skip
        answer = await self._link.call(
            lambda stubs: stubs.traffic.DeletePolicy,
            traffic_pb2.DeletePolicyRequest(
                namespace=namespace or self._namespace,
                service=service,
                expected_revision=expected_revision,
                **options.fields(self._edge),
            ),
            traffic_pb2.DeletePolicyResponse,
        )
        return applied_from(None, answer.blast_radius, changed=True, revision=answer.header.revision)

    async def policy_changes(
        self, service: str = "", *, max_changes: int = 0, namespace: str | None = None
    ) -> tuple[PolicyChange, ...]:
        """The last changes of a policy that control's history holds, newest first; 100 if `max_changes` is 0."""
        self._check_open()
        answer = await self._link.call(
            lambda stubs: stubs.traffic.ListPolicyChanges,
            traffic_pb2.ListPolicyChangesRequest(
                namespace=namespace or self._namespace, service=service, max_changes=max_changes
            ),
            traffic_pb2.ListPolicyChangesResponse,
        )
        return tuple(map(change_from, answer.changes))

    async def roll_back_policy(
        self, service: str = "", *, to: int = 0, reason: str = "", dry_run: bool = False, force: bool = False,
        max_capacity_removed_percent: int | None = None, max_keys_moved_percent: int | None = None,
        namespace: str | None = None,
    ) -> AppliedPolicy:  # fmt: skip
        """Keep again what a policy was at revision `to`, or, with 0, before its last change.

        Checked as `apply_policy` is. PolicyNotFound when there never was one, RevisionCompacted when it is too long ago.
        """
        self._check_open()
        options = ChangeOptions(
            reason=reason, dry_run=dry_run, force=force, max_capacity_removed_percent=max_capacity_removed_percent,
            max_keys_moved_percent=max_keys_moved_percent,
        )  # fmt: skip
        answer = await self._link.call(
            lambda stubs: stubs.traffic.RollBackPolicy,
            traffic_pb2.RollBackPolicyRequest(
                namespace=namespace or self._namespace, service=service, revision=to, **options.fields(self._edge)
            ),
            traffic_pb2.RollBackPolicyResponse,
        )
        kept = answer.policy if answer.HasField("policy") else None
        return applied_from(kept, answer.blast_radius, changed=answer.changed, revision=answer.header.revision)

    async def wait_until_applied(
        self, revision: int, service: str = "", *, limit_s: float = 30.0, namespace: str | None = None
    ) -> tuple[LateClient, ...]:
        """Return when everybody who watches the service (the namespace, if it is empty) has applied a revision, or after
        `limit_s`: then with those who have not."""
        self._check_open()
        answer = await self._link.call(
            lambda stubs: stubs.discovery.WaitUntilApplied,
            discovery_pb2.WaitUntilAppliedRequest(
                namespace=namespace or self._namespace,
                service=service,
                revision=revision,
                limit=convert.ms_to(int(limit_s * 1_000)),
            ),
            discovery_pb2.WaitUntilAppliedResponse,
            timeout_s=limit_s + self._options.timeout_s,
        )
        return tuple(map(late_from, answer.late))
