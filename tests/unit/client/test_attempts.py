"""Whether and when a failed attempt is followed by another: one rule after the other."""

from __future__ import annotations

import pytest

from trunkline.client._attempts import (
    NO_MORE,
    PREVIOUS_ATTEMPTS_KEY,
    PUSHBACK_KEY,
    Attempts,
    Failure,
    Stop,
    previous_attempts,
    pushback_of,
)
from trunkline.core.clock import Rng
from trunkline.core.policy import MS, Retry, S, StatusCode
from trunkline.core.retry_budget import RetryBudget

UNAVAILABLE = Failure(StatusCode.UNAVAILABLE)
RETRY = Retry(max_attempts=5, base_interval_ns=10 * MS, max_interval_ns=60 * MS)


def attempts(retry: Retry | None = RETRY, *, seed: int = 1, suppressed: bool = False) -> Attempts:
    return Attempts(retry, None, Rng(seed), suppressed=suppressed)


def after(
    one: Attempts, failure: Failure = UNAVAILABLE, *, left_ns: int | None = None, committed: bool = False
) -> int | Stop:
    return one.after(failure, 0, left_ns=left_ns, committed=committed)


def test_waits_are_fully_jittered_between_nothing_and_a_bound_that_doubles() -> None:
    """Envoy: the N-th retry waits between 0 and (2^N - 1) x base, at most the largest interval."""
    bounds = [10 * MS, 30 * MS, 60 * MS, 60 * MS]
    seen: list[list[int]] = [[] for _ in bounds]
    for seed in range(300):
        one = attempts(seed=seed)
        for waits in seen:
            wait = after(one)
            assert not isinstance(wait, Stop)
            waits.append(wait)
    for waits, bound in zip(seen, bounds, strict=True):
        assert 0 <= min(waits) < bound / 20
        assert bound * 19 / 20 < max(waits) <= bound
        assert abs(sum(waits) / len(waits) - bound / 2) < bound / 10


def test_there_are_no_more_attempts_than_allowed() -> None:
    one = attempts()
    assert [isinstance(after(one), Stop) for _ in range(5)] == [False] * 4 + [True]
    assert one.failed == 5


@pytest.mark.parametrize(
    ("stop", "given"),
    [
        (Stop.NO_POLICY, {"retry": None}),
        (Stop.LAYER, {"suppressed": True}),
        (Stop.COMMITTED, {"committed": True}),
        (Stop.CODE, {"failure": Failure(StatusCode.INTERNAL)}),
        (Stop.PUSHBACK, {"failure": Failure(StatusCode.UNAVAILABLE, NO_MORE)}),
        (Stop.DEADLINE, {"failure": Failure(StatusCode.UNAVAILABLE, 5), "left_ns": 5 * MS}),
        (Stop.DEADLINE, {"left_ns": 0}),
    ],
)
def test_why_there_is_none(stop: Stop, given: dict[str, object]) -> None:
    made = {name: given.pop(name) for name in ("retry", "suppressed") if name in given}
    assert after(attempts(**made), **given) is stop  # type: ignore[arg-type]


def test_an_attempt_that_was_cut_off_may_be_repeated_whatever_the_codes_say() -> None:
    assert after(attempts(), Failure(StatusCode.DEADLINE_EXCEEDED)) is Stop.CODE
    assert not isinstance(after(attempts(), Failure(StatusCode.DEADLINE_EXCEEDED, cut_off=True)), Stop)


def test_a_server_that_says_when_is_asked_then_and_the_waits_begin_anew() -> None:
    for seed in range(50):
        one = attempts(seed=seed)
        after(one)
        after(one)
        assert after(one, Failure(StatusCode.UNAVAILABLE, 7_000), left_ns=8 * S) == 7 * S
        wait = after(one)
        assert not isinstance(wait, Stop)
        assert wait <= 10 * MS


def test_only_retries_that_are_made_are_taken_from_the_budget() -> None:
    budget = RetryBudget(0, 1, S)
    for failure, left_ns, committed in (
        (Failure(StatusCode.INTERNAL), None, False),
        (UNAVAILABLE, 0, False),
        (UNAVAILABLE, None, True),
        (Failure(StatusCode.UNAVAILABLE, NO_MORE), None, False),
    ):
        one = Attempts(RETRY, budget, Rng(1), suppressed=False)
        assert isinstance(one.after(failure, 0, left_ns=left_ns, committed=committed), Stop)
    one = Attempts(RETRY, budget, Rng(1), suppressed=False)
    for _ in range(2):  # what is planned takes nothing
        planned = Attempts(RETRY, budget, Rng(1), suppressed=False)
        assert not isinstance(planned.after(UNAVAILABLE, 0, left_ns=None, committed=False), Stop)
    assert one.may_retry(0)
    assert not planned.may_retry(0)
    assert one.after(UNAVAILABLE, 0, left_ns=None, committed=False) is Stop.BUDGET
    assert not isinstance(one.after(UNAVAILABLE, 3 * S, left_ns=None, committed=False), Stop)
    assert Attempts(RETRY, None, Rng(1), suppressed=False).may_retry(0)


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ([], None),
        (["0"], 0),
        (["250"], 250),
        ([b"250"], 250),
        (["2147483647"], 2**31 - 1),
        (["2147483648"], NO_MORE),
        (["9" * 400], NO_MORE),
        (["-1"], NO_MORE),
        (["+1"], NO_MORE),
        (["1.5"], NO_MORE),
        ([""], NO_MORE),
        (["soon"], NO_MORE),
        (["\N{SUPERSCRIPT TWO}"], NO_MORE),
        ([b"\xff"], NO_MORE),
        (["1", "2"], NO_MORE),
    ],
)
def test_pushback(said: list[str | bytes], understood: int | None) -> None:
    assert pushback_of([("other", "7"), *((PUSHBACK_KEY, value) for value in said)]) == understood
    assert pushback_of(None) is None


def test_previous_attempts_are_those_of_either_key() -> None:
    assert previous_attempts(None) == 0
    assert previous_attempts([("other", "3")]) == 0
    assert previous_attempts([(PREVIOUS_ATTEMPTS_KEY, "3")]) == 3
    assert previous_attempts([("grpc-previous-rpc-attempts", b"2"), (PREVIOUS_ATTEMPTS_KEY, "1")]) == 2
    for nonsense in ("", "-1", "x", b"\xff", "\N{SUPERSCRIPT TWO}"):
        assert previous_attempts([(PREVIOUS_ATTEMPTS_KEY, nonsense)]) == 0
