"""The balancer picks only what is registered, best tier first, whatever happened before."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.client._balancer import TIERS, Balancer, Candidate, LoadBalancing
from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Endpoint, Instance, RegisteredInstance, Status
from trunkline.core.policy import Algorithm

ALGORITHMS = get_args(LoadBalancing)
INSTANCES = st.dictionaries(
    st.integers(1, 8), st.tuples(st.sampled_from(list(Status)), st.integers(1, 300)), max_size=8
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), INSTANCES),
        st.tuples(st.just("out"), st.integers(0, 7)),
        st.tuples(st.just("in"), st.integers(0, 7)),
        st.tuples(st.just("begin"), st.integers(0, 7)),
        st.tuples(st.just("end"), st.integers(0, 7)),
    ),
    max_size=30,
)


def instance(port: int, status: Status, weight: int) -> RegisteredInstance:
    return RegisteredInstance(
        instance=Instance(
            namespace="n", service="s", id=f"i-{port}", endpoints=(Endpoint("10.0.0.1", port),), weight=weight
        ),
        status=status,
        status_reason="",
        created_revision=1,
        modified_revision=1,
        registered_at_ns=0,
    )


@given(st.sampled_from(ALGORITHMS), STEPS, st.integers(0, 2**32))
def test_only_the_best_reachable_tier_is_picked(
    policy: LoadBalancing, steps: list[tuple[str, object]], seed: int
) -> None:
    balancer = Balancer(policy, "grpc", Rng(seed))
    held: dict[int, Status] = {}
    active: list[Candidate] = []
    for step, argument in steps:
        candidates = list(balancer.candidates)
        if step == "update":
            assert isinstance(argument, dict)
            held = {port: status for port, (status, _) in argument.items() if status in TIERS}
            gone = balancer.update(instance(port, *rest) for port, rest in argument.items())
            assert not {id(one) for one in gone} & {id(one) for one in balancer.candidates}
        elif candidates and isinstance(argument, int):
            one = candidates[argument % len(candidates)]
            if step in ("out", "in"):
                balancer.set_out(one, "refused" if step == "out" else "")
            elif step == "begin":
                balancer.begun(one)
                active.append(one)
            elif active:
                balancer.ended(active.pop(argument % len(active)))
        check_picks(balancer, held)
    for one in active:
        balancer.ended(one)
    assert all(one.active == 0 for one in balancer.candidates)


def check_picks(balancer: Balancer, held: dict[int, Status]) -> None:
    picked = [balancer.pick(key) for key in (None, b"a", b"b", None)]
    if not held:
        assert picked == [None] * 4
        return
    reachable = {one.instance.status for one in balancer.candidates if not one.out}
    best = min(reachable or set(held.values()))
    for one in picked:
        assert one is not None
        assert one.endpoint.port in held, "a removed instance is never picked"
        assert one.instance.status is best
        assert not one.out or not reachable


@given(st.lists(INSTANCES, min_size=1, max_size=8))
def test_that_an_object_is_the_same_changes_nothing_but_what_is_looked_at(states: list[dict[int, Any]]) -> None:
    """A view gives the same object for what did not change; others may not."""
    sharing, comparing = Balancer("round_robin", "grpc", Rng(1)), Balancer("round_robin", "grpc", Rng(1))
    made: dict[tuple[int, Any], RegisteredInstance] = {}
    for state in states:
        shared = [made.setdefault((port, rest), instance(port, *rest)) for port, rest in state.items()]
        gone = sharing.update(shared)
        left = comparing.update(instance(port, *rest) for port, rest in state.items())
        assert [one.key for one in gone] == [one.key for one in left]
        assert [(one.key, one.instance, one.slot) for one in sharing.candidates] == [
            (one.key, one.instance, one.slot) for one in comparing.candidates
        ]
        first, second = sharing.pick(), comparing.pick()
        assert (first and first.key) == (second and second.key)


def test_an_object_in_the_place_of_one_that_is_gone_is_not_taken_for_it() -> None:
    balancer = Balancer("round_robin", "grpc", Rng(1))
    for weight in range(1, 6):
        balancer.update(instance(port, Status.SERVING, weight) for port in range(1, 101))
        assert [one.instance.instance.weight for one in balancer.candidates] == [weight] * 100


def test_of_thousands_only_who_changed_is_looked_at() -> None:
    looked_at: list[str] = []

    class Counting(Balancer):
        def _endpoint_of(self, instance: RegisteredInstance) -> Endpoint | None:
            looked_at.append(instance.instance.id)
            return super()._endpoint_of(instance)

    everybody = [instance(port, Status.SERVING, 100) for port in range(1, 3_001)]
    balancer = Counting("round_robin", "grpc", Rng(1))
    balancer.update(everybody)
    before = balancer.candidates
    looked_at.clear()
    everybody[1_000] = instance(1_001, Status.DEGRADED, 100)
    assert [one.key for one in balancer.update(everybody[1:])] == [before[0].key]
    assert looked_at == ["i-1001"]
    assert balancer.candidates == before[1:], "the same objects, in the same order"
    assert balancer.candidates[999].instance.status is Status.DEGRADED


@given(st.lists(st.integers(1, 8), min_size=1, max_size=8, unique=True), st.sampled_from(["ring_hash", "maglev"]))
def test_a_key_stays_where_it_is(ports: list[int], policy: LoadBalancing) -> None:
    one, other = Balancer(policy, "grpc", Rng(1)), Balancer(policy, "grpc", Rng(2))
    for balancer in (one, other):
        balancer.update(instance(port, Status.SERVING, 100) for port in ports)
    for key in (b"alice", b"bob"):
        first, second = one.pick(key), other.pick(key)
        assert first is not None
        assert second is not None
        assert first.endpoint == second.endpoint == (one.pick(key) or first).endpoint


def test_every_algorithm_is_known() -> None:
    assert {name.upper() for name in ALGORITHMS} == {algorithm.name for algorithm in Algorithm}
    with pytest.raises(InvalidArgument, match="load_balancing"):
        Balancer("fastest", "grpc", Rng(1))  # type: ignore[arg-type]


def test_the_endpoint_with_the_protocol_is_taken() -> None:
    both = instance(1, Status.SERVING, 1)
    web = Endpoint("10.0.0.1", 80, "http")
    two = Instance(namespace="n", service="s", id="i-2", endpoints=(web, Endpoint("10.0.0.1", 2)))
    balancer = Balancer("round_robin", "http", Rng(1))
    balancer.update([both, registered(two)])
    assert [one.endpoint for one in balancer.candidates] == [web]


def registered(of: Instance) -> RegisteredInstance:
    return RegisteredInstance(
        instance=of,
        status=Status.SERVING,
        status_reason="",
        created_revision=1,
        modified_revision=1,
        registered_at_ns=0,
    )
