"""One change of a policy, decided against what there is when its record is made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.policies import check_policy
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.errors import InvalidArgument, LimitExceeded, PolicyNotFound, RevisionMismatch
from trunkline.core.records import Change
from trunkline.server.journal.control.fold import View

from .config import TrafficConfig
from .effective import destinations_differ
from .fold import POLICY_APPLIED, POLICY_DELETED, PoliciesFold, PolicyEntity, policy_key

HOPS_MAX = 1_000
"""Services that a chain of fallbacks is followed through."""
PATH_SHOWN = 8
"""Services of a cycle that a refusal names."""

Basis = tuple[int, int, int]
"""Revisions of what a judgement rests on: of the policy, of the namespace's, and of any in the namespace where that
counts."""


class Decision:
    """Decides, when it is called, whether the change may be made, and makes its record.

    What takes long, because it looks at instances and at other services, is judged by the caller: where that is not done
    yet, or what it rested on has changed, nothing is written and `unjudged` says on what it has to rest.
    """

    def __init__(
        self,
        fold: PoliciesFold,
        config: TrafficConfig,
        namespace: str,
        service: str,
        policy: TrafficPolicy | None,
        *,
        expected: int | None,
        must_exist: bool,
        forced: bool,
    ) -> None:
        """`policy` None deletes. `expected` is the revision that the change was made against, 0 for none."""
        self.namespace = namespace
        self.service = service
        self.policy = policy
        self.judged: Basis | None = None
        """What the caller has judged the change against, and found good."""
        self.unjudged: Basis | None = None
        self._fold = fold
        self._config = config
        self._key = policy_key(namespace, service)
        self._expected = expected
        self._must_exist = must_exist
        self._forced = forced

    def __call__(self, view: View) -> Sequence[Change]:
        self.unjudged = None
        found: PolicyEntity | None = view.get(self._key)
        self._refuse_unexpected(found)
        if (None if found is None else found.policy) == self.policy:
            return []
        self._refuse_bad(view)
        if found is None and self._count() >= self._config.policies_per_namespace_max:
            raise LimitExceeded("policies_per_namespace_max", self._config.policies_per_namespace_max)
        basis = self._basis(view, found)
        if self.judged != basis:
            self.unjudged = basis
            return []
        if not self.service and view.pending(policy_key(self.namespace, "")):
            return []  # what is on its way was not judged; it is decided again when that is there
        return [self._change(found)]

    def _refuse_unexpected(self, found: PolicyEntity | None) -> None:
        revision = 0 if found is None else found.revision
        if self._expected is not None and self._expected != revision:
            raise RevisionMismatch(
                f"the policy is of revision {revision}, not {self._expected}"
                if revision
                else f"there is no policy, expected was one of revision {self._expected}",
                revision=str(revision),
            )
        if found is None and self._must_exist:
            raise PolicyNotFound(f"no policy of {name_of(self.namespace, self.service)}", service=self.service)

    def _refuse_bad(self, view: View) -> None:
        default = self._default(view)
        if self.policy is not None:
            check_policy(self.policy, default if self.service else None)
        first = self.service or (default.fallback.service if default is not None else "")
        path = cycle_from(first, lambda service: self._fallback_of(view, service)) if first else ()
        if path:
            rule = f"must not lead back to where the call came from: {' -> '.join(path)}"
            raise InvalidArgument.of("fallback.service", rule, path[1])

    def _default(self, view: View) -> TrafficPolicy | None:
        """The namespace's policy, with the change."""
        if not self.service:
            return self.policy
        found: PolicyEntity | None = view.get(policy_key(self.namespace, ""))
        return None if found is None else found.policy

    def _fallback_of(self, view: View, service: str) -> str:
        """The service that a service falls back to, with the change; "" if none."""
        own = self.policy
        if service != self.service:
            found: PolicyEntity | None = view.get(policy_key(self.namespace, service))
            own = None if found is None else found.policy
        default = self._default(view)
        for policy in (own, default):
            if policy is not None and policy.HasField("fallback"):
                return policy.fallback.service
        return ""

    def _count(self) -> int:
        return sum(one.policy is not None for one in self._fold.of_namespace(self.namespace).values())

    def _basis(self, view: View, found: PolicyEntity | None) -> Basis:
        default: PolicyEntity | None = view.get(policy_key(self.namespace, ""))
        own, others = (0 if one is None else one.revision for one in (found, default))
        return own, others, 0 if self.service else self._fold.last_change(self.namespace)

    def _change(self, found: PolicyEntity | None) -> Change:
        topic, body = POLICY_DELETED, control_pb2.PolicyDeleted(forced=self._forced).SerializeToString()
        if self.policy is not None:
            changed = destinations_differ(None if found is None else found.policy, self.policy)
            applied = control_pb2.PolicyApplied(policy=self.policy, forced=self._forced, destinations_changed=changed)
            topic, body = POLICY_APPLIED, applied.SerializeToString(deterministic=True)
        return Change(topic=topic, key=self._key, body=body, namespace=self.namespace)


def cycle_from(first: str, next_of: Callable[[str], str]) -> Sequence[str]:
    """The services of the cycle that a chain of fallbacks runs into, its first at both ends; empty when it ends.

    What is left out of a long one is shown as "...".
    """
    seen: dict[str, int] = {}
    service = first
    while service and service not in seen and len(seen) < HOPS_MAX:
        seen[service] = len(seen)
        service = next_of(service)
    if service not in seen:
        return ()
    path = [*list(seen)[seen[service] :], service]
    return path if len(path) <= PATH_SHOWN else [*path[: PATH_SHOWN - 2], "...", service]


def name_of(namespace: str, service: str) -> str:
    """How people call whose policy it is."""
    return f"{service} in {namespace}" if service else f"namespace {namespace}"
