"""What holds for all services of a namespace: made one by one, of one moment, and found without a look at each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from reference.registry_facts import Journal
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.core.policy import Destination, KeySource
from trunkline.core.records import Record
from trunkline.server.traffic.effective import EffectivePolicies
from trunkline.server.traffic.fold import PoliciesFold

NAMES = ("", "a", "b", "c")


@dataclass(frozen=True)
class Share:
    """Of a release."""

    revision: int
    destinations: Sequence[Destination]
    sticky_on: KeySource | None = None
    settled: bool = True


class Releases:
    """What releases say of services."""

    def __init__(self) -> None:
        self.of: dict[str, Share] = {}

    def split_of(self, namespace: str, service: str) -> Share | None:
        return self.of.get(service) if namespace == "default" else None

    def services(self, namespace: str) -> Iterable[str]:
        return list(self.of) if namespace == "default" else []


class World:
    """Policies and releases, as records come."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.releases = Releases()
        self.policies = EffectivePolicies(PoliciesFold(), self.releases)

    def say(self, service: str, most: int) -> None:
        policy = TrafficPolicy(namespace="default", service=service)
        policy.limits.max_requests = most
        if most % 2:
            policy.split.destinations.add(version="^2", weight=most)
        record = self.journal.policy_applied(policy, destinations_changed=bool(most % 2))
        self.policies.fold.apply(record)
        self.policies.on_records([record])

    def release(self, service: str, weight: int) -> None:
        record: Record = self.journal._record("release.changed", f"release/default/{service}", b"")
        self.releases.of[service] = Share(record.offset, (Destination(version="^1", weight=weight),))
        self.policies.on_records([record])


STEPS = st.lists(st.tuples(st.sampled_from(("say", "release")), st.sampled_from(NAMES), st.integers(1, 9)), max_size=8)


def applied(steps: Iterable[tuple[str, str, int]], world: World) -> World:
    for what, service, value in steps:
        if what == "say":
            world.say(service, value)
        elif service:
            world.release(service, value)
    return world


@given(STEPS, STEPS)
def test_of_all_is_what_held_when_it_was_asked(
    before: list[tuple[str, str, int]], after: list[tuple[str, str, int]]
) -> None:
    world = applied(before, World())
    held = world.policies.of_all("default")
    one_by_one = [world.policies.get("default", service) for service in world.policies.named("default")]
    wanted = [(one.service, one.revision, one.encoded) for one in one_by_one]
    assert len(held) == len(wanted) == world.policies.count("default")
    applied(after, world)
    assert [(one.service, one.revision, one.encoded) for one in held] == wanted
    assert [one.service for one in held[1:]] == [service for service, _, _ in wanted[1:]]


@given(STEPS, st.integers(0, 9))
def test_what_changed_after_a_revision(steps: list[tuple[str, str, int]], revision: int) -> None:
    policies = applied(steps, World()).policies
    named = policies.named("default")
    revisions = {service: policies.get("default", service).revision for service in named}
    assert list(policies.changed_after("default", revision)) == [one for one in named if revisions[one] > revision]
    assert policies.last_change("default", "") == max(revisions.values(), default=0)
    assert EffectivePolicies(policies.fold, policies.shares).last_change("default", "") == max(
        revisions.values(), default=0
    )


def test_what_is_not_out_of_date_is_kept_for_all_who_ask() -> None:
    world = applied([("say", "", 1), ("say", "a", 2)], World())
    [default, _] = world.policies.of_all("default")
    assert default is world.policies.get("default", "")
    assert world.policies.of_all("default")[0] is default
