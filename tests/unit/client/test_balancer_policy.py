"""The SDK's balancer holds a policy: what it is told, what it keeps when the policy or the view changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from reference.candidates import registered
from trunkline.client._balancer import Balancer, plain_policy
from trunkline.core.breaker import Breaker, Outcome, State
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.model import Locality, RegisteredInstance, Status
from trunkline.core.policy import (
    Algorithm,
    CircuitBreaker,
    Destination,
    KeySource,
    Limits,
    LocalityPreference,
    Policy,
    S,
    SlowStart,
    Split,
    Subset,
)

THREE = [registered(name) for name in "abc"]


def balancer(policy: Policy, instances: list[RegisteredInstance] | None = None, **fields: object) -> Balancer:
    made = Balancer(policy, "grpc", Rng(1), make_breaker=lambda _: Breaker(), **fields)  # type: ignore[arg-type]
    made.update(THREE if instances is None else instances)
    return made


def picked(made: Balancer, calls: int = 60, **call: object) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(calls):
        one = made.pick(**call)  # type: ignore[arg-type]
        found["" if one is None else one.instance.instance.id] += 1
    return found


def test_what_the_channel_says_is_a_policy() -> None:
    policy = plain_policy("ring_hash", "user")
    assert policy.load_balancing.algorithm is Algorithm.RING_HASH
    assert policy.load_balancing.hash_on == KeySource(header="user")
    assert plain_policy("round_robin") == Policy()


def test_another_policy_holds_from_the_next_pick_on() -> None:
    made = balancer(Policy(), [registered("a"), registered("b", version="2.0.0")])
    assert set(picked(made)) == {"a", "b"}
    made.set_policy(Policy(split=Split(destinations=(Destination(version="^2", weight=1),))))
    assert set(picked(made)) == {"b"}
    assert made.policy.split is not None
    made.set_policy(Policy())
    assert set(picked(made)) == {"a", "b"}


def test_ejected_ones_are_left_out_until_they_are_let_back() -> None:
    made = balancer(Policy())
    first = made.candidates[0]
    made.set_ejected(first, "consecutive_5xx")
    assert set(picked(made)) == {"b", "c"}
    assert made.left_out() == {first: "consecutive_5xx"}
    made.set_ejected(made.candidates[1], "consecutive_5xx")
    assert set(picked(made)) == {"a", "b", "c"}, "panic: one of three is too few"
    assert made.left_out() == {}
    made.set_ejected(made.candidates[1], "")
    made.set_ejected(first, "")
    assert set(picked(made)) == {"a", "b", "c"}


def test_an_ejection_and_a_lost_connection_are_told_apart() -> None:
    made = balancer(Policy(healthy_panic_threshold=0))
    a, b, c = made.candidates
    for one in (a, b):
        made.set_out(one, "connection refused")
    made.set_ejected(c, "success_rate")
    assert set(picked(made)) == {"c"}, "trying an ejected one is better than one that cannot be reached"


def test_calls_in_flight_are_counted_over_changes() -> None:
    made = balancer(plain_policy("least_request"))
    tickets = [made.begin() for _ in range(30)]
    assert {one.active for one in made.candidates} <= {8, 9, 10, 11, 12}
    made.update([*THREE, registered("d")])
    assert sum(one.active for one in made.candidates) == 30
    assert picked(made, 100)["d"] >= 40, "the one without calls wins whenever it is looked at"
    made.update([registered("d")])
    for ticket in tickets:
        assert ticket is not None
        assert made.candidate(ticket).instance.instance.id in "abc", "known although it is gone"
        ticket.end(Outcome.SUCCESS)
    made.update([registered(name) for name in "xyz"])
    assert [one.active for one in made.candidates] == [0, 0, 0]


def test_limits_and_breakers_of_a_policy() -> None:
    endpoint = CircuitBreaker(minimum_number_of_calls=1)
    made = balancer(Policy(limits=Limits(max_requests=4), endpoint_circuit_breaker=endpoint))
    tickets = [made.begin() for _ in range(5)]
    assert tickets[4] is None
    assert made.refusal == "max_requests"
    made.set_policy(
        Policy(limits=Limits(max_requests=5, max_requests_per_endpoint=2), endpoint_circuit_breaker=endpoint)
    )
    assert made.begin() is not None
    assert made.begin() is None
    made.set_policy(replace(made.policy, limits=Limits(max_requests_per_endpoint=2)))
    assert made.begin() is not None
    assert made.begin() is None
    assert made.refusal == "max_requests_per_endpoint"


def test_a_breaker_keeps_its_state_when_its_settings_stay() -> None:
    made = balancer(Policy(circuit_breaker=CircuitBreaker()))
    breaker = made._calls.breaker
    assert isinstance(breaker, Breaker)
    breaker.transition_to(State.FORCED_OPEN, 0)
    assert made.begin() is None
    assert made.refusal == "circuit_breaker"
    made.set_policy(Policy(circuit_breaker=CircuitBreaker(), limits=Limits(max_requests=9)))
    assert made.begin() is None
    made.set_policy(Policy(circuit_breaker=CircuitBreaker(failure_rate_threshold=80)))
    assert made.begin() is not None
    made.set_policy(Policy())
    assert made._calls.breaker is None


def test_every_endpoint_has_a_breaker_of_its_own_and_a_new_one_too() -> None:
    made = balancer(Policy(endpoint_circuit_breaker=CircuitBreaker()))
    made.update([*THREE, registered("d")])
    breakers = [made._calls.endpoint_breaker(one.slot) for one in made.candidates]
    assert len({id(one) for one in breakers if one is not None}) == 4
    broken = breakers[3]
    assert isinstance(broken, Breaker)
    broken.transition_to(State.FORCED_OPEN, 0)
    slots = {ticket.slot for _ in range(40) if (ticket := made.begin()) is not None}
    assert made.candidates[3].slot not in slots
    assert len(slots) == 3
    made.set_policy(Policy())
    assert all(made._calls.endpoint_breaker(one.slot) is None for one in made.candidates)


def test_new_instances_start_slowly_and_old_ones_do_not() -> None:
    clock = ManualClock(1_000 * S, epoch_ns=10**18)
    started_ns = 10**18 + 1_000 * S
    old, young = registered("old"), registered("young", registered_at_ns=started_ns - 50 * S)
    made = balancer(Policy(slow_start=SlowStart(window_ns=100 * S)), [old, young], clock=clock)
    assert picked(made, 300) == {"old": 200, "young": 100}, "it says that it is 50 s old"
    made.update([old, young, registered("late")])
    assert picked(made, 160) == {"old": 100, "young": 50, "late": 10}
    clock.advance(50 * S)
    assert picked(made, 250) == {"old": 100, "young": 100, "late": 50}, "nobody told it but the clock"
    clock.advance(50 * S)
    assert picked(made, 300) == {"old": 100, "young": 100, "late": 100}


def test_who_has_no_share_of_a_split_is_left_out() -> None:
    split = Split(destinations=(Destination(version="^1", weight=1), Destination(version="^2", weight=0)))
    made = balancer(Policy(split=split), [registered("a"), registered("b", version="2.0.0")])
    assert {one.instance.instance.id: why for one, why in made.left_out().items()} == {"b": "behind better ones"}
    made.update([registered("b", version="2.0.0")])
    assert made.left_out() == {}


def test_a_caller_prefers_its_zone() -> None:
    instances = [registered("near", zone="a"), registered("far", zone="b")]
    policy = Policy(locality=LocalityPreference())
    made = balancer(policy, instances, where=Locality(zone="a"))
    assert set(picked(made)) == {"near"}
    assert list(made.left_out().values()) == ["behind better ones"]
    made.set_out(made.candidates[0], "connection refused")
    assert set(picked(made)) == {"far"}


def test_calls_are_split_by_what_they_say_and_by_who_calls() -> None:
    instances = [registered("a"), registered("b", version="2.0.0")]
    split = Split(
        destinations=(Destination(version="^1", weight=1), Destination(version="^2", weight=1)),
        sticky_on=KeySource(caller=True),
    )
    homes = {
        name: set(picked(balancer(Policy(split=split), instances, caller=name), 20))
        for name in ("c1", "c2", "c3", "c4")
    }
    assert all(len(home) == 1 for home in homes.values())
    assert len({next(iter(home)) for home in homes.values()}) == 2


def test_who_was_tried_is_tried_last_and_the_same_destination_first() -> None:
    instances = [
        registered("a"),
        registered("b"),
        registered("c", version="2.0.0"),
        registered("d", status=Status.DEGRADED),
    ]
    split = Split(destinations=(Destination(version="^1", weight=1), Destination(version="^2", weight=1)))
    made = balancer(Policy(split=split), instances)
    a, b, c, d = made.candidates
    assert made.pick_another({a}) is b
    assert made.pick_another({a, b}) in (c, d)
    made.set_out(b, "connection refused")
    assert made.pick_another({a}) is d
    assert made.pick_another({c}) is a
    assert made.pick_another({a, b, c, d}) is None
    by_version = balancer(Policy(split=Split(destinations=(Destination(version="^1", weight=1),))), instances)
    one = by_version.pick()
    assert one is not None
    assert set(picked(by_version, 20, tried={one})) == {"a", "b"} - {one.instance.instance.id}
    ticket = by_version.begin(tried={one})
    assert ticket is not None
    assert by_version.candidate(ticket) is not one


def test_who_has_the_place_of_one_that_was_tried_and_is_gone_was_not_tried() -> None:
    a, b, c = THREE
    made = balancer(Policy(), [a, b])
    tried = set(made.candidates)
    made.update([b])
    made.update([b, c])
    assert picked(made, tried=tried) == {"c": 60}


def test_a_fallback_to_a_subset() -> None:
    instances = [registered("a"), registered("b", labels={"spare": "yes"})]
    policy = Policy(
        subsets=(Subset(name="spare", labels={"spare": "yes"}),),
        split=Split(destinations=(Destination(version="^1", weight=1),)),
    )
    made = balancer(policy, instances)
    ticket = made.begin(destination=Destination(subset="spare"))
    assert ticket is not None
    assert made.candidate(ticket).instance.instance.id == "b"


@pytest.mark.parametrize("gone_first", [True, False])
def test_the_last_call_of_one_that_went_gives_its_place_free(gone_first: bool) -> None:
    made = balancer(Policy())
    (one, *_), before = made.candidates, {candidate.slot for candidate in made.candidates}
    made.begun(one)
    if gone_first:
        made.update(THREE[1:])
        made.ended(one)
    else:
        made.ended(one)
        made.update(THREE[1:])
    made.update([*THREE[1:], registered("new")])
    assert {candidate.slot for candidate in made.candidates} == before
