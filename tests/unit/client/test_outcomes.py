"""What callers tell of their calls: added up right, bounded, and never more often than said."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from integration.waiting import until

from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.client import _outcomes
from trunkline.client._outcomes import (
    EXACT_CALLS_MAX,
    INSTANCE_ROWS_MAX,
    ROWS_MAX,
    SAMPLED,
    UNSENT_MAX,
    Key,
    OutcomeLog,
    Outcomes,
    States,
)
from trunkline.core.clock import Rng
from trunkline.core.errors import NotSupported, TrunklineError, Unreachable

KEY = Key("echo", "e-1", "1.2.0", 0)


def key(number: int) -> Key:
    return KEY._replace(instance_id=f"e-{number}")


@pytest.mark.parametrize(
    ("latency_ns", "bucket"),
    [
        (0, 0),
        (100_000, 0),
        (100_001, 1),
        (118_920, 1),  # 2^(1/4) tenths of a millisecond are 118,920.7 ns
        (118_921, 2),
        (200_000, 4),
        (200_001, 5),
        (102_400_000, 40),
        (102_400_001, 41),
        (88_000_000_000, 79),
        (89_000_000_000, 80),
        (10**15, 80),
    ],
)
def test_buckets_are_the_contract_s(latency_ns: int, bucket: int) -> None:
    log = OutcomeLog(Rng(1))
    log.count(KEY, latency_ns)
    ((_, row),) = log.take()
    assert row.buckets == {bucket: 1}


def test_calls_are_added_up_by_what_they_have_in_common() -> None:
    log = OutcomeLog(Rng(1))
    for number, code, latency_ns in ((1, 0, 5), (1, 0, 7), (1, 14, 1), (2, 0, 1)):
        log.count(key(number)._replace(code=code), latency_ns)
    rows = {name: (row.calls, row.total_ns) for name, row in log.take()}
    assert rows == {key(1): (2, 12), key(1)._replace(code=14): (1, 1), key(2): (1, 1)}
    assert log.take() == []


def test_behind_so_many_instances_only_versions_are_told_apart() -> None:
    log = OutcomeLog(Rng(1))
    for number in range(INSTANCE_ROWS_MAX + 50):
        log.count(key(number), 1)
    log.count(key(0), 1)
    rows = dict(log.take())
    assert len(rows) == INSTANCE_ROWS_MAX + 1
    assert rows[KEY._replace(instance_id="")].calls == 50
    assert rows[key(0)].calls == 2
    assert log.dropped == 0


def test_what_finds_no_row_is_counted() -> None:
    log = OutcomeLog(Rng(1))
    for number in range(ROWS_MAX + 30):
        log.count(KEY._replace(version=f"1.0.{number}"), 1)
    assert len(log.take()) == ROWS_MAX
    assert log.dropped == 30


def test_many_calls_are_sampled_without_a_bias() -> None:
    log = OutcomeLog(Rng(7))
    calls = EXACT_CALLS_MAX + 80_000
    for number in range(calls):
        log.count(KEY._replace(code=14 if number % 10 == 0 else 0), 1_000)
    rows = {name.code: row for name, row in log.take()}
    counted = sum(row.calls for row in rows.values())
    assert (counted - EXACT_CALLS_MAX) % SAMPLED == 0
    assert abs(counted / calls - 1) < 0.02
    assert abs(rows[14].calls / counted - 0.1) < 0.01
    assert all(sum(row.buckets.values()) == row.calls for row in rows.values())
    log.count(KEY, 1)
    assert log.take()[0][1].calls == 1, "the next report begins exact"


class FakeLink:
    """A control plane that answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.error: TrunklineError | None = None
        self.called_s: list[float] = []

    async def call(self, method: Any, request: Any, answer: Any, *, timeout_s: float) -> Any:
        self.called_s.append(asyncio.get_running_loop().time())
        assert timeout_s > 0
        if self.error is not None:
            raise self.error
        self.requests.append(request)


def outcomes(link: FakeLink, interval_s: float = 0.02, states: Callable[[], States] = dict) -> Outcomes:
    return Outcomes(link, Rng(1), interval_s=interval_s, caller=lambda: "front", client="me", states=states)  # type: ignore[arg-type]


async def told(reporter: Outcomes, link: FakeLink, count: int) -> None:
    await until(lambda: len(link.called_s) >= count)


async def test_reports_are_no_nearer_than_the_interval_and_need_calls() -> None:
    link = FakeLink()
    reporter = outcomes(link)
    running = asyncio.ensure_future(reporter.run())
    await asyncio.sleep(0.1)
    assert link.called_s == []
    for count in range(1, 5):
        reporter.count("default", KEY, 1)
        await told(reporter, link, count)
    assert all(later - earlier >= 0.02 for earlier, later in zip(link.called_s, link.called_s[1:], strict=False))
    assert [request.caller for request in link.requests] == ["front"] * 4
    assert reporter.counts == (4, 0)
    running.cancel()


async def test_what_the_control_plane_missed_is_told_later_the_oldest_is_dropped() -> None:
    link = FakeLink()
    link.error = Unreachable("away")
    reporter = outcomes(link)
    running = asyncio.ensure_future(reporter.run())
    for count in range(1, UNSENT_MAX + 4):
        reporter.count("default", key(count), 1)
        await told(reporter, link, count)
    assert reporter.counts.reported == 0
    assert reporter.counts.dropped == 3
    link.error = None
    await told(reporter, link, UNSENT_MAX + 4)
    running.cancel()
    seen = Counter(one.instance_id for request in link.requests for one in request.outcomes)
    assert seen == {f"e-{number}": 1 for number in range(4, UNSENT_MAX + 4)}
    assert reporter.counts == (UNSENT_MAX, 3)


async def test_a_control_plane_that_does_not_take_reports_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outcomes, "REST_S", 0.3)
    link = FakeLink()
    link.error = NotSupported("never heard of it")
    reporter = outcomes(link)
    running = asyncio.ensure_future(reporter.run())
    reporter.count("default", KEY, 1)
    await told(reporter, link, 1)
    reporter.count("default", KEY, 1)
    await told(reporter, link, 2)
    assert link.called_s[1] - link.called_s[0] >= 0.3
    assert reporter.counts == (0, 2)
    running.cancel()


async def test_the_rest_is_told_at_the_end() -> None:
    link = FakeLink()
    reporter = outcomes(link, interval_s=60)
    running = asyncio.ensure_future(reporter.run())
    for namespace in ("a", "b", "b"):
        reporter.count(namespace, KEY, 1)
    await asyncio.sleep(0)
    running.cancel()
    await reporter.flush()
    assert {request.namespace: request.outcomes[0].count for request in link.requests} == {"a": 1, "b": 2}
    link.error = Unreachable("away")
    reporter.count("a", KEY, 1)
    await reporter.flush()
    assert reporter.counts == (3, 1)


def test_a_full_report_is_what_the_contract_allows() -> None:
    log = OutcomeLog(Rng(1))
    for number in range(2 * ROWS_MAX):
        log.count(KEY._replace(version=f"1.0.{number}"), 10**number if number < 15 else 1)
    request = _outcomes._request("default", "front", log.take())
    assert len(request.outcomes) == ROWS_MAX
    assert request.ByteSize() < 100_000


OPEN = CallerState(service="echo", breaker=CallerState.BREAKER_OPEN)


async def test_states_are_told_again_and_again_without_calls_and_once_when_there_are_none() -> None:
    link, said = FakeLink(), {"default": [OPEN]}
    reporter = outcomes(link, states=lambda: said)
    running = asyncio.ensure_future(reporter.run())
    await told(reporter, link, 3)
    said = {}
    await until(lambda: not link.requests[-1].states)
    count = len(link.requests)
    assert [list(request.states) for request in link.requests] == [[OPEN]] * (count - 1) + [[]]
    assert {(request.namespace, request.client) for request in link.requests} == {("default", "me")}
    await asyncio.sleep(0.1)
    assert len(link.requests) == count, "nothing is left to be told"
    assert all(later - earlier >= 0.02 for earlier, later in zip(link.called_s, link.called_s[1:], strict=False))
    running.cancel()


async def test_states_push_no_calls_out_while_the_control_plane_is_away() -> None:
    link, said = FakeLink(), {"default": [OPEN]}
    link.error = Unreachable("away")
    reporter = outcomes(link, states=lambda: said)
    running = asyncio.ensure_future(reporter.run())
    reporter.count("default", KEY, 1)
    await told(reporter, link, 3 * UNSENT_MAX)
    said = {"default": [CallerState(service="echo", instance_id="e-1", ejected="success_rate")]}
    await told(reporter, link, len(link.called_s) + 2)
    link.error = None
    await until(lambda: link.requests)
    [request] = link.requests[:1]
    assert sum(outcome.count for outcome in request.outcomes) == 1
    assert list(request.states) == said["default"]
    assert reporter.counts.dropped == 0
    running.cancel()
