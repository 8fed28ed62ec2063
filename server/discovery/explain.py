"""Why a call would go where it goes: the evaluator that Pick uses, made for one question."""

from __future__ import annotations

from collections.abc import Callable

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, policy_pb2, traffic_pb2
from trunkline.core.clock import Clock, Rng
from trunkline.core.evaluator import Explanation
from trunkline.core.placement import name_of
from trunkline.core.policy import LoadBalancingPolicy, Policy
from trunkline.core.verdicts import Verdict
from trunkline.core.work import Work

from .evaluation import Policies, endpoint_that_speaks, evaluator_in_slices
from .registry_view import RegistryView, last_change

CANDIDATES_MAX = 10_000
"""Of one answer."""
SLICE = 500
"""Candidates that are written down between two turns of the loop."""

PROTOCOL_DEFAULT = "grpc"


class Explain:
    """Answers ExplainPick."""

    def __init__(
        self,
        registry: RegistryView,
        policies: Policies,
        clock: Clock,
        header: Callable[[], common_pb2.ResponseHeader],
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._clock = clock
        self._header = header

    def explain(self, request: traffic_pb2.ExplainPickRequest) -> Work[traffic_pb2.ExplainPickResponse]:
        """What holds and who is there when it begins is what the answer is about.

        Raises InvalidArgument when the selector's version range is none.
        """
        policy = self._policies.effective(request.namespace, request.service)
        state = self._registry.service(request.namespace, request.service)
        header, revision = self._header(), 0 if state is None else last_change(state)
        evaluator = yield from evaluator_in_slices(
            self._registry,
            request.namespace,
            request.service,
            policy,
            selector=convert.selector_from(request.selector),
            rng=Rng(request.seed),
            clock=self._clock,
            where=convert.locality_from(request.locality),
            ejected=dict.fromkeys(request.ejected, "taken for ejected by who asks"),
            endpoint_of=endpoint_that_speaks(request.protocol or PROTOCOL_DEFAULT),
        )
        found = yield from evaluator.explaining(tuple(request.metadata.items()), request.key.encode() or None)
        answer = traffic_pb2.ExplainPickResponse(
            header=header,
            policy_revision=policy.revision,
            registry_revision=revision,
            load_balancing=load_balancing_to(policy.load_balancing),
            destination=_destination(policy, found),
            panic=found.pool is not None and found.pool.panic,
        )
        for first in range(0, min(len(found.verdicts), CANDIDATES_MAX), SLICE):
            yield
            answer.candidates.extend(map(_candidate_to, found.verdicts[first : min(first + SLICE, CANDIDATES_MAX)]))
        if found.winner is not None:
            answer.winner = found.winner.instance.instance.id
        else:
            answer.reason = _why_nobody(request.service, found)
        return answer


def load_balancing_to(policy: LoadBalancingPolicy) -> policy_pb2.LoadBalancingPolicy:
    """Every field written out."""
    message = policy_pb2.LoadBalancingPolicy(
        algorithm=policy_pb2.LoadBalancingPolicy.Algorithm.ValueType(policy.algorithm),
        choice_count=policy.choice_count,
        active_request_bias=policy.active_request_bias,
        minimum_ring_size=policy.minimum_ring_size,
        maximum_ring_size=policy.maximum_ring_size,
        table_size=policy.table_size,
        hash_balance_factor=policy.hash_balance_factor,
    )
    if policy.hash_on is not None and policy.hash_on.caller:
        message.hash_on.caller = True
    elif policy.hash_on is not None:
        message.hash_on.header = policy.hash_on.header
    return message


def _destination(policy: Policy, found: Explanation) -> str:
    return "" if policy.split is None else f"{name_of(found.decision.destination)} ({found.decision.why})"


def _candidate_to(verdict: Verdict) -> traffic_pb2.ExplainedCandidate:
    candidate = verdict.candidate
    registered, instance = candidate.instance, candidate.instance.instance
    endpoint = candidate.endpoint or next(iter(instance.endpoints), None)
    return traffic_pb2.ExplainedCandidate(
        id=instance.id,
        address="" if endpoint is None else endpoint.address,
        version=instance.version,
        status=convert.status_to(registered.status),
        locality=convert.locality_to(instance.locality),
        exclusions=[traffic_pb2.Exclusion(rule=one.rule, detail=one.detail) for one in verdict.exclusions],
        weight=verdict.weight,
        share_percent=verdict.share_percent,
    )


def _why_nobody(service: str, found: Explanation) -> str:
    if not found.verdicts:
        return f"{service} has no instances"
    rules = sorted({one.rule for verdict in found.verdicts for one in verdict.exclusions})
    return f"all instances of {service} are left out: {', '.join(rules)}"
