"""From trunkline.api.v1.TrafficPolicy to core.policy.Policy, with the contract's defaults filled in; and policies over
one another.

Messages are taken as checked, by trunkline.api.rules and by trunkline.api.policy_checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from trunkline.core import policy as core
from trunkline.core.policy import Policy

from .policy_checks import check_policy as check_policy
from .v1 import policy_pb2

DEFAULTS = Policy()
_OUTLIER = core.OutlierDetection()
_BREAKER = core.CircuitBreaker()
_BUDGET = core.RetryBudget()
_NAMES = frozenset({"namespace", "service"})
MAX_INTERVAL_FACTOR = 10
"""max_interval is so many base_intervals where nothing is said."""


def merged(own: policy_pb2.TrafficPolicy | None, default: policy_pb2.TrafficPolicy | None) -> policy_pb2.TrafficPolicy:
    """A service's own policy over the namespace's: each section is from the one or from the other. A list is a section."""
    result = policy_pb2.TrafficPolicy()
    if default is not None:
        result.CopyFrom(default)
        result.service = ""
    if own is None:
        return result
    for field, value in own.ListFields():
        if field.is_repeated:
            del getattr(result, field.name)[:]
            getattr(result, field.name).extend(value)
        elif field.message_type is not None:
            getattr(result, field.name).CopyFrom(value)
        else:
            setattr(result, field.name, value)
    return result


def sections_of(policy: policy_pb2.TrafficPolicy) -> frozenset[str]:
    """What the policy says anything of."""
    return frozenset(field.name for field, _ in policy.ListFields()) - _NAMES


def policy_from(message: policy_pb2.TrafficPolicy, revision: int) -> Policy:
    """The policy as values."""
    m = message
    return Policy(
        load_balancing=_load_balancing(m.load_balancing),
        locality=_locality(m.locality) if m.HasField("locality") else None,
        slow_start=_slow_start(m.slow_start) if m.HasField("slow_start") else None,
        healthy_panic_threshold=_given(m, "healthy_panic_threshold", DEFAULTS.healthy_panic_threshold),
        subsets=tuple(core.Subset(name=s.name, version=s.version, labels=dict(s.labels)) for s in m.subsets),
        limits=core.Limits(
            max_requests=m.limits.max_requests, max_requests_per_endpoint=m.limits.max_requests_per_endpoint
        ),
        outlier_detection=_outlier_detection(m.outlier_detection) if m.HasField("outlier_detection") else None,
        circuit_breaker=_circuit_breaker(m.circuit_breaker) if m.HasField("circuit_breaker") else None,
        endpoint_circuit_breaker=(
            _circuit_breaker(m.endpoint_circuit_breaker) if m.HasField("endpoint_circuit_breaker") else None
        ),
        retry=_retry(m.retry) if m.HasField("retry") else None,
        timeout_ns=_ns(m, "timeout", 0),
        rate_limits=tuple(map(_rate_limit, m.rate_limits)),
        fallback=_fallback(m.fallback) if m.HasField("fallback") else None,
        split=split_from(m.split) if m.HasField("split") else None,
        revision=revision,
    )


def split_from(m: policy_pb2.Split) -> core.Split:
    """Shares, and the matches that come before them."""
    return core.Split(
        matches=tuple(
            core.Match(
                conditions=tuple(map(_condition, match.conditions)), destination=destination_from(match.destination)
            )
            for match in m.matches
        ),
        destinations=tuple(map(destination_from, m.destinations)),
        sticky_on=key_source_from(m.sticky_on) if m.HasField("sticky_on") else None,
    )


def destination_from(m: policy_pb2.Split.Destination) -> core.Destination:
    """A part of a service, and its weight."""
    return core.Destination(subset=m.subset, version=m.version, weight=m.weight)


def destination_to(destination: core.Destination) -> policy_pb2.Split.Destination:
    """The message of a destination."""
    message = policy_pb2.Split.Destination(weight=destination.weight)
    if destination.subset:
        message.subset = destination.subset
    else:
        message.version = destination.version
    return message


def key_source_to(source: core.KeySource) -> policy_pb2.KeySource:
    """The message of a key's source."""
    return policy_pb2.KeySource(caller=True) if source.caller else policy_pb2.KeySource(header=source.header)


def key_source_from(m: policy_pb2.KeySource) -> core.KeySource:
    """A property of a call."""
    return core.KeySource(header=m.header, caller=m.caller)


def _given(message: Message, field: str, default: Any) -> Any:
    """A field that may be absent."""
    return getattr(message, field) if message.HasField(field) else default


def _ns(message: Message, field: str, default_ns: int) -> int:
    """Nanoseconds of a duration; the default when it is absent."""
    if not message.HasField(field):
        return default_ns
    duration = getattr(message, field)
    ns: int = duration.seconds * 1_000_000_000 + duration.nanos
    return ns


def _codes(given: Iterable[int], default: core.Codes) -> core.Codes:
    return frozenset(map(core.StatusCode, given)) or default


def _load_balancing(m: policy_pb2.LoadBalancingPolicy) -> core.LoadBalancingPolicy:
    default = DEFAULTS.load_balancing
    return core.LoadBalancingPolicy(
        algorithm=core.Algorithm(m.algorithm or default.algorithm),
        choice_count=m.choice_count or default.choice_count,
        active_request_bias=_given(m, "active_request_bias", default.active_request_bias),
        hash_on=key_source_from(m.hash_on) if m.HasField("hash_on") else None,
        minimum_ring_size=m.minimum_ring_size or default.minimum_ring_size,
        maximum_ring_size=m.maximum_ring_size or default.maximum_ring_size,
        table_size=m.table_size or default.table_size,
        hash_balance_factor=m.hash_balance_factor,
    )


def _locality(m: policy_pb2.LocalityPreference) -> core.LocalityPreference:
    default = core.LocalityPreference()
    return core.LocalityPreference(
        nearest=core.LocalityScope(m.nearest or default.nearest),
        overprovisioning_factor=m.overprovisioning_factor or default.overprovisioning_factor,
        min_instances=m.min_instances or default.min_instances,
    )


def _slow_start(m: policy_pb2.SlowStart) -> core.SlowStart:
    return core.SlowStart(
        window_ns=_ns(m, "window", 0),
        aggression=_given(m, "aggression", core.SlowStart(window_ns=0).aggression),
        min_weight_percent=m.min_weight_percent or core.SlowStart(window_ns=0).min_weight_percent,
    )


_OUTLIER_DURATIONS = ("interval", "base_ejection_time", "max_ejection_time_jitter")
_OUTLIER_FLAGS = ("split_external_local_origin_errors", "always_eject_one_host")
_OUTLIER_NUMBERS = tuple(
    field.name
    for field in policy_pb2.OutlierDetection.DESCRIPTOR.fields
    if field.message_type is None and field.name not in _OUTLIER_FLAGS
)


def _outlier_detection(m: policy_pb2.OutlierDetection) -> core.OutlierDetection:
    values: dict[str, Any] = {name: _given(m, name, getattr(_OUTLIER, name)) for name in _OUTLIER_NUMBERS}
    values |= {name: getattr(m, name) for name in _OUTLIER_FLAGS}
    values |= {f"{name}_ns": _ns(m, name, getattr(_OUTLIER, f"{name}_ns")) for name in _OUTLIER_DURATIONS}
    longest_ns = max(_OUTLIER.max_ejection_time_ns, values["base_ejection_time_ns"])
    return core.OutlierDetection(max_ejection_time_ns=_ns(m, "max_ejection_time", longest_ns), **values)


_BREAKER_NUMBERS = (
    "sliding_window_size",
    "minimum_number_of_calls",
    "failure_rate_threshold",
    "slow_call_rate_threshold",
    "permitted_number_of_calls_in_half_open_state",
    "multiplier_percent",
    "max_rejection_percent",
)
_BREAKER_DURATIONS = (
    "slow_call_duration_threshold",
    "wait_duration_in_open_state",
    "max_wait_duration_in_half_open_state",
)


def _circuit_breaker(m: policy_pb2.CircuitBreaker) -> core.CircuitBreaker:
    values: dict[str, Any] = {name: getattr(m, name) or getattr(_BREAKER, name) for name in _BREAKER_NUMBERS}
    values |= {f"{name}_ns": _ns(m, name, getattr(_BREAKER, f"{name}_ns")) for name in _BREAKER_DURATIONS}
    # What is said to be ignored is not recorded, though it may be one of those that count where nothing is said.
    ignored = _codes(m.ignore_codes, _BREAKER.ignore_codes)
    return core.CircuitBreaker(
        mode=core.BreakerMode(m.mode or _BREAKER.mode),
        sliding_window_type=core.BreakerWindow(m.sliding_window_type or _BREAKER.sliding_window_type),
        record_codes=_codes(m.record_codes, _BREAKER.record_codes - ignored),
        ignore_codes=ignored,
        forced=core.Forced(m.forced),
        **values,
    )


def _retry(m: policy_pb2.Retry) -> core.Retry:
    default = core.Retry(max_attempts=m.max_attempts)
    base_ns = _ns(m, "base_interval", default.base_interval_ns)
    budget = m.budget
    return core.Retry(
        max_attempts=m.max_attempts,
        retryable_status_codes=_codes(m.retryable_status_codes, default.retryable_status_codes),
        base_interval_ns=base_ns,
        max_interval_ns=_ns(m, "max_interval", MAX_INTERVAL_FACTOR * base_ns),
        per_try_timeout_ns=_ns(m, "per_try_timeout", 0),
        budget=core.RetryBudget(
            budget_percent=_given(budget, "budget_percent", _BUDGET.budget_percent),
            min_retries_per_second=_given(budget, "min_retries_per_second", _BUDGET.min_retries_per_second),
            ttl_ns=_ns(budget, "ttl", _BUDGET.ttl_ns),
        ),
    )


def _rate_limit(m: policy_pb2.RateLimit) -> core.RateLimit:
    return core.RateLimit(
        max_tokens=m.max_tokens,
        fill_interval_ns=_ns(m, "fill_interval", 0),
        tokens_per_fill=m.tokens_per_fill or 1,
        per=core.RatePer(m.per or core.RatePer.SERVICE),
        key=key_source_from(m.key) if m.HasField("key") else None,
    )


def _fallback(m: policy_pb2.Fallback) -> core.Fallback:
    return core.Fallback(
        subset=m.subset,
        service=m.service,
        answers={answer.method: answer.response for answer in m.answers.answers},
        on_codes=_codes(m.on_codes, core.Fallback().on_codes),
    )


def _condition(m: policy_pb2.Split.Condition) -> core.Condition:
    return core.Condition(
        header=m.header,
        exact=_given(m, "exact", None),
        prefix=_given(m, "prefix", None),
        present=m.present,
    )
