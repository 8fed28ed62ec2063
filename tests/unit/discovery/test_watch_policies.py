"""Policies as watches tell them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from reference.registry_facts import instance
from reference.watch import ModelWatcher
from reference.watch_world import World
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.policy import Destination, KeySource
from trunkline.core.records import Record
from trunkline.server.discovery.watch_config import WatchConfig
from trunkline.server.traffic import effective
from trunkline.server.traffic.effective import Effective


def limited(service: str, most: int, namespace: str = "default") -> TrafficPolicy:
    policy = TrafficPolicy(namespace=namespace, service=service)
    policy.limits.max_requests = most
    return policy


def held(watcher: ModelWatcher) -> dict[str, tuple[int, int]]:
    """Limit and revision by service."""
    return {name: (one.policy.limits.max_requests, one.revision) for name, one in watcher.policies.items()}


@pytest.fixture
def world() -> World:
    made = World()
    made.step(made.journal.registered(instance("a")))
    return made


def test_a_change_is_told_to_those_whom_it_concerns_and_to_nobody_else(world: World) -> None:
    mine, other, every = world.watch("orders"), world.watch("mail"), world.watch("")
    elsewhere = world.watch("orders", namespace="elsewhere")
    world.step(world.journal.policy_applied(limited("orders", 5)))
    world.settle()
    assert held(mine) == held(every) == {"orders": (5, 2)}
    assert held(other) == held(elsewhere) == {}
    assert [event.kind for event in other.seen] == ["snapshot"]
    world.step(world.journal.policy_applied(limited("", 7)))
    world.settle()
    assert held(mine) == {"orders": (5, 3)}
    assert held(other) == {"mail": (7, 3)}
    assert held(every) == {"": (7, 3), "orders": (5, 3)}
    assert held(elsewhere) == {}


def test_a_deletion_tells_what_is_left(world: World) -> None:
    mine, every = world.watch("orders"), world.watch("")
    world.step(world.journal.policy_applied(limited("", 7)))
    world.step(world.journal.policy_applied(limited("orders", 5)))
    world.step(world.journal.policy_deleted("orders"))
    world.settle()
    assert held(mine) == {"orders": (7, 4)}
    assert held(every) == {"": (7, 2), "orders": (7, 4)}
    world.step(world.journal.policy_deleted(""))
    world.settle()
    assert held(mine) == {"orders": (0, 5)}
    assert held(every) == {"": (0, 5), "orders": (0, 5)}


def test_what_is_decided_together_is_told_together(world: World) -> None:
    mine = world.watch("orders")
    world.step(world.journal.registered(instance("b"), lease_id=2), world.journal.policy_applied(limited("orders", 5)))
    world.settle()
    assert [event.kind for event in mine.seen] == ["snapshot", "changes"]
    assert (len(mine.view), held(mine)) == (2, {"orders": (5, 3)})


@pytest.mark.parametrize("service", ["orders", ""])
def test_a_snapshot_has_the_policies_and_a_resumed_watch_those_that_are_newer(world: World, service: str) -> None:
    world.step(world.journal.policy_applied(limited("orders", 5)))
    early = world.watch(service)
    assert held(early) == {"orders": (5, 2)}
    world.disconnect(world.client_of(early))
    world.open(world.connect(), early, service, token=early.token)
    world.settle()
    assert [event.kind for event in early.seen] == ["snapshot", "bookmark"]
    world.disconnect(world.client_of(early))
    world.step(world.journal.policy_applied(limited("mail", 6)))
    world.step(world.journal.policy_applied(limited("orders", 8)))
    world.restart()
    world.open(world.connect(), early, service, token=early.token)
    world.settle()
    assert [event.kind for event in early.seen] == ["snapshot", "bookmark", "changes"]
    assert held(early) == {"orders": (8, 4)} | ({} if service else {"mail": (6, 3)})
    world.disconnect(world.client_of(early))
    world.step(world.journal.policy_applied(limited("mail", 7)))
    world.open(world.connect(), early, service, token=early.token)
    world.settle()
    assert early.told[-1] == ([] if service else ["mail"]), "what it knows is not told again"


def test_policies_that_are_too_many_for_one_event_come_in_parts() -> None:
    world = World(config=WatchConfig(event_changes_max=3, part_instances_max=2))
    watcher = world.watch("")
    world.step(*(world.journal.policy_applied(limited(f"s-{n}", n + 1)) for n in range(5)))
    world.settle_completely()
    assert [event.kind for event in watcher.seen][:2] == ["snapshot", "snapshot"]
    assert {name: most for name, (most, _) in held(watcher).items()} == {f"s-{n}": n + 1 for n in range(5)}


@pytest.mark.parametrize("policy", ["of everybody", "none"])
def test_thousands_of_policies_are_encoded_in_slices(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    encoded: cached_property[bytes] = vars(Effective)["encoded"]

    def counting(one: Effective) -> bytes:
        nonlocal made
        made += 1
        return bytes(encoded.func(one))

    looked_at = 0

    def looking(*args: Any) -> Effective:
        nonlocal looked_at
        looked_at += 1
        return what_holds(*args)

    what_holds = effective._made
    monkeypatch.setattr(effective, "_made", looking)
    counted = cached_property(counting)
    counted.__set_name__(Effective, "encoded")
    monkeypatch.setattr(Effective, "encoded", counted)
    world = World(config=WatchConfig(slice_watches=200, part_instances_max=10, event_changes_max=100))
    for number in range(400):
        world.step(world.journal.policy_applied(limited(f"s-{number}", 5)))
    watcher = ModelWatcher(1)
    world.open(world.connect(), watcher, "")
    if policy == "of everybody":
        world.settle_completely()
        made = looked_at = 0
        world.step(world.journal.policy_applied(limited("", 7)))
        assert (made, looked_at) == (0, 0), "that so many change is known without a look at each"
    most = most_looked_at = 0
    while True:
        before, looked_before = made, looked_at
        more = world.hub.work()
        most, most_looked_at = max(most, made - before), max(most_looked_at, looked_at - looked_before)
        if not more:
            break
    world.settle_completely()
    assert len(held(watcher)) == (401 if policy == "of everybody" else 400)
    assert made >= 400
    assert most <= 40, "of 200 that a slice may cost, each takes 8"
    assert most_looked_at <= 40


def test_a_snapshot_is_made_anew_when_a_policy_has_changed_though_nobody_was_told() -> None:
    world = World(config=WatchConfig(slice_watches=1, backlog_steps_max=1))
    world.step(world.journal.registered(instance("a")))
    world.watch("orders")
    world.watch("")
    # Faster than they can be told: the first step is dropped before it comes to the watches of the namespace.
    world.step(world.journal.policy_applied(limited("orders", 5)))
    world.step(world.journal.registered(instance("x", namespace="elsewhere"), lease_id=2))
    world.step(world.journal.policy_applied(limited("x", 6, namespace="elsewhere")))
    late = ModelWatcher(1)
    world.open(world.connect(), late, "")
    world.settle_completely()
    assert held(late) == {"orders": (5, 2)}
    assert "changes" not in [event.kind for event in late.seen]


def test_acknowledging_a_revision_says_that_its_policy_is_applied(world: World) -> None:
    mine, late = world.watch("orders"), world.watch("orders", name="late")
    other = world.watch("mail")
    for watcher in (mine, late, other):
        world.acknowledge(watcher)
    revision = world.step(world.journal.policy_applied(limited("orders", 5)))
    done: list[bool] = []
    wait = world.hub.begin_wait("default", "orders", None, revision, lambda: done.append(True))
    world.settle()
    world.acknowledge(mine)
    assert not done
    [behind] = wait.late(world.clock.now_ns())
    assert (behind.client, behind.applied_revision) == ("late", 1)
    world.acknowledge(late)
    assert done
    assert world.hub.end_wait(wait) == ()


@dataclass
class Split:
    destinations: Sequence[Destination]
    sticky_on: KeySource | None
    revision: int
    settled: bool = False


class Releases:
    """What a fold of releases says."""

    def __init__(self) -> None:
        self.splits: dict[tuple[str, str], Split] = {}

    def split_of(self, namespace: str, service: str) -> Split | None:
        return self.splits.get((namespace, service))

    def services(self, namespace: str) -> Iterable[str]:
        return [service for where, service in self.splits if where == namespace]


def test_a_releases_shares_stand_in_place_of_the_policys() -> None:
    releases = Releases()
    world = World(shares=releases)
    mine, every = world.watch("orders"), world.watch("")
    policy = TrafficPolicy(namespace="default", service="orders")
    policy.split.matches.add(conditions=[{"header": "x", "present": True}], destination={"version": "9.x"})
    policy.split.destinations.add(version="1.x", weight=1)
    world.step(world.journal.policy_applied(policy))
    shares = (Destination(version="^1", weight=95), Destination(version="^2", weight=5))

    def release(topic: str) -> Record:
        made = world.journal.policy_deleted("orders")
        return Record(made.offset, made.time_ns, topic, b"", key="release/default/orders")

    def step(topic: str, revision: int) -> None:
        record = release(topic)
        releases.splits["default", "orders"] = Split(shares, KeySource(header="x-user"), revision)
        world.policies.on_records([record])
        world.step(skipped=0)
        world.settle()

    step("release.started", 2)
    split = mine.policies["orders"].policy.split
    assert [(one.version, one.weight) for one in split.destinations] == [("^1", 95), ("^2", 5)]
    assert (len(split.matches), split.sticky_on.header, mine.policies["orders"].revision) == (1, "x-user", 2)
    assert mine.policies == every.policies
    seen = len(mine.seen)
    step("release.paused", 2)
    assert len(mine.seen) == seen, "nothing that holds is different"
    world.step(world.journal.policy_deleted("orders"))
    world.settle()
    split = mine.policies["orders"].policy.split
    assert ([one.version for one in split.destinations], len(split.matches)) == (["^1", "^2"], 0)
