"""Outlier detection as Envoy writes it down, one sentence at a time.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier, and the comments of
envoy.config.cluster.v3.OutlierDetection.
"""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.core.clock import Rng
from trunkline.core.outliers import Detection, OutlierDetector
from trunkline.core.policy import OutlierDetection, S, StatusCode

OK, INTERNAL, UNAVAILABLE = StatusCode.OK, StatusCode.INTERNAL, StatusCode.UNAVAILABLE


def of(n: int, **fields: Any) -> OutlierDetector:
    """A detector of so many hosts that may eject all it likes, and has begun its first interval at 0 s."""
    detector = OutlierDetector(OutlierDetection(**{"max_ejection_percent": 100, **fields}), Rng(1))
    detector.set_hosts([f"h{at}" for at in range(n)])
    detector.advance(0)
    return detector


def end(
    detector: OutlierDetector, index: int, code: StatusCode, times: int, *, local: bool = False, at_s: float = 1
) -> list[bool]:
    return [detector.record(index, code, local, int(at_s * S)) for _ in range(times)]


def out(detector: OutlierDetector) -> dict[str, Detection]:
    return {key: ejection.reason for key, ejection in detector.ejections().items()}


def test_defaults_are_envoys() -> None:
    # envoy.config.cluster.v3.OutlierDetection: 'Defaults to ...'.
    policy = OutlierDetection()
    detector = OutlierDetector(policy, Rng(1))
    detector.set_hosts([f"h{at}" for at in range(10)])
    assert end(detector, 0, INTERNAL, 5) == [False] * 4 + [True]
    ejection = detector.ejected(0)
    assert ejection is not None
    assert (ejection.until_ns - ejection.since_ns, ejection.times) == (30 * S, 1)
    assert end(detector, 1, INTERNAL, 50) == [False] * 50  # two of ten are more than 10 %
    assert detector.ejected_count == 1


def test_errors_of_both_origins_end_up_in_the_same_bucket() -> None:
    # 'if connection to an upstream HTTP server fails twice because of timeout and then, after successful connection
    # establishment, the server returns error code 500 then the total error count will be 3.'
    detector = of(2, consecutive_5xx=3)
    end(detector, 0, StatusCode.DEADLINE_EXCEEDED, 2, local=True)
    assert not out(detector)
    end(detector, 0, INTERNAL, 1)
    assert out(detector) == {"h0": Detection.CONSECUTIVE_5XX}


def test_split_each_bucket_sees_its_own() -> None:
    detector = of(3, consecutive_5xx=3, split_external_local_origin_errors=True)
    end(detector, 0, UNAVAILABLE, 4, local=True)
    end(detector, 0, INTERNAL, 2)
    assert not out(detector)
    # An answer, even a bad one, says that the connection is well; a lost connection says nothing of answers.
    end(detector, 0, UNAVAILABLE, 4, local=True)
    assert not out(detector)
    end(detector, 0, INTERNAL, 1)
    assert out(detector) == {"h0": Detection.CONSECUTIVE_5XX}
    end(detector, 1, UNAVAILABLE, 5, local=True)
    assert out(detector)["h1"] is Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE


@pytest.mark.parametrize("code", StatusCode)
def test_which_codes_are_failures(code: StatusCode) -> None:
    failures = {"UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
    detector = of(2, enforcing_consecutive_gateway_failure=100, consecutive_gateway_failure=2)
    end(detector, 0, code, 20)
    expected = None
    if code.name in failures:
        expected = Detection.CONSECUTIVE_5XX
    if code.name in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}:
        expected = Detection.CONSECUTIVE_GATEWAY_FAILURE
    assert out(detector).get("h0") is expected


def test_a_cancelled_call_says_nothing() -> None:
    detector = of(2)
    for _ in range(4):
        end(detector, 0, INTERNAL, 1)
        end(detector, 0, StatusCode.CANCELLED, 1)
    assert not out(detector)
    end(detector, 0, INTERNAL, 1)
    assert out(detector)


def test_a_success_ends_a_row() -> None:
    detector = of(2)
    end(detector, 0, INTERNAL, 4)
    end(detector, 0, OK, 1)
    end(detector, 0, INTERNAL, 4)
    assert not out(detector)


def test_another_failure_ends_a_row_of_gateway_failures() -> None:
    detector = of(2, consecutive_5xx=100, enforcing_consecutive_gateway_failure=100)
    end(detector, 0, UNAVAILABLE, 4)
    end(detector, 0, INTERNAL, 1)
    end(detector, 0, UNAVAILABLE, 4)
    assert not out(detector)
    end(detector, 0, UNAVAILABLE, 1)
    assert out(detector) == {"h0": Detection.CONSECUTIVE_GATEWAY_FAILURE}


def test_gateway_failures_eject_nobody_by_default() -> None:
    detector = of(2, consecutive_5xx=0)
    end(detector, 0, UNAVAILABLE, 100)
    assert not out(detector)


def test_success_rates_of_the_example() -> None:
    # 'For example with a data set that looks like success_rate_data = {50, 100, 100, 100, 100} ... mean = 90, variance
    # = 400, stdev = 20, threshold returned = 52': with the default factor of 1.9.
    for bad, expected in (((4,), {"h4": Detection.SUCCESS_RATE}), ((3, 4), {})):  # two: mean 80, stdev 24.5, 33.5
        detector = of(5, consecutive_5xx=0)
        for index in range(5):
            end(detector, index, INTERNAL, 100 if index in bad else 0)
            end(detector, index, OK, 100 if index in bad else 200)
        assert not detector.advance(10 * S - 1)
        assert detector.advance(10 * S) == bool(expected)
        assert out(detector) == expected


@pytest.mark.parametrize(("hosts", "calls"), [(4, 100), (5, 99)])
def test_success_rates_need_hosts_with_volume(hosts: int, calls: int) -> None:
    detector = of(6, consecutive_5xx=0)
    for index in range(hosts):
        end(detector, index, INTERNAL if index == 0 else OK, calls)
    assert not detector.advance(10 * S)
    for index in range(5):
        end(detector, index, INTERNAL if index == 0 else OK, 100)
    assert detector.advance(20 * S)  # and the calls of one interval are not those of the next


def test_failure_percentages() -> None:
    # 'If the failure percentage of a given host is greater than or equal to this value, it will be ejected.'
    fields = {"consecutive_5xx": 0, "enforcing_success_rate": 0, "enforcing_failure_percentage": 100}
    detector = of(5, **fields)
    for index in range(5):
        end(detector, index, OK, 50)
    end(detector, 3, UNAVAILABLE, 250)  # 83.3 %
    end(detector, 4, UNAVAILABLE, 300)  # 85.7 %
    assert detector.advance(10 * S)
    assert out(detector) == {"h4": Detection.FAILURE_PERCENTAGE}
    assert not detector.advance(20 * S)
    assert detector.advance(40 * S)  # back after 30 s
    for index in range(5):
        end(detector, index, OK if index else INTERNAL, 49)
    assert not detector.advance(50 * S)
    assert not out(of(5, **{**fields, "enforcing_failure_percentage": 0}))


@pytest.mark.parametrize("percent", [84, 85])
def test_the_failure_percentage_itself_is_an_outlier(percent: int) -> None:
    detector = of(5, consecutive_5xx=0, enforcing_success_rate=0, enforcing_failure_percentage=100)
    for index in range(1, 5):
        end(detector, index, OK, 100)
    end(detector, 0, INTERNAL, percent)
    end(detector, 0, OK, 100 - percent)
    assert detector.advance(10 * S) == (percent == 85)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("enforcing_local_origin_success_rate", Detection.SUCCESS_RATE_LOCAL_ORIGIN),
        ("enforcing_failure_percentage_local_origin", Detection.FAILURE_PERCENTAGE_LOCAL_ORIGIN),
    ],
)
def test_local_origin_rates_are_compared_by_themselves(field: str, reason: Detection) -> None:
    nothing = dict.fromkeys(("consecutive_local_origin_failure", "consecutive_5xx"), 0)
    off = {"enforcing_local_origin_success_rate": 0, "enforcing_failure_percentage_local_origin": 0}
    detector = of(5, **nothing, **{**off, field: 100}, split_external_local_origin_errors=True)
    for index in range(5):
        end(detector, index, UNAVAILABLE if index == 2 else OK, 100, local=index == 2)
    assert detector.advance(10 * S)
    assert out(detector) == {"h2": reason}


def test_ejections_get_longer_and_shorter_again() -> None:
    # 'base_ejection_time ... multiplied by the number of times the host has been ejected in a row', up to
    # max_ejection_time; 'If the host is healthy during that check, the ejection time multiplier is decremented.'
    detector = of(3, base_ejection_time_ns=30 * S, max_ejection_time_ns=70 * S)
    now_s, times = 0, []
    for _ in range(5):
        end(detector, 0, INTERNAL, 5, at_s=now_s)
        ejection = detector.ejected(0)
        assert ejection is not None
        times.append((ejection.until_ns - ejection.since_ns) // S)
        while detector.ejected(0):
            now_s += 10
            detector.advance(now_s * S)
    assert times == [30, 60, 70, 70, 70]
    for expected in (60, 30, 30):  # two healthy intervals more each time: the first look brings it back
        for _ in range(3):
            now_s += 10
            detector.advance(now_s * S)
        end(detector, 0, INTERNAL, 5, at_s=now_s)
        ejection = detector.ejected(0)
        assert ejection is not None
        assert (ejection.until_ns - ejection.since_ns) // S == expected
        while detector.ejected(0):
            now_s += 10
            detector.advance(now_s * S)


def test_a_host_comes_back_at_a_look() -> None:
    detector = of(2)
    end(detector, 0, INTERNAL, 5, at_s=1)
    for at_s in (10, 20, 30):
        assert not detector.advance(at_s * S)
    assert detector.next_ns == 40 * S
    assert detector.advance(40 * S)
    # 'Reset the consecutive failure counters': it takes as many failures again.
    assert end(detector, 0, INTERNAL, 5, at_s=41) == [False] * 4 + [True]


def test_failures_while_ejected_do_not_count_when_it_is_back() -> None:
    detector = of(2)
    end(detector, 0, INTERNAL, 8, at_s=1)
    detector.advance(31 * S)
    assert not out(detector)
    assert not any(end(detector, 0, INTERNAL, 4, at_s=32))


def test_jitter_is_added_by_chance() -> None:
    spread = set()
    for seed in range(200):
        detector = OutlierDetector(
            OutlierDetection(max_ejection_percent=100, max_ejection_time_jitter_ns=3, max_ejection_time_ns=30 * S),
            Rng(seed),
        )
        detector.set_hosts(["a", "b"])
        end(detector, 0, INTERNAL, 5, at_s=0)
        spread.add(detector.ejections()["a"].until_ns - 30 * S)
    assert spread == {0, 1, 2, 3}


def test_an_outlier_is_ejected_by_the_chance_that_is_set() -> None:
    ejected = 0
    for seed in range(1_000):
        policy = OutlierDetection(max_ejection_percent=100, enforcing_consecutive_5xx=30)
        detector = OutlierDetector(policy, Rng(seed))
        detector.set_hosts(["a", "b"])
        ejected += end(detector, 0, INTERNAL, 5)[-1]
    assert 250 < ejected < 350


def test_what_was_not_enforced_is_found_out_again() -> None:
    found = []
    for seed in range(20):
        policy = OutlierDetection(max_ejection_percent=100, enforcing_consecutive_5xx=50)
        detector = OutlierDetector(policy, Rng(seed))
        detector.set_hosts(["a", "b"])
        found.append(end(detector, 0, INTERNAL, 500).index(True))
    assert {at % 5 for at in found} == {4}  # again after as many failures
    assert len(set(found)) > 2


def test_the_share_is_taken_after_the_ejection() -> None:
    # envoyproxy/envoy#27066: 'if there are 3 hosts and the max ejection percentage is set to 67 %', two may go.
    detector = of(3, max_ejection_percent=67)
    for index in range(3):
        end(detector, index, INTERNAL, 50)
    assert len(out(detector)) == 2
    detector = of(3, max_ejection_percent=66)
    for index in range(3):
        end(detector, index, INTERNAL, 50)
    assert len(out(detector)) == 1


def test_one_host_may_be_ejected_always() -> None:
    for always in (False, True):
        detector = of(5, max_ejection_percent=10, always_eject_one_host=always)
        for index in range(5):
            end(detector, index, INTERNAL, 50)
        assert len(out(detector)) == always


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("hosts", [1, 2, 5])
def test_the_last_one_is_never_ejected(hosts: int, always: bool) -> None:
    detector = of(hosts, always_eject_one_host=always)
    for index in range(hosts):
        end(detector, index, INTERNAL, 50)
    assert len(out(detector)) == hosts - 1


def test_hosts_that_leave_do_not_leave_the_ejected_alone() -> None:
    detector = of(3)
    end(detector, 0, INTERNAL, 5, at_s=2)
    end(detector, 1, INTERNAL, 5, at_s=1)
    detector.set_hosts(["h0", "h1"])
    assert out(detector) == {"h0": Detection.CONSECUTIVE_5XX}
    assert detector.ejected_count == 1
    detector.set_hosts([])
    assert detector.ejected_count == 0


def test_what_is_known_of_a_host_moves_with_it() -> None:
    detector = of(3)
    end(detector, 2, INTERNAL, 4)
    end(detector, 1, INTERNAL, 5)
    detector.set_hosts(["h2", "new", "h1"])
    assert detector.ejected(2) is not None
    assert detector.index_of("h0") is None
    assert end(detector, 1, INTERNAL, 1) == [False]
    assert end(detector, 0, INTERNAL, 1) == [True]
    detector.set_hosts(["h0"])
    detector.set_hosts(["h0", "h2"])
    assert not out(detector)  # one that was away is new


def test_nonsense_is_refused() -> None:
    detector = of(2)
    with pytest.raises(ValueError, match="twice"):
        detector.set_hosts(["a", "a"])
    for index in (-1, 2):
        with pytest.raises(IndexError):
            detector.record(index, 0, False, 0)
        with pytest.raises(IndexError):
            detector.forgive(index, 0)
    for code, local in ((-1, False), (17, False), (0, True)):
        with pytest.raises(ValueError, match="does not end"):
            detector.record(0, code, local, 0)
    with pytest.raises(IndexError):
        detector.renumber([2])


def test_no_hosts_at_all() -> None:
    detector = of(0, success_rate_minimum_hosts=0, failure_percentage_minimum_hosts=0)
    assert not detector.advance(10 * S)


def test_equal_rates_are_no_outliers() -> None:
    detector = of(6, consecutive_5xx=0, success_rate_stdev_factor=0, success_rate_request_volume=1)
    for index in range(6):
        end(detector, index, INTERNAL, 11)
        end(detector, index, OK, 38)
    assert not detector.advance(10 * S)
