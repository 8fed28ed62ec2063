"""What a policy may not say although each of its fields is right, and what it means where it says nothing."""

from __future__ import annotations

import pytest

from trunkline.api.policies import check_policy, policy_from
from trunkline.api.policy_text import read_policies
from trunkline.api.rules import checker
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core import policy as core
from trunkline.core.breaker import Breaker
from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument
from trunkline.core.maglev import Maglev
from trunkline.core.policy import StatusCode
from trunkline.core.ring import Ring
from trunkline.core.selection import LeastRequest

S = 1_000_000_000


def policy(text: str, service: str = "cart") -> TrafficPolicy:
    [made] = read_policies(text, namespace="shop")
    made.service = service
    return made


def refused(text: str, default: str = "") -> list[tuple[str, str]]:
    """Paths and rules, "" when nothing is wrong."""
    made = policy(text)
    try:
        checker(TrafficPolicy.DESCRIPTOR)(made)
        check_policy(made, policy(default, "") if default else None)
    except InvalidArgument as error:
        return [(violation.field, violation.rule) for violation in error.violations]
    return []


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        # Load balancing
        ("load_balancing: {hash_on: {caller: true}}", "load_balancing.hash_on", "only with algorithm ring_hash or maglev"),
        ("load_balancing: {algorithm: random, hash_balance_factor: 150}", "load_balancing.hash_balance_factor", "only with"),
        ("load_balancing: {algorithm: ring_hash, table_size: 7}", "load_balancing.table_size", "only with algorithm maglev"),
        ("load_balancing: {algorithm: maglev, maximum_ring_size: 2000}", "load_balancing.maximum_ring_size", "only with"),
        ("load_balancing: {algorithm: maglev, choice_count: 7}", "load_balancing.choice_count", "algorithm least_request"),
        ("load_balancing: {active_request_bias: 0}", "load_balancing.active_request_bias", "only with"),
        ("load_balancing: {algorithm: least_request, choice_count: 1}", "load_balancing.choice_count", "at least 2"),
        ("load_balancing: {algorithm: maglev, table_size: 65536}", "load_balancing.table_size", "must be a prime"),
        ("load_balancing: {algorithm: maglev, table_size: 1}", "load_balancing.table_size", "must be a prime"),
        ("load_balancing: {algorithm: ring_hash, hash_balance_factor: 99}", "load_balancing.hash_balance_factor", "100"),
        (
            "load_balancing: {algorithm: ring_hash, minimum_ring_size: 9, maximum_ring_size: 8}",
            "load_balancing.minimum_ring_size", "must be at most maximum_ring_size, which is 8",
        ),
        ("load_balancing: {algorithm: ring_hash, minimum_ring_size: 65537}", "load_balancing.minimum_ring_size", "65536"),
        ("load_balancing: {algorithm: ring_hash, maximum_ring_size: 1023}", "load_balancing.minimum_ring_size", "1023"),
        ("slow_start: {window: 10s, aggression: 0}", "slow_start.aggression", "more than 0"),
        # Subsets and splits
        ("subsets: [{name: a}, {name: b}, {name: a}]", "subsets[2].name", "must not stand twice"),
        ("subsets: [{name: a, version: '>2 <1'}]", "subsets[0].version", "some version lies"),
        ("split: {sticky_on: {caller: true}}", "split.destinations", "must not be empty when there are no matches"),
        ("split: {destinations: [{version: 1.x}]}", "split.destinations", "sum is not 0"),
        ("split: {destinations: [{version: <0.0.0-0, weight: 1}]}", "split.destinations[0].version", "some version lies"),
        ("split: {destinations: [{version: 1, weight: 1}, {version: 1}]}", "split.destinations[1].version", "twice"),
        ("split: {destinations: [{subset: a, weight: 1}]}", "split.destinations[0].subset", "one of the subsets"),
        (
            "split: {matches: [{conditions: [{header: a, present: true}], destination: {subset: b}}]}",
            "split.matches[0].destination.subset", "one of the subsets",
        ),
        (
            "split: {matches: [{conditions: [{header: a, present: true}], destination: {version: '>2 <1'}}]}",
            "split.matches[0].destination.version", "some version lies",
        ),
        (
            "split: {matches: [{conditions: [{header: a, exact: b}, {header: a, exact: c}], destination: {version: 1}}]}",
            "split.matches[0].conditions[1].header", "must not be asked twice",
        ),
        (
            "split: {matches: [{conditions: [{header: a, exact: b}], destination: {version: 1}}, "
            "{conditions: [{header: a, exact: b}], destination: {version: 2}}]}",
            "split.matches[1].conditions", "must differ from those of matches[0]",
        ),
        # Outliers and breakers
        (
            "outlier_detection: {base_ejection_time: 2s, max_ejection_time: 1s}",
            "outlier_detection.max_ejection_time", "at least base_ejection_time, which is 2 s",
        ),
        ("outlier_detection: {max_ejection_time: 29s}", "outlier_detection.max_ejection_time", "which is 30 s"),
        (
            "outlier_detection: {consecutive_local_origin_failure: 3}",
            "outlier_detection.consecutive_local_origin_failure", "only with split_external_local_origin_errors",
        ),
        ("circuit_breaker: {multiplier_percent: 200}", "circuit_breaker.multiplier_percent", "only with mode gradual"),
        (
            "endpoint_circuit_breaker: {mode: gradual, wait_duration_in_open_state: 1s}",
            "endpoint_circuit_breaker.wait_duration_in_open_state", "only with mode fast",
        ),
        ("circuit_breaker: {mode: gradual, failure_rate_threshold: 9}", "circuit_breaker.failure_rate_threshold", "mode fast"),
        ("circuit_breaker: {mode: gradual, multiplier_percent: 99}", "circuit_breaker.multiplier_percent", "at least 100"),
        (
            "circuit_breaker: {sliding_window_size: 10, minimum_number_of_calls: 11}",
            "circuit_breaker.minimum_number_of_calls", "at most sliding_window_size, which is 10 calls",
        ),
        (
            "circuit_breaker: {record_codes: [unavailable, internal], ignore_codes: [aborted, internal]}",
            "circuit_breaker.ignore_codes[1]", "must not stand in record_codes",
        ),
        # Retries, timeouts, limits, fallback
        ("retry: {max_attempts: 1}", "retry.max_attempts", "at least 2"),
        ("retry: {max_attempts: 2, max_interval: 24ms}", "retry.max_interval", "at least base_interval, which is 0.025 s"),
        ("retry: {max_attempts: 2, base_interval: 2s, max_interval: 1s}", "retry.max_interval", "which is 2 s"),
        ("retry: {max_attempts: 2, per_try_timeout: 2s}\ntimeout: 1s", "retry.per_try_timeout", "at most timeout, which is 1"),
        (
            "retry: {max_attempts: 2, budget: {budget_percent: 0, min_retries_per_second: 0}}",
            "retry.budget.min_retries_per_second", "must not be 0",
        ),
        ("rate_limits: [{max_tokens: 1, fill_interval: 1s, per: key}]", "rate_limits[0].key", "must be set with per key"),
        ("rate_limits: [{max_tokens: 1, fill_interval: 1s, key: {caller: true}}]", "rate_limits[0].key", "only with per key"),
        ("fallback: {service: cart}", "fallback.service", "must be another service"),
        ("fallback: {subset: a}", "fallback.subset", "one of the subsets"),
        ("fallback: {answers: {answers: [{method: a/b}]}}", "fallback.answers.answers[0].method", "must be a method such as"),
        (
            "fallback: {answers: {answers: [{method: /a.B/C}, {method: /a.B/C}]}}",
            "fallback.answers.answers[1].method", "must not stand twice",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(text: str, path: str, rule: str) -> None:
    [(found, broken)] = refused(text)
    assert (found, rule in broken) == (path, True), broken


@pytest.mark.parametrize("path", ["retry.retryable_status_codes", "fallback.on_codes", "circuit_breaker.record_codes"])
def test_codes_are_status_codes_other_than_ok(path: str) -> None:
    section, field = path.split(".")
    made = policy("retry: {max_attempts: 2}\nfallback: {service: mail}")
    getattr(getattr(made, section), field).append(0)
    with pytest.raises(InvalidArgument) as error:
        check_policy(made)
    assert [violation.field for violation in error.value.violations] == [f"{path}[0]"]


def test_every_violation_is_named_up_to_a_bound() -> None:
    assert len(refused("retry: {max_attempts: 1, max_interval: 1ms}\nfallback: {service: cart}")) == 3
    many = ", ".join(["{max_tokens: 1, fill_interval: 1s, per: key}"] * 16)
    assert len(refused(f"rate_limits: [{many}]\nfallback: {{service: cart}}")) == 16


def test_what_the_namespace_says_counts_where_the_service_says_nothing() -> None:
    blue = "subsets: [{name: blue}]"
    assert refused("fallback: {subset: blue}", blue) == []
    assert refused("split: {destinations: [{subset: blue, weight: 1}]}", blue) == []
    assert [path for path, _ in refused("subsets: [{name: red}]\nfallback: {subset: blue}", blue)] == [
        "fallback.subset"
    ]
    assert [path for path, _ in refused("subsets: [{name: red}]", f"{blue}\nfallback: {{subset: blue}}")] == [
        "fallback.subset"
    ]
    assert [path for path, _ in refused("timeout: 1s", "retry: {max_attempts: 2, per_try_timeout: 2s}")] == [
        "retry.per_try_timeout"
    ]
    assert refused("timeout: 3s", "timeout: 1s\nretry: {max_attempts: 2, per_try_timeout: 2s}") == []


def test_a_policy_has_a_bound() -> None:
    made = policy("fallback: {answers: {answers: [{method: /a/b}]}}")
    made.fallback.answers.answers[0].response = b"x" * 65_000
    check_policy(made)
    for name in "cde":
        made.fallback.answers.answers.add(method=f"/a/{name}", response=b"x" * 65_000)
    with pytest.raises(InvalidArgument, match="must have at most 131072 bytes"):
        check_policy(made)


GOOD = [
    "{}",
    "load_balancing: {algorithm: least_request, choice_count: 100, active_request_bias: 10}",
    "load_balancing: {algorithm: ring_hash, minimum_ring_size: 1, maximum_ring_size: 1, hash_balance_factor: 100}",
    "load_balancing: {algorithm: ring_hash}",
    "load_balancing: {algorithm: maglev, table_size: 2, hash_on: {header: x}}",
    "load_balancing: {algorithm: maglev, table_size: 5000011}",
    "circuit_breaker: {mode: gradual, multiplier_percent: 100, max_rejection_percent: 100}",
    "circuit_breaker: {sliding_window_type: time_based, sliding_window_size: 10, minimum_number_of_calls: 500}",
    "circuit_breaker: {sliding_window_size: 10000, minimum_number_of_calls: 10000, ignore_codes: [unavailable]}",
    "retry: {max_attempts: 2, base_interval: 1s, max_interval: 1s, per_try_timeout: 1s}\ntimeout: 1s",
    "split: {matches: [{conditions: [{header: a, exact: ''}], destination: {version: '1.0.0-rc.1'}}]}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_accepted_is_what_core_takes(text: str) -> None:
    made = policy(text or "{}")
    assert refused(text) == []
    values = policy_from(made, 1)
    balancing, hosts, weights = values.load_balancing, ["10.0.0.1:1", "10.0.0.2:1"], [1, 2]
    Ring(hosts, weights, minimum_ring_size=balancing.minimum_ring_size, maximum_ring_size=balancing.maximum_ring_size)
    Maglev(hosts, weights, table_size=balancing.table_size)
    LeastRequest(
        weights, Rng(1), choice_count=balancing.choice_count, active_request_bias=balancing.active_request_bias
    )
    breaker = values.circuit_breaker or core.CircuitBreaker()
    Breaker(
        failure_rate_threshold=breaker.failure_rate_threshold,
        slow_call_rate_threshold=breaker.slow_call_rate_threshold,
        slow_call_duration_ms=breaker.slow_call_duration_threshold_ns // 1_000_000,
        sliding_window_size=breaker.sliding_window_size,
        minimum_number_of_calls=breaker.minimum_number_of_calls,
        wait_duration_in_open_state_ms=breaker.wait_duration_in_open_state_ns // 1_000_000,
        permitted_number_of_calls_in_half_open_state=breaker.permitted_number_of_calls_in_half_open_state,
    )


def test_what_is_left_out_has_the_contracts_defaults() -> None:
    text = """
    load_balancing: {}
    locality: {}
    slow_start: {window: 1m}
    outlier_detection: {base_ejection_time: 400s}
    circuit_breaker: {ignore_codes: [internal]}
    endpoint_circuit_breaker: {mode: gradual}
    retry: {max_attempts: 3, base_interval: 1s}
    rate_limits: [{max_tokens: 5, fill_interval: 1s}]
    fallback: {service: mail}
    """
    values = policy_from(policy(text), 7)
    assert values.load_balancing == core.LoadBalancingPolicy()
    assert values.locality == core.LocalityPreference()
    assert values.slow_start == core.SlowStart(window_ns=60 * S)
    assert values.healthy_panic_threshold == 50
    assert values.outlier_detection == core.OutlierDetection(
        base_ejection_time_ns=400 * S, max_ejection_time_ns=400 * S
    )
    assert values.circuit_breaker == core.CircuitBreaker(
        record_codes=core.FAILURES - {StatusCode.INTERNAL}, ignore_codes=frozenset({StatusCode.INTERNAL})
    )
    assert values.endpoint_circuit_breaker == core.CircuitBreaker(mode=core.BreakerMode.GRADUAL)
    assert values.retry == core.Retry(max_attempts=3, base_interval_ns=S, max_interval_ns=10 * S)
    assert values.rate_limits == (core.RateLimit(max_tokens=5, fill_interval_ns=S),)
    assert values.fallback == core.Fallback(service="mail")
    assert (values.timeout_ns, values.split, values.subsets, values.revision) == (0, None, (), 7)


def test_what_is_said_is_taken_over() -> None:
    text = """
    load_balancing: {algorithm: maglev, hash_on: {header: x-user}, table_size: 251, hash_balance_factor: 150}
    locality: {nearest: sub_zone, overprovisioning_factor: 100, min_instances: 3}
    healthy_panic_threshold: 0
    subsets: [{name: a, version: ^1, labels: {x: y}}]
    limits: {max_requests: 5, max_requests_per_endpoint: 2}
    outlier_detection: {consecutive_5xx: 0, split_external_local_origin_errors: true, max_ejection_time_jitter: 0s}
    circuit_breaker: {forced: metrics_only, record_codes: [cancelled], max_wait_duration_in_half_open_state: 2s}
    retry: {max_attempts: 4, per_try_timeout: 10ms, retryable_status_codes: [aborted], budget: {budget_percent: 0, ttl: 5s}}
    timeout: 2s
    rate_limits: [{per: key, key: {caller: true}, max_tokens: 5, tokens_per_fill: 2, fill_interval: 3s}]
    fallback: {answers: {answers: [{method: /a.B/C, response: aGk=}]}, on_codes: [internal]}
    split:
      matches:
      - conditions: [{header: h, prefix: p}, {header: i, exact: ''}, {header: j, present: true}]
        destination: {subset: a}
      destinations: [{version: ^1, weight: 9}, {subset: a, weight: 1}]
      sticky_on: {header: x-user}
    """
    values = policy_from(policy(text), 7)
    user = core.KeySource(header="x-user")
    assert values == core.Policy(
        load_balancing=core.LoadBalancingPolicy(
            algorithm=core.Algorithm.MAGLEV, hash_on=user, table_size=251, hash_balance_factor=150
        ),
        locality=core.LocalityPreference(
            nearest=core.LocalityScope.SUB_ZONE, overprovisioning_factor=100, min_instances=3
        ),
        healthy_panic_threshold=0,
        subsets=(core.Subset(name="a", version="^1", labels={"x": "y"}),),
        limits=core.Limits(max_requests=5, max_requests_per_endpoint=2),
        outlier_detection=core.OutlierDetection(consecutive_5xx=0, split_external_local_origin_errors=True),
        circuit_breaker=core.CircuitBreaker(
            forced=core.Forced.METRICS_ONLY,
            record_codes=frozenset({StatusCode.CANCELLED}),
            max_wait_duration_in_half_open_state_ns=2 * S,
        ),
        retry=core.Retry(
            max_attempts=4,
            retryable_status_codes=frozenset({StatusCode.ABORTED}),
            per_try_timeout_ns=10_000_000,
            budget=core.RetryBudget(budget_percent=0, ttl_ns=5 * S),
        ),
        timeout_ns=2 * S,
        rate_limits=(
            core.RateLimit(
                per=core.RatePer.KEY,
                key=core.KeySource(caller=True),
                max_tokens=5,
                tokens_per_fill=2,
                fill_interval_ns=3 * S,
            ),
        ),
        fallback=core.Fallback(answers={"/a.B/C": b"hi"}, on_codes=frozenset({StatusCode.INTERNAL})),
        split=core.Split(
            matches=(
                core.Match(
                    conditions=(
                        core.Condition(header="h", prefix="p"),
                        core.Condition(header="i", exact=""),
                        core.Condition(header="j", present=True),
                    ),
                    destination=core.Destination(subset="a"),
                ),
            ),
            destinations=(core.Destination(version="^1", weight=9), core.Destination(subset="a", weight=1)),
            sticky_on=user,
        ),
        revision=7,
    )
