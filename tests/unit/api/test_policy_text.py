"""Policies as people write them."""

from __future__ import annotations

import json

import pytest

from trunkline.api import policy_text
from trunkline.api.policy_text import duration_to, policy_to_dict, read_policies, write_policies
from trunkline.api.rules import VIOLATIONS_MAX
from trunkline.api.v1 import policy_pb2
from trunkline.core.errors import InvalidArgument

WHOLE = """
# Both names of a field are taken.
service: cart
loadBalancing: &hash
  algorithm: ring_hash
  hash_on: {header: x-user}
subsets:
- {name: blue, version: 1.10, labels: {track: no, build: 007}}
retry:
  max_attempts: 1_0
  base_interval: 25ms
  per_try_timeout: 1.5s
  retryable_status_codes: [unavailable, STATUS_CODE_ABORTED]
timeout: 1h30m
split:
  destinations:
  - {version: ^1, weight: 90}
  - {subset: blue, weight: 10}
---
namespace: depot
load_balancing: *hash
---
"""


def test_every_fields_type_decides_what_its_text_means() -> None:
    text = WHOLE.replace("load_balancing: *hash", "timeout: 0.25s")
    cart, default = read_policies(text, namespace="shop")
    assert (cart.namespace, cart.service) == ("shop", "cart")
    assert (default.namespace, default.service, default.timeout.nanos) == ("depot", "", 250_000_000)
    assert cart.load_balancing.algorithm == policy_pb2.LoadBalancingPolicy.ALGORITHM_RING_HASH
    assert (cart.subsets[0].version, dict(cart.subsets[0].labels)) == ("1.10", {"track": "no", "build": "007"})
    assert (cart.retry.max_attempts, cart.retry.base_interval.nanos) == (10, 25_000_000)
    assert list(cart.retry.retryable_status_codes) == [14, 10]
    assert cart.timeout.seconds == 5_400
    assert [(one.version, one.subset, one.weight) for one in cart.split.destinations] == [
        ("^1", "", 90),
        ("", "blue", 10),
    ]


def test_anchors_stand_for_what_they_name() -> None:
    [policy] = read_policies("rate_limits: [&a {max_tokens: 5, fill_interval: 1s}, *a]", namespace="shop")
    assert policy.rate_limits[0] == policy.rate_limits[1]


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("retries: {}", "retries", "is no field here"),
        ("retry: {attempts: 3}", "retry.attempts", "is no field here; there are max_attempts"),
        ("service: a\nservice: b", "service", "must not stand twice (line 2)"),
        ("hash: 1", "hash", "is no field"),
        ("loadBalancing: {}\nload_balancing: {}", "load_balancing", "must not stand beside load_balancing"),
        ("timeout: 5", "timeout", "must be a duration"),
        ("timeout: -5s", "timeout", "must be a duration"),
        ("timeout: 1e3s", "timeout", "must be a duration"),
        ("timeout: 1.0000000001s", "timeout", "whole number of nanoseconds"),
        ("timeout: 99999999999h", "timeout", "less than 10,000 years"),
        ("timeout: {seconds: 1}", "timeout", "must be one value"),
        ("limits:", "limits", "must have a value, or be left out"),
        ("limits: null", "limits", "must have a value, or be left out"),
        ("limits: 5", "limits", "must be a mapping of fields"),
        ("limits: {max_requests: 3.0}", "limits.max_requests", "must be a whole number from 0 to 4294967295"),
        ("limits: {max_requests: -1}", "limits.max_requests", "must be a whole number"),
        ("limits: {max_requests: 4294967296}", "limits.max_requests", "must be a whole number"),
        ("slow_start: {aggression: .inf}", "slow_start.aggression", "must be a number"),
        ("outlier_detection: {always_eject_one_host: yes}", "outlier_detection.always_eject_one_host", "true or false"),
        ("load_balancing: {algorithm: unspecified}", "load_balancing.algorithm", "must be one of round_robin, random"),
        ("load_balancing: {algorithm: 99}", "load_balancing.algorithm", "must be one of"),
        ("circuit_breaker: {mode: MODE_UNSPECIFIED}", "circuit_breaker.mode", "must be one of fast, gradual"),
        ("split: {destinations: {version: a}}", "split.destinations", "must be a list"),
        ("split: {destinations: [{version: ^1, subset: b}]}", "split.destinations[0].subset", "must not stand beside version"),
        ("fallback: {answers: {answers: [{response: '@'}]}}", "fallback.answers.answers[0].response", "must be base64"),
        ("subsets: [{labels: {a: [1]}}]", "subsets[0].labels.a", "must be one value"),
        ("? [a]\n: 1", "text", "must have names for keys"),
        ("- service: a", "text", "must be a mapping of fields"),
        ("service: [", "text", "must be YAML or JSON (line 1"),
        ("a: *b", "text", "must be YAML or JSON"),
        ("'", "text", "must be YAML or JSON"),
        ("!!python/name:os.system x", "text", "must be a mapping"),
        ('{"service": "a", "service": "b"}', "service", "must not stand twice"),
        ('{"service": ', "text", "must be YAML or JSON"),
        ("[" * 5_000, "text", "must be YAML or JSON"),
        ("{a: " * 5_000, "text", "must"),
        ("x" * 1_100_000, "text", "must have at most"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_with_path_and_line(text: str, path: str, rule: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_policies(text)
    [violation] = refused.value.violations
    assert (violation.field, rule in violation.rule) == (path, True), violation


def fields(text: str) -> list[tuple[str, str]]:
    """Of what is wrong with a text: where, and how the rule begins."""
    with pytest.raises(InvalidArgument) as refused:
        read_policies(text, namespace="shop")
    return [(one.field, " ".join(one.rule.split()[:4])) for one in refused.value.violations]


def test_a_text_with_several_mistakes_is_told_of_all_of_them() -> None:
    text = """
service: cart
retires: 3
retry:
  max_attempts: many
  base_interval: 25
  per_try_timeout: 1s
  retryable_status_codes: [unavailable, broken, aborted, worse]
subsets:
- {name: Blue!, labels: {a: [1], b: [2]}}
- 5
limits: {max_requests: 4, max_requests: 5, max_request: 6}
---
service: mail
timeout: soon
---
service: [
"""
    assert fields(text) == [
        ("retires", "is no field here;"),
        ("retry.max_attempts", "must be a whole"),
        ("retry.base_interval", "must be a duration"),
        ("retry.retryable_status_codes[1]", "must be one of"),
        ("retry.retryable_status_codes[3]", "must be one of"),
        ("subsets[0].labels.a", "must be one value"),
        ("subsets[0].labels.b", "must be one value"),
        ("subsets[1]", "must be a mapping"),
        ("limits.max_requests", "must not stand twice"),
        ("limits.max_request", "is no field here;"),
        ("timeout", "must be a duration"),
        ("text", "must be YAML or"),
        ("subsets[0].name", "must be a DNS"),
    ]


def test_of_what_was_read_only_what_is_written_is_checked() -> None:
    typo = "retry: {max_attempts: 99, budget: {ttl: 100h, min_retries: 3}}\ntimeout: 0s"
    assert fields(typo) == [
        ("retry.budget.min_retries", "is no field here;"),
        ("retry.max_attempts", "must be at most"),
        ("retry.budget.ttl", "must be at most"),
        ("timeout", "must be at least"),
    ]
    assert fields("rate_limits: [{max_tokens: x}]") == [("rate_limits[0].max_tokens", "must be a whole")]


def test_no_more_mistakes_are_named_than_one_refusal_names() -> None:
    found = fields("\n".join(f"field_{n}: 1" for n in range(50)) + "\nretry: {max_attempts: 99}")
    assert [field for field, _ in found] == [f"field_{n}" for n in range(VIOLATIONS_MAX)]
    documents = "\n---\n".join(f"timeout: {n}" for n in range(40)) + "\n---\nservice: ["
    assert len(fields(documents)) == VIOLATIONS_MAX


def test_aliases_of_aliases_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_text, "NODES_MAX", 500)
    codes = ", ".join(["unavailable"] * 20)
    limits = ", ".join(f"*{name}" for name in ["a"] * 30)
    text = f"retry: &a {{max_attempts: 2, retryable_status_codes: [{codes}]}}\nrate_limits: [{limits}]"
    with pytest.raises(InvalidArgument):
        read_policies(text)
    many = "subsets: [" + ", ".join(["{name: a, labels: {a: b, c: d}}"] * 200) + "]"
    with pytest.raises(InvalidArgument, match="must have at most 500 values"):
        read_policies(many)


def test_a_file_has_so_many_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_text, "POLICIES_MAX", 2)
    assert len(read_policies("---\nservice: a\n---\n---\nservice: b\n")) == 2
    with pytest.raises(InvalidArgument, match="must have at most 2 policies"):
        read_policies("service: a\n---\nservice: b\n---\nservice: c\n")
    assert read_policies("") == read_policies("# nothing\n") == []


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (250_000_000, "250ms"), (1_500_000_000, "1.5s"), (300 * 10**9, "5m"), (3_600 * 10**9, "1h"), (90 * 10**9, "90s"),
        (1, "0.000001ms"), (10**9 + 1, "1.000000001s"), (0, "0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_people_do(ns: int, text: str) -> None:
    assert duration_to(ns) == text
    [policy] = read_policies(f"timeout: {text}")
    assert policy.timeout.seconds * 10**9 + policy.timeout.nanos == ns


def test_all_of_unicode_comes_back() -> None:
    policy = policy_pb2.TrafficPolicy(namespace="shop")
    policy.subsets.add(name="a", labels={"team": "\U0001f600 \u2028 \u00e9 \x85 'x' \"y\" # z: 1"})
    for text in (write_policies(policy), json.dumps(policy_to_dict(policy))):
        assert read_policies(text) == [policy]
