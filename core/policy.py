"""How a service is called: the policy that holds for it, as values. Immutable; no I/O, no protobuf.

Names, fields and defaults are the contract's (trunkline.api.v1.policy), where each is explained. A section that is None
is not there: nothing of its kind is done. Durations are nanoseconds, shares percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from trunkline.core.model import NO_LABELS

MS = 1_000_000
S = 1_000 * MS


class StatusCode(IntEnum):
    """gRPC's (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


Codes: TypeAlias = frozenset[StatusCode]

FAILURES: Codes = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
"""What counts as a failure of who was called, unless a breaker says otherwise."""


class Algorithm(IntEnum):
    """Values are the contract's LoadBalancing."""

    ROUND_ROBIN = 1
    RANDOM = 2
    WEIGHTED_RANDOM = 3
    LEAST_REQUEST = 4
    RING_HASH = 5
    MAGLEV = 6


HASHING = frozenset({Algorithm.RING_HASH, Algorithm.MAGLEV})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """A property of a call: the value of a metadata key, or who calls."""

    header: str = ""
    caller: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancingPolicy:
    """Which of the candidates gets a call."""

    algorithm: Algorithm = Algorithm.ROUND_ROBIN
    choice_count: int = 2
    active_request_bias: float = 1.0
    hash_on: KeySource | None = None
    minimum_ring_size: int = 1_024
    maximum_ring_size: int = 65_536
    table_size: int = 65_537
    hash_balance_factor: int = 0


class LocalityScope(IntEnum):
    """Values are the contract's; larger is nearer."""

    REGION = 1
    ZONE = 2
    SUB_ZONE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityPreference:
    """Near instances first."""

    nearest: LocalityScope = LocalityScope.ZONE
    overprovisioning_factor: int = 140
    min_instances: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStart:
    """New instances get their weight little by little."""

    window_ns: int
    aggression: float = 1.0
    min_weight_percent: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """A named part of a service."""

    name: str
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Calls in flight of one caller; 0 sets none."""

    max_requests: int = 0
    max_requests_per_endpoint: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """Envoy's (envoy.config.cluster.v3.OutlierDetection)."""

    consecutive_5xx: int = 5
    interval_ns: int = 10 * S
    base_ejection_time_ns: int = 30 * S
    max_ejection_percent: int = 10
    enforcing_consecutive_5xx: int = 100
    enforcing_success_rate: int = 100
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1_900
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    enforcing_local_origin_success_rate: int = 100
    failure_percentage_threshold: int = 85
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    max_ejection_time_ns: int = 300 * S
    max_ejection_time_jitter_ns: int = 0
    always_eject_one_host: bool = False


class BreakerMode(IntEnum):
    """FAST opens at once at the threshold; GRADUAL sheds a share that grows with the failures."""

    FAST = 1
    GRADUAL = 2


class BreakerWindow(IntEnum):
    """What the sliding window is measured in: calls or seconds."""

    COUNT_BASED = 1
    TIME_BASED = 2


class Forced(IntEnum):
    """What an operator sets by hand."""

    NOT = 0
    OPEN = 1
    DISABLED = 2
    METRICS_ONLY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Resilience4j's names and defaults; the last two are of GRADUAL alone."""

    mode: BreakerMode = BreakerMode.FAST
    sliding_window_type: BreakerWindow = BreakerWindow.COUNT_BASED
    sliding_window_size: int = 100
    minimum_number_of_calls: int = 100
    failure_rate_threshold: int = 50
    slow_call_rate_threshold: int = 100
    slow_call_duration_threshold_ns: int = 60 * S
    wait_duration_in_open_state_ns: int = 60 * S
    permitted_number_of_calls_in_half_open_state: int = 10
    max_wait_duration_in_half_open_state_ns: int = 0
    record_codes: Codes = FAILURES
    ignore_codes: Codes = frozenset()
    forced: Forced = Forced.NOT
    multiplier_percent: int = 200
    max_rejection_percent: int = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """In any `ttl_ns`, at most so many retries."""

    budget_percent: int = 20
    min_retries_per_second: int = 3
    ttl_ns: int = 10 * S


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call that failed is sent again."""

    max_attempts: int
    retryable_status_codes: Codes = frozenset({StatusCode.UNAVAILABLE})
    base_interval_ns: int = 25 * MS
    max_interval_ns: int = 250 * MS
    per_try_timeout_ns: int = 0
    """0 sets none."""
    budget: RetryBudget = RetryBudget()


class RatePer(IntEnum):
    """Who shares a bucket."""

    SERVICE = 1
    METHOD = 2
    KEY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket."""

    max_tokens: int
    fill_interval_ns: int
    tokens_per_fill: int = 1
    per: RatePer = RatePer.SERVICE
    key: KeySource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Where else an answer comes from: one of the three."""

    subset: str = ""
    service: str = ""
    answers: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    """Serialized responses, by "/package.Service/Method"."""
    on_codes: Codes = frozenset({StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A part of a service: a subset, or a range of versions."""

    subset: str = ""
    version: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Of a metadata key's value. None and False are not asked."""

    header: str
    exact: str | None = None
    prefix: str | None = None
    present: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Calls for which every condition holds go to one destination."""

    conditions: tuple[Condition, ...]
    destination: Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which versions get a service's calls."""

    matches: tuple[Match, ...] = ()
    destinations: tuple[Destination, ...] = ()
    sticky_on: KeySource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that holds for calls to one service."""

    load_balancing: LoadBalancingPolicy = LoadBalancingPolicy()
    locality: LocalityPreference | None = None
    slow_start: SlowStart | None = None
    healthy_panic_threshold: int = 50
    subsets: tuple[Subset, ...] = ()
    limits: Limits = Limits()
    outlier_detection: OutlierDetection | None = None
    circuit_breaker: CircuitBreaker | None = None
    endpoint_circuit_breaker: CircuitBreaker | None = None
    retry: Retry | None = None
    timeout_ns: int = 0
    """0 sets none."""
    rate_limits: tuple[RateLimit, ...] = ()
    fallback: Fallback | None = None
    split: Split | None = None
    revision: int = 0
    """Of the last change to what holds; 0 when nothing was ever said."""


PLAIN = Policy()
"""What holds where nobody has said anything."""
