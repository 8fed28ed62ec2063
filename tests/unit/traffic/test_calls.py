from __future__ import annotations

import asyncio

from trunkline.api.v1 import traffic_pb2
from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.core.clock import ManualClock
from trunkline.server.traffic import calls as module
from trunkline.server.traffic.caller_states import CallerStates
from trunkline.server.traffic.calls import Calls, statistics
from trunkline.server.traffic.outcomes import PERIOD_NS, Outcomes, Reported, Tally


def reported(service: str, instance: str = "", *, calls: int = 1, code: int = 0, bucket: int = 40) -> Reported:
    return Reported(service, "1.0.0", code, calls, 0, instance, {bucket: calls})


def look(outcomes: Outcomes, service: str = "", *, now_ns: int = 0) -> traffic_pb2.GetCallsResponse:
    return asyncio.run(Calls(outcomes, CallerStates(), ManualClock(now_ns)).look("default", service))


def test_who_calls_whom_most_first() -> None:
    outcomes = Outcomes()
    outcomes.report("default", [reported("cart", calls=3), reported("stock", calls=5, code=14)], 0, caller="shop")
    outcomes.report("default", [reported("stock", calls=4)], 0, caller="cart")
    outcomes.report("other", [reported("stock", calls=9)], 0, caller="cart")
    found = [(one.caller, one.service, one.calls.calls, one.calls.failed) for one in look(outcomes).services]
    assert found == [("shop", "stock", 5, 5), ("cart", "stock", 4, 0), ("shop", "cart", 3, 0)]
    of_cart = [(one.caller, one.service) for one in look(outcomes, "cart").services]
    assert of_cart == [("cart", "stock"), ("shop", "cart")]
    assert not look(outcomes, now_ns=2 * PERIOD_NS).services, "nobody has called for so long"


def test_versions_and_instances_of_one_service() -> None:
    outcomes = Outcomes()
    outcomes.report("default", [reported("cart", "a", calls=2), reported("cart", "b", calls=7, code=14)], 0)
    answer = look(outcomes, "cart")
    assert [(one.version, one.calls.calls, one.calls.failed) for one in answer.versions] == [("1.0.0", 9, 7)]
    assert [(one.id, one.calls.calls) for one in answer.instances] == [("b", 7), ("a", 2)]
    assert not look(outcomes).versions
    assert not answer.truncated


def test_more_than_are_shown(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "ROWS_MAX", 3)
    outcomes = Outcomes()
    outcomes.report("default", [reported("cart", f"i{n}", calls=n + 1) for n in range(5)], 0)
    answer = look(outcomes, "cart")
    assert [one.id for one in answer.instances] == ["i4", "i3", "i2"]
    assert answer.truncated


def test_latencies_are_of_those_that_did_not_fail() -> None:
    tally = Tally()
    tally.count(reported("cart", calls=98, bucket=0))
    tally.count(reported("cart", calls=2, bucket=40))
    tally.count(reported("cart", calls=50, code=4, bucket=80))
    tally.count(reported("cart", calls=5, code=1, bucket=80))
    found = statistics(tally)
    assert (found.calls, found.failed) == (150, 50)
    assert found.p50.ToNanoseconds() == 100_000
    assert found.p99.ToNanoseconds() == 102_400_000
    assert not statistics(Tally()).HasField("p50")


def test_what_is_reported_stands_beside_the_candidates() -> None:
    outcomes = Outcomes()
    outcomes.report("default", [reported("cart", "a", calls=2, code=14)], 0)
    answer = traffic_pb2.ExplainPickResponse(candidates=[traffic_pb2.ExplainedCandidate(id=one) for one in "ab"])
    asyncio.run(Calls(outcomes, CallerStates(), ManualClock()).note(answer, "default", "cart"))
    assert [one.HasField("calls") for one in answer.candidates] == [True, False]
    assert answer.candidates[0].calls.failed == 2


OPEN = CallerState(service="cart", breaker=CallerState.BREAKER_OPEN)
EJECTED = CallerState(service="cart", instance_id="a", ejected="consecutive_5xx")
SHEDDING = CallerState(service="cart", instance_id="a", breaker=CallerState.BREAKER_CLOSED, rejection_percent=40)


def test_what_clients_make_of_a_service_is_shown() -> None:
    states = CallerStates()
    states.say("default", "one", [OPEN, EJECTED, CallerState(service="stock", ejected="x")], 0)
    states.say("default", "two", [SHEDDING, EJECTED], 0)
    states.say("other", "three", [OPEN], 0)
    calls = Calls(Outcomes(), states, ManualClock())
    answer = asyncio.run(calls.look("default", "cart"))
    assert [(one.client, one.state) for one in answer.clients] == [
        ("one", OPEN), ("one", EJECTED), ("two", SHEDDING), ("two", EJECTED)
    ]  # fmt: skip
    assert not asyncio.run(calls.look("default", "")).clients
    explained = traffic_pb2.ExplainPickResponse(candidates=[traffic_pb2.ExplainedCandidate(id=one) for one in "ab"])
    asyncio.run(calls.note(explained, "default", "cart"))
    assert [(one.ejected_by, one.breaker_open_at) for one in explained.candidates] == [(2, 1), (0, 0)]


def said(states: CallerStates, now_ns: int = 0) -> list[str]:
    return [client for client, words in states.words("default", now_ns) for _ in words]


def test_a_word_stands_until_the_next_and_for_a_minute() -> None:
    states = CallerStates(kept_ns=60)
    states.say("default", "one", [OPEN], 0)
    states.say("default", "two", [OPEN], 10)
    assert said(states, 59) == ["one", "two"]
    assert said(states, 60) == ["two"]
    states.say("default", "two", [], 61)
    assert said(states, 61) == []


def test_words_have_bounds_and_old_ones_make_way() -> None:
    states = CallerStates(clients_max=2, states_max=3, kept_ns=60)
    assert states.say("default", "one", [OPEN], 0)
    assert states.say("default", "two", [OPEN], 10)
    assert not states.say("default", "three", [OPEN], 20)
    assert not states.say("default", "two", [OPEN, EJECTED, SHEDDING], 20), "four in all; what it said before is gone"
    assert said(states, 20) == ["one"]
    assert states.say("default", "three", [OPEN, EJECTED, SHEDDING], 60)
    assert said(states, 60) == ["three"] * 3
    assert states.metrics()["caller_states"] == 3
    assert states.metrics()["caller_states_dropped_total"] == 2
