"""ExplainPick: the winner is the pick of the same seed, and whatever left a candidate out can be undone."""

from __future__ import annotations

from typing import Any

import pytest

from reference.registry_facts import Journal, instance
from reference.unwaited import answered
from trunkline.api.v1 import common_pb2, policy_pb2, traffic_pb2
from trunkline.client._balancer import Balancer
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import InvalidArgument, NotSupported
from trunkline.core.model import Declared, Endpoint, Instance, Locality
from trunkline.core.policy import (
    PLAIN,
    Algorithm,
    Condition,
    Destination,
    KeySource,
    LoadBalancingPolicy,
    LocalityPreference,
    Match,
    Policy,
    S,
    SlowStart,
    Split,
    Subset,
)
from trunkline.core.selector import Selector
from trunkline.core.work import Work, at_once
from trunkline.server.discovery.explain import SLICE, Explain
from trunkline.server.discovery.picker import PickerConfig, Pickers
from trunkline.server.registry.fold import RegistryFold

CALLED = Selector()


class Said:
    """What was said of how every service is called."""

    def __init__(self, policy: Policy = PLAIN) -> None:
        self.policy = policy

    def effective(self, namespace: str, service: str) -> Policy:
        return self.policy


class World:
    """A registry, a policy, and who explains them."""

    def __init__(self, policy: Policy = PLAIN) -> None:
        self.fold = RegistryFold(collecting=True)
        self.journal = Journal()
        self.clock = ManualClock(epoch_ns=1_700_000_100 * S)
        self.said = Said(policy)
        self.explainer = Explain(self.fold, self.said, self.clock, lambda: common_pb2.ResponseHeader(revision=7))

    def register(self, name: str, *, declared: Declared = Declared.SERVING, **fields: Any) -> None:
        number = sum(map(ord, name))
        fields.setdefault("endpoints", (Endpoint(f"10.0.0.{number % 250}", 80),))
        fields.setdefault("version", "1.0.0")
        self.fold.apply(self.journal.registered(instance(name, **fields), lease_id=number))
        if declared is not Declared.SERVING:
            self.fold.apply(self.journal.declared(f"instance/default/orders/{name}", declared))

    def explain(self, **fields: Any) -> traffic_pb2.ExplainPickResponse:
        return at_once(self.work(**fields))

    def work(self, **fields: Any) -> Work[traffic_pb2.ExplainPickResponse]:
        return self.explainer.explain(traffic_pb2.ExplainPickRequest(namespace="default", service="orders", **fields))

    def pickers(self, seed: int, config: PickerConfig | None = None) -> Pickers:
        return Pickers(self.fold, Rng(seed), config, clock=self.clock, policies=self.said)

    def why(self, name: str, **fields: Any) -> list[str]:
        """The rules that leave one out."""
        found = next(one for one in self.explain(**fields).candidates if one.id == name)
        return [exclusion.rule for exclusion in found.exclusions]


FULL = Policy(
    load_balancing=LoadBalancingPolicy(algorithm=Algorithm.WEIGHTED_RANDOM),
    locality=LocalityPreference(),
    slow_start=SlowStart(window_ns=200 * S),
    split=Split(
        matches=(
            Match(conditions=(Condition(header="x-canary", present=True),), destination=Destination(version="^2")),
        ),
        destinations=(Destination(version="^1", weight=70), Destination(version="^2", weight=30)),
    ),
)


def crowded(policy: Policy) -> World:
    world = World(policy)
    for number in range(12):
        world.register(
            f"i{number:02}",
            version=f"{1 + number % 2}.0.0",
            weight=50 + 50 * (number % 3),
            locality=Locality("r", "ab"[number % 4 // 2]),
            declared=Declared.DEGRADED if number == 5 else Declared.SERVING,
        )
    return world


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_for_one_seed_the_winner_is_the_pick(algorithm: Algorithm) -> None:
    balancing = LoadBalancingPolicy(algorithm=algorithm, hash_on=KeySource(header="user"))
    world = crowded(
        Policy(load_balancing=balancing, locality=FULL.locality, slow_start=FULL.slow_start, split=FULL.split)
    )
    winners = set()
    for seed in range(40):
        metadata = {"user": f"u{seed}"} if seed % 2 else {"x-canary": "1"}
        key = f"key{seed}" if seed % 5 == 0 else ""
        answer = world.explain(
            seed=seed, metadata=metadata, key=key, locality=common_pb2.Locality(region="r", zone="a")
        )
        picking = world.pickers(seed).pick(
            "default", "orders", CALLED, None, key, metadata=metadata, locality=Locality("r", "a")
        )
        picked = answered(picking)
        assert answer.winner == picked.instance.instance.id
        able = [one for one in answer.candidates if not one.exclusions]
        assert len(able) == picked.candidates
        assert answer.winner in {one.id for one in able}
        winners.add(answer.winner)
    assert len(winners) > 1


def test_the_sdk_picks_the_same() -> None:
    policy = Policy(load_balancing=FULL.load_balancing, locality=FULL.locality, split=FULL.split)
    world = crowded(policy)
    state = world.fold.service("default", "orders")
    assert state is not None
    for seed in range(20):
        balancer = Balancer(policy, "grpc", Rng(seed), where=Locality("r", "a"))
        balancer.update(state.instances[name] for name in sorted(state.instances))
        picked = balancer.pick()
        assert picked is not None
        answer = world.explain(seed=seed, locality=common_pb2.Locality(region="r", zone="a"))
        assert answer.winner == picked.instance.instance.id


def test_the_answer_says_everything() -> None:
    world = crowded(FULL)
    world.said.policy = Policy(split=FULL.split, revision=5)
    answer = world.explain(seed=1, metadata={"x-canary": "1"})
    assert answer.header.revision == 7
    assert answer.policy_revision == 5
    assert answer.registry_revision == world.journal.offset - 1
    assert answer.destination == "version ^2 (match: x-canary is there)"
    assert answer.load_balancing.algorithm == policy_pb2.LoadBalancingPolicy.ALGORITHM_ROUND_ROBIN
    assert answer.load_balancing.choice_count == 2
    assert not answer.panic
    assert [one.id for one in answer.candidates] == [f"i{number:02}" for number in range(12)]
    one = answer.candidates[1]
    assert (one.address, one.version, one.status, one.locality.zone) == (
        f"10.0.0.{sum(map(ord, 'i01')) % 250}:80",
        "2.0.0",
        common_pb2.INSTANCE_STATUS_SERVING,
        "a",
    )
    assert sum(one.share_percent for one in answer.candidates) == pytest.approx(100)
    assert one.weight == 100
    assert one.share_percent == pytest.approx(100 * 100 / 450), "the degraded one is out"


def test_slow_start_is_in_the_weight() -> None:
    world = World(FULL)
    world.register("i1")  # at 1,700,000,000 s
    world.clock.advance(50 * S)
    assert world.explain().candidates[0].weight == pytest.approx(100 * 150 / 200)


# Each rule leaves a candidate out, is named, and lets it back when it is undone.


def three(policy: Policy = PLAIN, **fields: Any) -> World:
    world = World(policy)
    world.register("a")
    world.register("b")
    world.register("x", **fields)
    return world


def test_status() -> None:
    world = three(declared=Declared.DRAINING)
    assert world.why("x") == ["status"]
    world.register("x")
    world.fold.apply(world.journal.declared("instance/default/orders/x", Declared.SERVING))
    assert world.why("x") == []


def test_protocol() -> None:
    world = three(endpoints=(Endpoint("10.0.0.9", 80, "http"),))
    assert world.why("x") == ["protocol"]
    assert world.why("x", protocol="http") == []
    world.register("x", endpoints=(Endpoint("10.0.0.9", 80, "http"), Endpoint("10.0.0.9", 81)))
    assert world.why("x") == []


def test_selector() -> None:
    world = three(labels={"team": "blue"})
    assert world.why("x", selector=common_pb2.Selector(labels={"team": "red"})) == ["selector"]
    assert world.why("x", selector=common_pb2.Selector(labels={"team": "blue"})) == []
    with pytest.raises(InvalidArgument):
        world.explain(selector=common_pb2.Selector(version="no range"))


def test_split() -> None:
    world = three(Policy(split=Split(destinations=(Destination(version="^1", weight=1),))), version="2.0.0")
    assert world.why("x") == ["split"]
    world.register("x", version="1.9.0")
    assert world.why("x") == []


def test_tier() -> None:
    world = three(declared=Declared.DEGRADED)
    assert world.why("x") == ["tier"]
    world.fold.apply(world.journal.declared("instance/default/orders/x", Declared.SERVING))
    assert world.why("x") == []


def test_ejected_by_who_asks() -> None:
    world = three()
    assert world.why("x", ejected=["x"]) == ["ejected"]
    assert world.why("x") == []


def test_panic() -> None:
    world = three()
    answer = world.explain(ejected=["a", "x"])
    assert answer.panic
    assert not any(one.exclusions for one in answer.candidates)


def test_locality() -> None:
    here = common_pb2.Locality(zone="a")
    world = three(Policy(locality=LocalityPreference()), locality=Locality(zone="b"))
    world.register("a", locality=Locality(zone="a"))
    assert world.why("x", locality=here) == ["locality"]
    assert world.why("x") == [], "a caller that is nowhere prefers nobody"
    world.register("x", locality=Locality(zone="a"))
    assert world.why("x", locality=here) == []


def test_nobody_is_left() -> None:
    assert World().explain().reason == "orders has no instances"
    world = World()
    world.register("a", declared=Declared.DRAINING)
    world.register("b", endpoints=(Endpoint("10.0.0.9", 80, "http"),))
    answer = world.explain()
    assert answer.winner == ""
    assert answer.reason == "all instances of orders are left out: protocol, status"


# Pick by the same policy.


def test_pick_goes_by_the_policy_and_what_is_asked_besides() -> None:
    world = crowded(FULL)
    pickers = world.pickers(3)

    def picked(algorithm: Algorithm | None = None, key: str = "", **fields: Any) -> Instance:
        return answered(pickers.pick("default", "orders", CALLED, algorithm, key, **fields)).instance.instance

    assert {picked(metadata={"x-canary": "yes"}).version for _ in range(30)} == {"2.0.0"}
    assert {picked(locality=Locality("r", "b")).locality.zone for _ in range(50)} == {"b"}
    assert {picked().version for _ in range(50)} == {"1.0.0", "2.0.0"}
    assert len({picked(Algorithm.RING_HASH, "key", metadata={"x-canary": ""}).id for _ in range(20)}) == 1
    with pytest.raises(InvalidArgument, match="hash_key"):
        picked(Algorithm.MAGLEV)
    with pytest.raises(NotSupported):
        picked(Algorithm.LEAST_REQUEST)
    world.said.policy = Policy(
        subsets=(Subset(name="v2", version="^2"),), split=Split(destinations=(Destination(subset="v2", weight=1),))
    )
    assert {picked().version for _ in range(30)} == {"2.0.0"}, "a changed policy holds from the next pick on"


def test_a_policy_may_leave_the_choice_to_load_that_the_server_does_not_see() -> None:
    world = three(Policy(load_balancing=LoadBalancingPolicy(algorithm=Algorithm.LEAST_REQUEST)))
    pickers = world.pickers(3)
    assert {answered(pickers.pick("default", "orders", CALLED)).instance.instance.id for _ in range(60)} == {
        "a",
        "b",
        "x",
    }


def test_picks_follow_slow_start() -> None:
    world = World(Policy(load_balancing=LoadBalancingPolicy(), slow_start=SlowStart(window_ns=100 * S)))
    world.register("old")
    world.journal.time_ns = world.clock.time_ns()
    world.register("new")
    pickers = world.pickers(3)

    def share() -> int:
        return sum(
            answered(pickers.pick("default", "orders", CALLED)).instance.instance.id == "new" for _ in range(110)
        )

    assert share() == pytest.approx(10, abs=1)
    world.clock.advance(60 * S)
    assert share() == pytest.approx(41, abs=1)
    world.clock.advance(60 * S)
    assert share() == pytest.approx(55, abs=1)


def test_large_tables_of_a_policy_are_made_smaller() -> None:
    large = LoadBalancingPolicy(
        algorithm=Algorithm.RING_HASH,
        hash_on=KeySource(header="k"),
        minimum_ring_size=100_000,
        maximum_ring_size=200_000,
    )
    world = three(Policy(load_balancing=large))
    pickers = world.pickers(1, PickerConfig(maximum_ring_size=1_000))
    answered(pickers.pick("default", "orders", CALLED, metadata={"k": "v"}))
    assert 900 < pickers.entries < 1_100


def test_thousands_are_explained_in_slices_and_as_of_one_moment() -> None:
    world = World()
    for number in range(2 * SLICE + 1):
        world.register(f"i-{number:05}")
    work = world.work(seed=3)
    next(work)
    world.register("j")
    slices = 1
    try:
        while True:
            next(work)
            slices += 1
    except StopIteration as done:
        answer = done.value
    assert len(answer.candidates) == 2 * SLICE + 1
    assert slices == 3, "the answer's; so few are judged in one piece"
    assert (answer.header.revision, answer.winner != "") == (7, True)
