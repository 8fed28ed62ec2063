"""What a caller keeps of a service: rates that all let a call through or none loses a token, and what a change leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trunkline.client._guards import Guards
from trunkline.core.breaker import Outcome
from trunkline.core.errors import RateLimited
from trunkline.core.policy import (
    CircuitBreaker,
    Fallback,
    KeySource,
    Limits,
    OutlierDetection,
    Policy,
    RateLimit,
    RatePer,
    Retry,
    RetryBudget,
    S,
    StatusCode,
)

ONE = RateLimit(max_tokens=1, fill_interval_ns=10 * S)
MANY = RateLimit(max_tokens=3, fill_interval_ns=10 * S, per=RatePer.METHOD)


def guards(policy: Policy) -> Guards:
    return Guards(policy, service="echo", caller="me", now_ns=0)


def entered(one: Guards, method: str = "/a/b", metadata: list[tuple[str, str | bytes]] | None = None) -> bool:
    try:
        one.enter(method, metadata, 0)
    except RateLimited:
        return False
    return True


def test_a_call_that_one_limit_refuses_takes_no_token_of_the_others() -> None:
    for rates in ((MANY, ONE), (ONE, MANY)):
        one = guards(Policy(rate_limits=rates))
        assert [entered(one) for _ in range(5)] == [True] + [False] * 4
        one.set_policy(Policy(rate_limits=(MANY,)), 0)
        assert [entered(one) for _ in range(3)] == [True, True, False]
        assert (one.counts.calls, one.counts.refused["RATE_LIMITED"], one.in_flight) == (3, 5, 3)
        one.leave()
        assert one.in_flight == 2


def test_calls_without_the_key_share_a_bucket_and_so_do_all_of_a_caller() -> None:
    by_user = guards(Policy(rate_limits=(replace(ONE, per=RatePer.KEY, key=KeySource(header="user")),)))
    assert [entered(by_user, metadata=[("user", name)]) for name in ("x", b"x", "y")] == [True, False, True]
    assert [entered(by_user), entered(by_user, metadata=[("other", "x")])] == [True, False]
    by_caller = guards(Policy(rate_limits=(replace(ONE, per=RatePer.KEY, key=KeySource(caller=True)),)))
    assert [entered(by_caller, method) for method in ("/a/b", "/a/c")] == [True, False]


def test_what_did_not_change_keeps_its_tokens_and_what_did_begins_full() -> None:
    one = guards(Policy(rate_limits=(ONE, MANY)))
    assert entered(one)
    one.set_policy(Policy(rate_limits=(MANY, ONE), timeout_ns=S), 0)
    assert not entered(one)
    one.set_policy(Policy(rate_limits=(MANY, replace(ONE, fill_interval_ns=20 * S))), 0)
    assert [entered(one) for _ in range(2)] == [True, False]


def test_a_budget_whose_settings_stay_keeps_what_was_spent() -> None:
    retry = Retry(max_attempts=2, budget=RetryBudget(budget_percent=0, min_retries_per_second=1, ttl_ns=S))
    one = guards(Policy(retry=retry))
    assert one.budget is not None
    assert [one.budget.take(0), one.budget.take(0)] == [True, False]
    one.set_policy(Policy(retry=replace(retry, max_attempts=3)), 0)
    assert not one.budget.take(0)
    one.set_policy(Policy(retry=replace(retry, budget=RetryBudget(budget_percent=10, ttl_ns=S))), 0)
    assert one.budget.take(0)
    one.set_policy(Policy(), 0)
    assert one.budget is None


@pytest.mark.parametrize(
    ("policy", "needed"),
    [
        (Policy(), False),
        (Policy(outlier_detection=OutlierDetection(), healthy_panic_threshold=10, revision=7), False),
        (Policy(timeout_ns=1), True),
        (Policy(retry=Retry(max_attempts=2)), True),
        (Policy(limits=Limits(max_requests=1)), True),
        (Policy(limits=Limits(max_requests_per_endpoint=1)), True),
        (Policy(rate_limits=(ONE,)), True),
        (Policy(circuit_breaker=CircuitBreaker()), True),
        (Policy(endpoint_circuit_breaker=CircuitBreaker()), True),
        (Policy(fallback=Fallback(subset="x")), True),
    ],
)
def test_only_a_policy_that_asks_for_more_than_a_pick_is_in_the_way(policy: Policy, needed: bool) -> None:
    assert guards(policy).needed is needed


def test_each_breaker_has_its_own_codes() -> None:
    breaker = CircuitBreaker(record_codes=frozenset({StatusCode.NOT_FOUND}))
    one = guards(Policy(circuit_breaker=breaker))
    assert one.outcomes_of(StatusCode.NOT_FOUND) == (Outcome.FAILURE, Outcome.SUCCESS)
    assert one.outcomes_of(StatusCode.UNAVAILABLE) == (Outcome.SUCCESS, Outcome.FAILURE)
    assert one.outcomes_of(StatusCode.CANCELLED) == (Outcome.CANCELLED, Outcome.CANCELLED)
