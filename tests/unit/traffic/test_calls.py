from __future__ import annotations

import asyncio

from trunkline.api.v1 import traffic_pb2
from trunkline.core.clock import ManualClock
from trunkline.server.traffic import calls as module
from trunkline.server.traffic.calls import Calls, statistics
from trunkline.server.traffic.outcomes import PERIOD_NS, Outcomes, Reported, Tally


def reported(service: str, instance: str = "", *, calls: int = 1, code: int = 0, bucket: int = 40) -> Reported:
    return Reported(service, "1.0.0", code, calls, 0, instance, {bucket: calls})


def look(outcomes: Outcomes, service: str = "", *, now_ns: int = 0) -> traffic_pb2.GetCallsResponse:
    return asyncio.run(Calls(outcomes, ManualClock(now_ns)).look("default", service))


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
    asyncio.run(Calls(outcomes, ManualClock()).note(answer, "default", "cart"))
    assert [one.HasField("calls") for one in answer.candidates] == [True, False]
    assert answer.candidates[0].calls.failed == 2
