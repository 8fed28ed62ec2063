"""What callers report is counted by version, instance and pair of services, within bounds."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from trunkline.core.errors import InvalidArgument
from trunkline.core.policy import StatusCode
from trunkline.server.traffic.latency import LAST
from trunkline.server.traffic.outcomes import PERIOD_NS, SLICE, Edge, Outcomes, OutcomesConfig, Reported, Sample

NONE: Mapping[int, int] = {}


class Registry:
    """Instances of `orders`, by id, with their versions."""

    def __init__(self, **instances: str) -> None:
        self.instances = instances

    @property
    def versions(self) -> set[str]:
        return set(self.instances.values())

    def service(self, namespace: str, service: str) -> Registry | None:
        return self if (namespace, service) == ("default", "orders") else None


def report(
    version: str = "1.0.0", calls: int = 1, code: int = 0, *, instance_id: str = "", buckets: Mapping[int, int] = NONE
) -> Reported:
    return Reported("orders", version, code, calls, calls * 5, instance_id, buckets)


def kept(outcomes: Outcomes, now_ns: int = 0) -> dict[str, int]:
    return {version: tally.calls for version, tally in outcomes.lately("default", "orders", now_ns).items()}


def test_calls_are_added_up_by_version_and_code() -> None:
    outcomes = Outcomes()
    assert outcomes.report("default", [report(calls=5), report(calls=2, code=14)], 1) == 0
    assert outcomes.report("default", [report(calls=6), report("2.0.0")], 2) == 0
    found = outcomes.lately("default", "orders", 2)
    assert (found["1.0.0"].codes[0], found["1.0.0"].codes[14], found["1.0.0"].latency_ns) == (11, 2, 65)
    assert found["2.0.0"].calls == 1
    assert outcomes.lately("other", "orders", 2) == {}


def test_cancelled_calls_are_no_evidence_and_failed_ones_have_no_latency() -> None:
    outcomes = Outcomes()
    outcomes.report(
        "default",
        [
            report(calls=3, buckets={4: 2, 9: 1}),
            report(calls=2, code=StatusCode.NOT_FOUND, buckets={9: 2}),
            report(calls=7, code=StatusCode.CANCELLED, buckets={80: 7}),
            report(calls=4, code=StatusCode.DEADLINE_EXCEEDED, buckets={80: 4}),
        ],
        0,
    )
    found = outcomes.lately("default", "orders", 0)["1.0.0"].sample()
    assert found == Sample(calls=9, failed=4, buckets={4: 2, 9: 3})


def test_instances_and_pairs_of_services() -> None:
    outcomes = Outcomes()
    outcomes.report("default", [report(instance_id="a"), report(calls=2, code=14, instance_id="b")], 0, caller="cart")
    outcomes.report("default", [report(calls=4, instance_id="a")], 0)
    assert {one: row.lately(0).calls for one, row in outcomes.instance_rows("default", "orders")} == {"a": 5, "b": 2}
    [(edge, row)] = outcomes.edge_rows("default")
    assert (edge, row.lately(0).calls, row.lately(0).sample().failed) == (Edge("cart", "orders"), 3, 2)
    assert outcomes.edge_rows("other") == []
    outcomes.report("default", [report()._replace(service="cart")], 0, caller="shop")
    assert [edge for edge, _ in outcomes.edge_rows("default", "shop")] == [("shop", "cart")]
    assert {edge for edge, _ in outcomes.edge_rows("default", "cart")} == {("shop", "cart"), ("cart", "orders")}


def test_lately_is_this_period_and_the_one_before_it() -> None:
    outcomes = Outcomes()
    outcomes.report("default", [report(calls=1)], 0, caller="cart")
    outcomes.report("default", [report(calls=2)], PERIOD_NS)
    assert kept(outcomes, 2 * PERIOD_NS - 1) == {"1.0.0": 3}
    assert kept(outcomes, 2 * PERIOD_NS) == {"1.0.0": 2}
    outcomes.report("default", [report(calls=4)], 2 * PERIOD_NS)
    assert kept(outcomes, 2 * PERIOD_NS) == {"1.0.0": 6}
    assert kept(outcomes, 9 * PERIOD_NS) == {"1.0.0": 0}
    assert [row.lately(9 * PERIOD_NS).calls for _, row in outcomes.edge_rows("default")] == [0]


def test_since_a_mark() -> None:
    outcomes = Outcomes()
    outcomes.report("default", [report(calls=5, buckets={3: 5})], 0)
    mark = outcomes.mark("default", "orders")
    outcomes.report("default", [report(calls=2, buckets={3: 1, 7: 1}), report("2.0.0", calls=3)], 20 * PERIOD_NS)
    found = outcomes.since("default", "orders", mark)
    assert {version: tally.calls for version, tally in found.items()} == {"1.0.0": 2, "2.0.0": 3}
    assert found["1.0.0"].sample() == Sample(calls=2, buckets={3: 1, 7: 1})
    assert kept(outcomes, 20 * PERIOD_NS) == {"1.0.0": 2, "2.0.0": 3}, "looking changes nothing"


def test_a_row_that_made_way_and_came_back_counts_from_then_on() -> None:
    outcomes = Outcomes(OutcomesConfig(outcomes_max=1, idle_s=1e-9))
    outcomes.report("default", [report(calls=500)], 0)
    mark = outcomes.mark("default", "orders")
    outcomes.report("default", [report("2.0.0")], 10)
    outcomes.report("default", [report(calls=7)], 20)
    assert {v: t.calls for v, t in outcomes.since("default", "orders", mark).items()} == {"1.0.0": 7}


def test_rows_are_bounded_and_the_idle_make_way() -> None:
    outcomes = Outcomes(OutcomesConfig(outcomes_max=2, idle_s=100e-9))
    assert outcomes.report("default", [report("1.0.0"), report("2.0.0"), report("3.0.0")], 0) == 1
    assert outcomes.report("default", [report("1.0.0")], 90) == 0
    assert outcomes.report("default", [report("3.0.0")], 100) == 0, "2.0.0 was idle"
    assert outcomes.report("default", [report("4.0.0")], 110) == 1
    assert kept(outcomes) == {"1.0.0": 2, "3.0.0": 1}
    metrics = outcomes.metrics()
    assert (metrics["outcomes"], metrics["outcomes_max"], metrics["outcomes_dropped_total"]) == (2, 2, 2)


def test_instances_and_edges_have_bounds_of_their_own() -> None:
    outcomes = Outcomes(OutcomesConfig(instances_max=1, edges_max=1))
    assert outcomes.report("default", [report(instance_id="a"), report(instance_id="b")], 0, caller="cart") == 1
    assert outcomes.report("default", [report(instance_id="a")], 0, caller="shop") == 1
    assert kept(outcomes) == {"1.0.0": 3}, "the version is counted all the same"
    metrics = outcomes.metrics()
    assert (metrics["outcome_instances_dropped_total"], metrics["outcome_edges_dropped_total"]) == (1, 1)


@pytest.mark.parametrize(
    ("buckets", "rule"),
    [({0: 2, 5: 2}, "as many calls as `count` in all, 5"), ({0: 6}, "as many calls"), ({LAST + 1: 5}, "from 0 to 80")],
)
def test_buckets_that_do_not_add_up_are_refused_and_nothing_is_counted(buckets: Mapping[int, int], rule: str) -> None:
    outcomes = Outcomes()
    with pytest.raises(InvalidArgument) as refused:
        outcomes.report("default", [report(calls=3), report(calls=5, buckets=buckets)], 0)
    [violation] = refused.value.violations
    assert violation.field == "outcomes[1].latency_buckets"
    assert rule in violation.rule
    assert kept(outcomes) == {}


def test_versions_of_one_service_are_bounded_and_leave_room_for_others() -> None:
    outcomes = Outcomes(OutcomesConfig(versions_max=3, idle_s=10))
    assert outcomes.report("default", [report(f"1.{n}.0") for n in range(5)], 0) == 2
    assert outcomes.report("default", [Reported("mail", "1.0.0", 0, 1, 0)], 0) == 0
    assert outcomes.report("default", [report("1.1.0"), report("1.2.0")], int(9e9)) == 0
    assert outcomes.report("default", [report("2.0.0"), report("3.0.0")], int(10e9)) == 1
    assert kept(outcomes, int(10e9)) == {"1.1.0": 2, "1.2.0": 2, "2.0.0": 1}, "who was idle made way"


def test_many_reports_are_counted_in_slices_and_none_when_one_is_wrong() -> None:
    outcomes = Outcomes()
    reports = [report(calls=2, buckets={4: 2})] * (2 * SLICE + 1)
    assert len(list(outcomes.report_in_slices("default", reports, 0))) == 4
    assert kept(outcomes) == {"1.0.0": 2 * len(reports)}
    with pytest.raises(InvalidArgument):
        list(outcomes.report_in_slices("default", [*reports, report(calls=2, buckets={4: 1})], 0))
    assert kept(outcomes) == {"1.0.0": 2 * len(reports)}


def test_made_up_versions_make_way_for_registered_ones_at_once() -> None:
    registry = Registry(a="1.0.0", b="2.0.0")
    outcomes = Outcomes(OutcomesConfig(versions_max=3, idle_s=10), registry)
    assert outcomes.report("default", [report(f"9.{n}.0") for n in range(3)], 0) == 0, "there is room for them"
    mark = outcomes.mark("default", "orders")
    assert outcomes.report("default", [report("9.0.0", 5), report("1.0.0", 2), report("2.0.0", 3)], 1) == 0
    assert kept(outcomes, 1) == {"9.0.0": 6, "1.0.0": 2, "2.0.0": 3}, "those that were last reported to go last"
    assert outcomes.report("default", [report("9.1.0")] * 5, 2) == 5, "made-up ones drive out nobody"
    found = outcomes.since("default", "orders", mark)
    assert {version: tally.calls for version, tally in found.items()} == {"9.0.0": 5, "1.0.0": 2, "2.0.0": 3}


def test_made_up_services_take_no_room_of_registered_versions() -> None:
    outcomes = Outcomes(OutcomesConfig(outcomes_max=2, idle_s=10), Registry(a="1.0.0", b="2.0.0"))
    made_up = [Reported(f"no-{n}", "1.0.0", 0, 1, 0) for n in range(2)]
    assert outcomes.report("default", made_up, 0) == 0
    assert outcomes.report("default", [report("1.0.0"), report("2.0.0")], 1) == 0
    assert kept(outcomes, 1) == {"1.0.0": 1, "2.0.0": 1}
    assert outcomes.report("default", made_up, 2) == 2
    metrics = outcomes.metrics()
    assert (metrics["outcomes"], metrics["outcomes_dropped_total"]) == (2, 2)


def test_of_what_is_idle_made_up_versions_make_way_first() -> None:
    outcomes = Outcomes(OutcomesConfig(outcomes_max=2, idle_s=10), Registry(a="1.0.0", b="2.0.0"))
    outcomes.report("default", [report("1.0.0"), Reported("no", "1.0.0", 0, 1, 0)], 0)
    assert outcomes.report("default", [report("2.0.0")], int(20e9)) == 0
    assert kept(outcomes) == {"1.0.0": 1, "2.0.0": 1}


def test_versions_that_went_keep_their_rows_for_a_while_whatever_is_reported_of_them() -> None:
    registry = Registry(a="1.0.0")
    outcomes = Outcomes(OutcomesConfig(versions_max=1, idle_s=10), registry)
    outcomes.report("default", [report("1.0.0")], 0)
    registry.instances = {"b": "2.0.0"}
    assert outcomes.report("default", [report("1.0.0"), report("2.0.0")], int(9e9)) == 1
    assert outcomes.report("default", [report("1.0.0"), report("2.0.0")], int(10e9)) == 0
    assert kept(outcomes, int(10e9)) == {"2.0.0": 1}, "that callers still speak of it holds it no longer"


def test_made_up_instances_make_way_for_registered_ones() -> None:
    outcomes = Outcomes(OutcomesConfig(instances_max=1), Registry(a="1.0.0"))
    assert outcomes.report("default", [report(instance_id="x"), report(instance_id="a")], 0) == 0
    assert outcomes.report("default", [report(instance_id="x")], 1) == 1
    assert [one for one, _ in outcomes.instance_rows("default", "orders")] == ["a"]
