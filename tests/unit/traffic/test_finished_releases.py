"""A release that is over keeps its shares, until a policy says later who gets the calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reference.registry_world import BY, virtual
from reference.releases_world import NAMESPACE, SERVICE, Action, World, in_world
from trunkline.api.policy_text import read_policies
from trunkline.server.traffic.blast_radius import Radius
from trunkline.server.traffic.traffic import Wish

FORCED = Wish(force=True)
HALVES = "split: {destinations: [{version: ^1, weight: 1}, {version: ^2, weight: 1}]}"
EVERYBODY = "split: {destinations: [{version: '*', weight: 1}]}"
TESTERS = "split: {matches: [{conditions: [{header: x-tester, present: true}], destination: {version: ^1}}]}"


async def say(world: World, text: str, *, service: str = SERVICE, wish: Wish = FORCED) -> Sequence[Radius]:
    [policy] = read_policies(f"service: '{service}'\n{text}", namespace=NAMESPACE)
    return (await world.plane.traffic.apply(policy, wish, BY)).radii


def holds(world: World) -> dict[str, int]:
    """The shares of the calls, by version."""
    split = world.plane.traffic.policies.effective(NAMESPACE, SERVICE).split
    return {} if split is None else {one.version: one.weight for one in split.destinations}


async def complete(world: World) -> None:
    await world.start("^2", baseline="^1", steps="50m")
    await world.steer(Action.ACTION_PROMOTE)
    assert holds(world) == {"^2": 100}


@in_world()
async def test_destinations_that_are_written_later_hold(world: World) -> None:
    await complete(world)
    await say(world, HALVES)
    assert holds(world) == {"^1": 1, "^2": 1}
    await say(world, EVERYBODY)
    assert holds(world) == {"*": 1}
    await say(world, "timeout: 1s\n" + EVERYBODY)
    assert holds(world) == {"*": 1}
    await say(world, "timeout: 2s")
    assert holds(world) == {"^2": 100}, "the policy speaks no more of it"


@in_world()
async def test_old_destinations_and_other_changes_of_a_policy_say_nothing_new(world: World) -> None:
    await say(world, HALVES)
    await world.start("^2", baseline="^1", steps="50m")
    await say(world, "timeout: 1s\n" + EVERYBODY)
    assert holds(world) == {"^2": 50, "^1": 50}, "while it runs it decides"
    await world.steer(Action.ACTION_ABORT)
    assert holds(world) == {"^1": 100}, "what was written before it was over is older"
    await say(world, "timeout: 2s\n" + EVERYBODY)
    assert holds(world) == {"^1": 100}, "a version that was worse gets no calls by a change of something else"
    await say(world, TESTERS)
    assert holds(world) == {"^1": 100}, "matches stand beside the shares"
    await say(world, HALVES)
    assert holds(world) == {"^1": 1, "^2": 1}


@in_world()
async def test_the_newest_word_holds_and_what_holds_never_gets_older(world: World) -> None:
    await complete(world)
    seen = [world.plane.traffic.policies.get(NAMESPACE, SERVICE).revision]
    for word in (HALVES, None, EVERYBODY):
        if word is None:
            await world.steer(Action.ACTION_ABORT)
            assert holds(world) == {"^1": 100}
        else:
            await say(world, word)
        seen.append(world.plane.traffic.policies.get(NAMESPACE, SERVICE).revision)
    assert holds(world) == {"*": 1}
    await world.plane.traffic.delete(NAMESPACE, SERVICE, FORCED, BY)
    seen.append(world.plane.traffic.policies.get(NAMESPACE, SERVICE).revision)
    assert holds(world) == {"^1": 100}
    assert seen == sorted(set(seen))
    await world.plane.traffic.roll_back(NAMESPACE, SERVICE, 0, FORCED, BY)
    assert holds(world) == {"*": 1}, "who takes it back says it anew"
    await world.start("^2", baseline="^1", steps="50m")
    assert holds(world) == {"^2": 50, "^1": 50}, "the next release decides"


@in_world()
async def test_the_namespaces_destinations_hold_where_the_service_has_none(world: World) -> None:
    await complete(world)
    await say(world, HALVES, service="")
    assert holds(world) == {"^1": 1, "^2": 1}
    await say(world, TESTERS)
    assert holds(world) == {"^2": 100}, "its own split has none, and takes the place of the namespace's"
    await say(world, EVERYBODY)
    await say(world, "timeout: 1s", service="")
    assert holds(world) == {"*": 1}


@in_world()
async def test_the_blast_radius_is_that_of_what_will_hold(world: World) -> None:
    await say(world, EVERYBODY)
    await complete(world)
    for text, after in (("timeout: 1s\n" + EVERYBODY, 100), (HALVES, 200), (TESTERS, 100)):
        [radius] = await say(world, text, wish=Wish(dry_run=True))
        assert (radius.capacity_before, radius.capacity_after) == (100, after)
    await say(world, HALVES)
    [radius] = await say(world, "split: {destinations: [{version: ^1, weight: 1}]}", wish=Wish(dry_run=True))
    assert (radius.capacity_before, radius.capacity_after) == (200, 100)


@pytest.mark.parametrize("crash", [True, False])
def test_it_holds_after_a_restart(crash: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=crash):
            await world.begin()
            await say(world, HALVES)
            await complete(world)
            await say(world, EVERYBODY)
            await say(world, "timeout: 1s\n" + EVERYBODY)
            revision = world.plane.traffic.policies.get(NAMESPACE, SERVICE).revision
        async with world.running():
            assert holds(world) == {"*": 1}
            held = world.plane.traffic.policies.get(NAMESPACE, SERVICE)
            assert held.revision == revision

    virtual(main)
