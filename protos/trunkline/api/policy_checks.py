"""What a policy may not say although each of its fields is right: what contradicts itself, or can never come to be.

trunkline.api.rules looks at single fields; here fields are looked at together. What core's pickers and breakers would
refuse is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import isqrt
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from trunkline.core import policy as core
from trunkline.core.errors import InvalidArgument, Violation
from trunkline.core.ranges import parse_range

from .v1 import policy_pb2

POLICY_BYTES_MAX = 128 * 1024
"""Of a policy, serialized."""
VIOLATIONS_MAX = 16
"""Violations that one refusal names."""

_Lb = policy_pb2.LoadBalancingPolicy
_OF_LEAST_REQUEST = ("choice_count", "active_request_bias")
_OF_HASHING = ("hash_on", "hash_balance_factor")
_OF_RING_HASH = ("minimum_ring_size", "maximum_ring_size")
_OF_MAGLEV = ("table_size",)
_OF_FAST = (
    "failure_rate_threshold",
    "slow_call_rate_threshold",
    "wait_duration_in_open_state",
    "permitted_number_of_calls_in_half_open_state",
    "max_wait_duration_in_half_open_state",
)
_OF_GRADUAL = ("multiplier_percent", "max_rejection_percent")
_OF_LOCAL_ORIGIN = (
    "consecutive_local_origin_failure",
    "enforcing_consecutive_local_origin_failure",
    "enforcing_local_origin_success_rate",
    "enforcing_failure_percentage_local_origin",
)
_METHOD = re.compile(r"/[^/\s]+/[^/\s]+")
_BALANCING = core.LoadBalancingPolicy()


def check_policy(policy: policy_pb2.TrafficPolicy, default: policy_pb2.TrafficPolicy | None = None) -> None:
    """Raise InvalidArgument with every violation: a field's path and its rule.

    `default` is the policy of the namespace, by which the sections hold that `policy` does not have: subsets that it
    names, timeouts.
    """
    found = list(_violations(policy, default))
    if found:
        raise InvalidArgument(*found[:VIOLATIONS_MAX])


def _violations(policy: policy_pb2.TrafficPolicy, default: policy_pb2.TrafficPolicy | None) -> Iterator[Violation]:
    size = policy.ByteSize()
    if size > POLICY_BYTES_MAX:
        yield Violation("policy", f"must have at most {POLICY_BYTES_MAX} bytes", f"{size} bytes")
    yield from _load_balancing(policy.load_balancing)
    if policy.slow_start.HasField("aggression") and policy.slow_start.aggression == 0:
        yield Violation("slow_start.aggression", "must be more than 0", "0")
    yield from _subsets(policy.subsets)
    yield from _outlier_detection(policy.outlier_detection)
    for name in ("circuit_breaker", "endpoint_circuit_breaker"):
        yield from _within(name, _circuit_breaker(getattr(policy, name)))
    timeout = _section(policy, default, "timeout")
    retry = _section(policy, default, "retry")
    if policy.HasField("retry"):
        yield from _within("retry", _retry(policy.retry))
    if retry is not None and timeout is not None and retry.HasField("per_try_timeout"):
        per_try_ns, timeout_ns = _ns(retry.per_try_timeout), _ns(timeout)
        if per_try_ns > timeout_ns:
            rule = f"must be at most timeout, which is {_time(timeout_ns)}"
            yield Violation("retry.per_try_timeout", rule, _time(per_try_ns))
    for index, limit in enumerate(policy.rate_limits):
        yield from _within(f"rate_limits[{index}]", _rate_limit(limit))
    yield from _fallback(policy)
    if policy.HasField("split"):
        yield from _within("split", _split(policy.split))
    yield from _references(policy, default)


def _section(policy: policy_pb2.TrafficPolicy, default: policy_pb2.TrafficPolicy | None, name: str) -> Any:
    """A section as it holds; None where neither has it."""
    layers: tuple[Message | None, ...] = (policy, default)
    for one in layers:
        if one is not None and one.HasField(name):
            return getattr(one, name)
    return None


def _within(prefix: str, found: Iterable[Violation]) -> Iterator[Violation]:
    return (Violation(f"{prefix}.{field}", rule, value) for field, rule, value in found)


def _only_with(message: Message, names: Sequence[str], condition: str) -> Iterator[Violation]:
    """These may not be set; `condition` says with what they might."""
    set_here = {field.name: value for field, value in message.ListFields()}
    for name in names:
        if name in set_here:
            yield Violation(name, f"only with {condition}", _shown(set_here[name]))


def _shown(value: object) -> str:
    return " ".join(str(value).split())[:80]


def _short(enum: EnumDescriptor, number: int) -> str:
    """An enum's value as the text form has it: without the enum's name, in lower case."""
    names = [value.name for value in enum.values]
    prefix = len(names[0]) - len("UNSPECIFIED")
    return enum.values_by_number[number].name[prefix:].lower()


def _ns(duration: Any) -> int:
    ns: int = duration.seconds * 1_000_000_000 + duration.nanos
    return ns


def _time(ns: int) -> str:
    return f"{ns / 1e9:g} s"


def _load_balancing(m: policy_pb2.LoadBalancingPolicy) -> Iterator[Violation]:
    return _within("load_balancing", _of_balancing(m))


def _of_balancing(m: policy_pb2.LoadBalancingPolicy) -> Iterator[Violation]:
    algorithm = m.algorithm
    if algorithm != _Lb.ALGORITHM_LEAST_REQUEST:
        yield from _only_with(m, _OF_LEAST_REQUEST, "algorithm least_request")
    if algorithm not in (_Lb.ALGORITHM_RING_HASH, _Lb.ALGORITHM_MAGLEV):
        yield from _only_with(m, _OF_HASHING, "algorithm ring_hash or maglev")
    if algorithm != _Lb.ALGORITHM_RING_HASH:
        yield from _only_with(m, _OF_RING_HASH, "algorithm ring_hash")
    if algorithm != _Lb.ALGORITHM_MAGLEV:
        yield from _only_with(m, _OF_MAGLEV, "algorithm maglev")
    if m.choice_count == 1:
        yield Violation("choice_count", "must be at least 2", "1")
    if 0 < m.hash_balance_factor < 100:
        yield Violation("hash_balance_factor", "must be 0 or at least 100", str(m.hash_balance_factor))
    smallest = m.minimum_ring_size or _BALANCING.minimum_ring_size
    largest = m.maximum_ring_size or _BALANCING.maximum_ring_size
    if smallest > largest:
        rule = f"must be at most maximum_ring_size, which is {largest}"
        yield Violation("minimum_ring_size", rule, str(smallest))
    if m.table_size and not _is_prime(m.table_size):
        yield Violation("table_size", "must be a prime", str(m.table_size))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def _subsets(subsets: Sequence[policy_pb2.Subset]) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, subset in enumerate(subsets):
        if subset.name in seen:
            yield Violation(f"subsets[{index}].name", "must not stand twice", subset.name)
        seen.add(subset.name)
        yield from _within(f"subsets[{index}]", _range("version", subset.version))


def _range(field: str, text: str) -> Iterator[Violation]:
    if not text:
        return
    try:
        is_empty = parse_range(text).is_empty
    except ValueError:
        return  # the field's own rule says so
    if is_empty:
        yield Violation(field, "must be a range in which some version lies", text)


def _outlier_detection(m: policy_pb2.OutlierDetection) -> Iterator[Violation]:
    if not m.split_external_local_origin_errors:
        found = _only_with(m, _OF_LOCAL_ORIGIN, "split_external_local_origin_errors")
        yield from _within("outlier_detection", found)
    if m.HasField("max_ejection_time"):
        base_ns = _ns(m.base_ejection_time) if m.HasField("base_ejection_time") else _EJECTION_NS
        longest_ns = _ns(m.max_ejection_time)
        if longest_ns < base_ns:
            rule = f"must be at least base_ejection_time, which is {_time(base_ns)}"
            yield Violation("outlier_detection.max_ejection_time", rule, _time(longest_ns))


_EJECTION_NS = core.OutlierDetection().base_ejection_time_ns


def _circuit_breaker(m: policy_pb2.CircuitBreaker) -> Iterator[Violation]:
    if m.mode == policy_pb2.CircuitBreaker.MODE_GRADUAL:
        yield from _only_with(m, _OF_FAST, "mode fast")
    else:
        yield from _only_with(m, _OF_GRADUAL, "mode gradual")
    if 0 < m.multiplier_percent < 100:
        yield Violation("multiplier_percent", "must be 0 or at least 100", str(m.multiplier_percent))
    by_count = m.sliding_window_type != policy_pb2.CircuitBreaker.WINDOW_TYPE_TIME_BASED
    size = m.sliding_window_size
    if by_count and size and m.minimum_number_of_calls > size:
        rule = f"must be at most sliding_window_size, which is {size} calls"
        yield Violation("minimum_number_of_calls", rule, str(m.minimum_number_of_calls))
    yield from _codes("record_codes", m.record_codes)
    yield from _codes("ignore_codes", m.ignore_codes)
    recorded = set(m.record_codes)
    for index, code in enumerate(m.ignore_codes):
        if code in recorded:
            yield Violation(f"ignore_codes[{index}]", "must not stand in record_codes, too", _code(code))


def _codes(field: str, codes: Sequence[int]) -> Iterator[Violation]:
    for index, code in enumerate(codes):
        if code not in _CODES or not code:
            yield Violation(f"{field}[{index}]", "must be a status code other than OK", _code(code))


_CODE_ENUM = policy_pb2.StatusCode.DESCRIPTOR
_CODES = frozenset(_CODE_ENUM.values_by_number)


def _code(code: int) -> str:
    return _short(_CODE_ENUM, code) if code in _CODES else str(code)


def _retry(m: policy_pb2.Retry) -> Iterator[Violation]:
    if m.max_attempts == 1:
        yield Violation("max_attempts", "must be at least 2: the first is one of them", "1")
    yield from _codes("retryable_status_codes", m.retryable_status_codes)
    base_ns = _ns(m.base_interval) if m.HasField("base_interval") else _RETRY_BASE_NS
    if m.HasField("max_interval") and _ns(m.max_interval) < base_ns:
        rule = f"must be at least base_interval, which is {_time(base_ns)}"
        yield Violation("max_interval", rule, _time(_ns(m.max_interval)))
    budget = m.budget
    none_by_share = budget.HasField("budget_percent") and not budget.budget_percent
    if none_by_share and budget.HasField("min_retries_per_second") and not budget.min_retries_per_second:
        yield Violation("budget.min_retries_per_second", "must not be 0 when budget_percent is", "0")


_RETRY_BASE_NS = core.Retry(max_attempts=2).base_interval_ns


def _rate_limit(m: policy_pb2.RateLimit) -> Iterator[Violation]:
    if m.per == policy_pb2.RateLimit.PER_KEY:
        if not m.HasField("key"):
            yield Violation("key", "must be set with per key", "nothing")
    else:
        yield from _only_with(m, ("key",), "per key")


def _fallback(policy: policy_pb2.TrafficPolicy) -> Iterator[Violation]:
    m = policy.fallback
    if m.WhichOneof("target") == "service" and m.service == policy.service:
        yield Violation("fallback.service", "must be another service", m.service)
    yield from _within("fallback", _codes("on_codes", m.on_codes))
    seen: set[str] = set()
    for index, answer in enumerate(m.answers.answers):
        path = f"fallback.answers.answers[{index}].method"
        if answer.method and not _METHOD.fullmatch(answer.method):
            yield Violation(path, 'must be a method such as "/package.Service/Method"', answer.method[:80])
        if answer.method in seen:
            yield Violation(path, "must not stand twice", answer.method[:80])
        seen.add(answer.method)


def _split(m: policy_pb2.Split) -> Iterator[Violation]:
    if not m.matches and not m.destinations:
        yield Violation("destinations", "must not be empty when there are no matches", "0 items")
    if m.destinations and not any(destination.weight for destination in m.destinations):
        yield Violation("destinations", "must have weights whose sum is not 0", f"{len(m.destinations)} items")
    targets: set[tuple[str | None, str]] = set()
    for index, destination in enumerate(m.destinations):
        kind = destination.WhichOneof("target")
        target = kind, getattr(destination, kind) if kind else ""
        if target in targets:
            yield Violation(f"destinations[{index}].{kind}", "must not stand twice", target[1])
        targets.add(target)
        yield from _within(f"destinations[{index}]", _range("version", destination.version))
    yield from _matches(m.matches)


def _matches(matches: Sequence[policy_pb2.Split.Match]) -> Iterator[Violation]:
    earlier: dict[frozenset[bytes], int] = {}
    for index, match in enumerate(matches):
        path = f"matches[{index}]"
        headers: set[str] = set()
        for number, condition in enumerate(match.conditions):
            if condition.header in headers:
                rule = "must not be asked twice: a key has one value"
                yield Violation(f"{path}.conditions[{number}].header", rule, condition.header)
            headers.add(condition.header)
        yield from _within(f"{path}.destination", _range("version", match.destination.version))
        asked = frozenset(condition.SerializeToString(deterministic=True) for condition in match.conditions)
        first = earlier.setdefault(asked, index)
        if first != index:
            rule = f"must differ from those of matches[{first}], which is asked first"
            yield Violation(f"{path}.conditions", rule, f"{len(match.conditions)} items")


def _references(policy: policy_pb2.TrafficPolicy, default: policy_pb2.TrafficPolicy | None) -> Iterator[Violation]:
    """Subsets that are named, against those that there are."""
    subsets = policy.subsets or (default.subsets if default is not None else ())
    known = {subset.name for subset in subsets}
    fallback, split = _section(policy, default, "fallback"), _section(policy, default, "split")
    named: list[tuple[str, str]] = []
    if fallback is not None:
        named.append(("fallback.subset", fallback.subset))
    if split is not None:
        named += [(f"split.destinations[{i}].subset", one.subset) for i, one in enumerate(split.destinations)]
        named += [(f"split.matches[{i}].destination.subset", m.destination.subset) for i, m in enumerate(split.matches)]
    for path, name in named:
        if name and name not in known:
            yield Violation(path, "must be one of the subsets", name)
