"""Releases of a whole control plane in virtual time: steps, gates, people, restarts, alarms, and what is told of them."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest

from reference.events_world import BY
from reference.registry_world import virtual
from reference.releases_world import NAMESPACE, NEW, OLD, SERVICE, SLOW, Action, World, in_world
from trunkline.api import convert
from trunkline.api.v1 import events_pb2, policy_pb2, releases_pb2
from trunkline.core.errors import (
    InvalidArgument,
    LimitExceeded,
    ReleaseBaselineEmpty,
    ReleaseEnded,
    ReleaseNotFound,
    ReleaseRunning,
)
from trunkline.core.policy import Destination, KeySource
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.traffic.release import Phase

GateReport = releases_pb2.GateReport


@in_world()
async def test_a_good_version_goes_up_step_by_step_and_gets_all_calls(world: World) -> None:
    assert world.shares is None
    state = await world.start()
    assert (state.baseline, state.release.baseline) == ("<2.0.0 || >=3.0.0-0", "")
    assert [step.percent for step in state.release.steps] == [5, 25, 50, 100]
    seen: list[tuple[Phase, int, dict[str, int] | None]] = []
    for _ in range(5):
        seen.append((*world.where, world.shares))
        await world.live(60)
        await world.live(2)
    base = state.baseline
    assert seen == [
        (Phase.RUNNING, 5, {"^2": 5, base: 95}),
        (Phase.RUNNING, 25, {"^2": 25, base: 75}),
        (Phase.RUNNING, 50, {"^2": 50, base: 50}),
        (Phase.RUNNING, 100, {"^2": 100, base: 0}),
        (Phase.COMPLETED, 100, {"^2": 100}),
    ]
    assert await world.topics() == {"started": 1, "stepped": 3, "completed": 1}
    assert "against the baseline's calls of the step before" in world.state.reason


@pytest.mark.parametrize("how", ["failing", "bucket"])
@in_world(rolled_back_alarm_s=60)
async def test_a_worse_version_goes_back_at_once(world: World, how: str) -> None:
    base = (await world.start(steps="10,100")).baseline
    getattr(world, how)[NEW] = {"failing": 0.3, "bucket": SLOW}[how]
    await world.live(30)
    state = world.state
    assert (Phase(state.phase), state.percent, state.author) == (Phase.ROLLED_BACK, 0, "trunkline")
    assert state.gate.verdict == GateReport.VERDICT_WORSE
    assert state.reason == state.gate.reason
    assert world.shares == {base: 100}
    [alarm] = world.plane.releases.alarms()
    assert (alarm.name, alarm.subject) == ("RELEASE_ROLLED_BACK", SERVICE)
    assert alarm.message == f"the release of ^2: {state.reason}"
    await asyncio.sleep(61)
    assert world.plane.releases.alarms() == []


@in_world()
async def test_a_version_that_turns_bad_when_it_has_all_calls_goes_back_too(world: World) -> None:
    await world.start(steps="50,100")
    await world.live(62)
    assert world.where == (Phase.RUNNING, 100)
    world.failing[NEW] = 0.5
    await world.live(5)
    assert world.where == (Phase.ROLLED_BACK, 0)
    assert "against the baseline's calls of the step before" in world.state.reason


@in_world()
async def test_blue_green_is_compared_with_what_served_before(world: World) -> None:
    world.failing[OLD] = 0.02
    await world.start("2.0.0", steps="0m,100")
    await world.live(700)
    assert world.where == (Phase.RUNNING, 0), "no data, and waits for somebody all the same"
    assert (await world.steer(Action.ACTION_PROMOTE)).percent == 100
    await world.live(62)
    assert world.where == (Phase.COMPLETED, 100)
    assert world.state.gate.baseline.calls > 10_000
    assert world.state.gate.baseline.failed / world.state.gate.baseline.calls == pytest.approx(0.02)


@in_world()
async def test_all_at_once_is_compared_with_the_minutes_before(world: World) -> None:
    await world.live(60)
    await world.start(steps="100")
    world.failing[NEW] = 0.2
    await world.live(10)
    assert world.where == (Phase.ROLLED_BACK, 0)
    assert "against the baseline's calls of before the release" in world.state.reason


@in_world()
async def test_no_data_never_passes_and_pauses(world: World) -> None:
    await world.start(steps="10,100")
    await world.live(658, called=False)
    assert world.where == (Phase.RUNNING, 10)
    await world.live(5, called=False)
    state = world.state
    assert (Phase(state.phase), state.percent) == (Phase.PAUSED, 10)
    assert state.reason.startswith("the released version had 0 calls and the baseline had 0 calls")
    [alarm] = world.plane.releases.alarms()
    assert alarm.name == "RELEASE_PAUSED"
    await world.live(700)
    assert world.where == (Phase.PAUSED, 10), "nothing happens by itself to one that is paused"
    assert world.state.gate.verdict == GateReport.VERDICT_GOOD
    began = world.state.step_began_at.ToNanoseconds()
    resumed = await world.steer(Action.ACTION_RESUME)
    assert (Phase(resumed.phase), resumed.step_began_at.ToNanoseconds() > began) == (Phase.RUNNING, True)
    assert resumed.gate.released.calls == 0, "the step began anew"
    assert world.plane.releases.alarms() == []
    await world.live(62)
    assert world.where == (Phase.RUNNING, 100)


@in_world()
async def test_people_promote_pause_and_abort(world: World) -> None:
    base = (await world.start(steps="5m,50m,100m")).baseline
    await world.live(300)
    assert world.where == (Phase.RUNNING, 5), "a manual step waits, however good it looks"
    assert (await world.steer(Action.ACTION_PROMOTE)).percent == 50
    paused = await world.steer(Action.ACTION_PAUSE)
    assert (Phase(paused.phase), paused.author, world.plane.releases.alarms()) == (Phase.PAUSED, BY.author, [])
    assert (await world.steer(Action.ACTION_PAUSE)).revision == paused.revision
    assert (await world.steer(Action.ACTION_PROMOTE)).percent == 100
    done = await world.steer(Action.ACTION_PROMOTE)
    assert (Phase(done.phase), world.shares) == (Phase.COMPLETED, {"^2": 100})
    for action in (Action.ACTION_PROMOTE, Action.ACTION_PAUSE, Action.ACTION_RESUME):
        with pytest.raises(ReleaseEnded):
            await world.steer(action)
    aborted = await world.steer(Action.ACTION_ABORT)
    assert (Phase(aborted.phase), world.shares) == (Phase.ABORTED, {base: 100})
    assert (await world.steer(Action.ACTION_ABORT)).revision == aborted.revision


@in_world()
async def test_a_manual_step_that_is_worse_goes_back_by_itself(world: World) -> None:
    await world.start(steps="50m,100")
    world.failing[NEW] = 0.5
    await world.live(5)
    assert world.where == (Phase.ROLLED_BACK, 0)


@in_world()
async def test_it_pauses_when_there_is_nothing_to_go_back_to(world: World) -> None:
    await world.start(steps="50,100")
    await world.live(62)
    await world.remove(OLD)
    world.failing[NEW] = 1
    await world.live(5)
    assert world.where == (Phase.PAUSED, 100)
    assert world.state.reason.endswith("nothing that it could return to can be called")
    with pytest.raises(ReleaseBaselineEmpty):
        await world.steer(Action.ACTION_ABORT)
    await world.register(OLD)
    assert Phase((await world.steer(Action.ACTION_ABORT)).phase) is Phase.ABORTED


def test_without_its_baseline_it_goes_back_to_what_was_proven_good() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            for version in ("1.3.0", OLD, NEW):
                await world.register(version)
            await world.start("1.3.0", steps="100m")
            await world.steer(Action.ACTION_PROMOTE)
            assert world.where == (Phase.COMPLETED, 100)
            assert (await world.start("^2", steps="50m", baseline=OLD)).baseline == ""
            await world.remove(OLD)
            await world.steer(Action.ACTION_ABORT)
            assert world.shares == {"=1.3.0": 100}

    virtual(main)


def test_what_a_release_proved_good_is_the_next_ones_baseline() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            for version in ("1.3.0", OLD, NEW):
                await world.register(version)
            await world.start("~1.4", steps="100m")
            await world.steer(Action.ACTION_PROMOTE)
            assert (await world.start("^2", steps="50m")).baseline == ">=1.4.0 <1.5.0-0"
            await world.steer(Action.ACTION_ABORT)
            assert (await world.start("1.4.0", steps="50m")).baseline == "<1.4.0 || >1.4.0", "nothing else is proven"

    virtual(main)


@in_world()
async def test_an_aborted_one_proves_nothing_even_when_it_had_been_completed(world: World) -> None:
    await world.start("^2", steps="100m")
    await world.steer(Action.ACTION_PROMOTE)
    await world.steer(Action.ACTION_ABORT)
    entity: Any = world.plane.control.folds.get(f"release/{NAMESPACE}/{SERVICE}")
    assert (entity.phase, entity.proven_now) == (Phase.ABORTED, "")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"version": "^3"}, "release.version"),
        ({"version": "*"}, "release.version"),
        ({"version": ">=1"}, "release.version"),
        ({"baseline": "^9"}, "release.baseline"),
        ({"version": "^2", "baseline": ">=1"}, "release.baseline"),
        ({"steps": "0,100"}, "release.steps[0].percent"),
        ({"steps": "50,10,100"}, "release.steps[1].percent"),
    ],
)
@in_world()
async def test_what_cannot_be_is_refused_with_field_and_rule(world: World, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await world.start(**{"version": "^2", **asked})
    assert [violation.field for violation in refused.value.violations] == [field]
    assert world.shares is None


@in_world(releases_max=1)
async def test_one_release_of_a_service_at_a_time_and_so_many_in_all(world: World) -> None:
    with pytest.raises(ReleaseNotFound):
        world.plane.releases.get(NAMESPACE, SERVICE)
    with pytest.raises(ReleaseNotFound):
        await world.steer(Action.ACTION_PAUSE)
    first, second = await asyncio.gather(world.start("^2"), world.start("^2"), return_exceptions=True)
    assert isinstance(first, releases_pb2.ReleaseState)
    assert isinstance(second, ReleaseRunning)
    await world.steer(Action.ACTION_ABORT)
    await world.start("^2")
    other = releases_pb2.Release(namespace=NAMESPACE, service="carts", version="^2")
    with pytest.raises(LimitExceeded):
        await world.plane.releases.start(other, BY)


@in_world()
async def test_a_repeated_request_is_done_once(world: World) -> None:
    await world.start(steps="5m,50m,100m")
    origin = Origin(author="ops", reason="looks good", request_id="r-1")
    for _ in range(3):
        state = await world.plane.releases.steer(NAMESPACE, SERVICE, Action.ACTION_PROMOTE, origin)
    assert (state.percent, state.author, state.reason) == (50, "ops", "looks good")


@in_world()
async def test_a_key_sticks_and_weights_are_the_policys(world: World) -> None:
    state = await world.start(steps="25", sticky_on=policy_pb2.KeySource(header="user"), baseline="^1")
    split = world.plane.traffic.policies.shares.split_of(NAMESPACE, SERVICE)
    assert split is not None
    assert split.destinations == (Destination(version="^2", weight=25), Destination(version="^1", weight=75))
    assert (split.sticky_on, split.revision) == (KeySource(header="user"), state.revision)
    assert world.plane.traffic.policies.shares.split_of(NAMESPACE, "carts") is None
    assert world.plane.traffic.policies.shares.split_of("other", SERVICE) is None


@pytest.mark.parametrize("crash", [True, False])
def test_a_restart_goes_on_where_it_was(crash: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=crash):
            await world.begin()
            await world.start(steps="10,100")
            await world.live(30)
        await asyncio.sleep(10)
        async with world.running():
            before = world.state
            assert (Phase(before.phase), before.percent, before.gate.released.calls) == (Phase.RUNNING, 10, 0)
            await world.live(18)
            assert world.where == (Phase.RUNNING, 10), "the hold goes on where it was"
            await world.live(4)
            assert world.where == (Phase.RUNNING, 100)
        async with world.running():
            await world.live(70)
            assert world.where == (Phase.COMPLETED, 100), "what the step before was compared with is kept"

    virtual(main)


def test_after_a_long_time_down_the_gate_is_given_its_whole_time() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.begin()
            await world.start(steps="10,100")
        await asyncio.sleep(3_600)
        async with world.running():
            await world.begin()
            await world.live(590, called=False)
            assert world.where == (Phase.RUNNING, 10)
            await world.live(7)
            assert world.where == (Phase.RUNNING, 100)

    virtual(main)


def test_each_step_is_an_event_of_the_stream_of_changes() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            await world.begin()
            await plane.releases.start(_asked("5,100"), Origin(author="ops", reason="try it"))
            await world.live(62)
            world.failing[NEW] = 0.5
            await world.live(5)
            live = await _told(world)
            started, stepped, rolled_back = live
            assert [event["type"].removeprefix("trunkline.release.") for event in live] == [
                "started", "stepped", "rolled_back",
            ]  # fmt: skip
            assert (started["name"], started["version"], started["percent"]) == (SERVICE, "^2", 5)
            assert (started["author"], started["reason"]) == ("ops", "try it")
            assert (stepped["step"], stepped["percent"], stepped["gate"]["verdict"]) == (1, 100, "VERDICT_GOOD")
            assert (rolled_back["percent"], rolled_back["target"]) == (0, "<2.0.0 || >=3.0.0-0")
            assert rolled_back["gate"]["verdict"] == "VERDICT_WORSE"
            assert "baseline_calls" not in stepped
        async with world.running():
            assert await _told(world) == live, "read from control's past, they are the same"

    virtual(main)


def _asked(steps: str) -> releases_pb2.Release:
    wanted = releases_pb2.Release(namespace=NAMESPACE, service=SERVICE, version="^2")
    for percent in steps.split(","):
        wanted.steps.add(percent=int(percent), hold=convert.ms_to(60_000))
    return wanted


async def _told(world: World) -> list[dict[str, Any]]:
    stream = await world.plane.events.streams.get(NAMESPACE, "changes", BY)
    found: list[dict[str, Any]] = []
    offset = stream.history.first_offset
    while blocks := await stream.history.read(offset, max_bytes=1 << 20):
        for block in blocks:
            offset = block.end
            for begin, end in pairwise((0, *block.ends)):
                event = events_pb2.Delivery.FromString(block.payload[begin:end]).event
                if event.type.startswith("trunkline.release."):
                    found.append({"type": event.type, **json.loads(event.text_data)})
    return found
