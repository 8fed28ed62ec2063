"""Releases of ranges that have no short opposite, and calls in numbers that nobody makes."""

from __future__ import annotations

import pytest

from reference.releases_world import NEW, Action, World, in_world
from trunkline.api.rules import checker
from trunkline.api.v1 import discovery_pb2
from trunkline.core.errors import InvalidArgument
from trunkline.server.traffic.release import Phase

SCATTERED = " || ".join(str(major) for major in range(2, 26, 2))
"""A range whose outside is too long to be written as one."""


@pytest.mark.parametrize("how", ["by itself", "by somebody"])
@in_world()
async def test_a_scattered_range_goes_back_to_its_named_baseline(world: World, how: str) -> None:
    await world.start("^1", baseline="^2", steps="100")
    await world.steer(Action.ACTION_PROMOTE)
    await world.start(SCATTERED, baseline="^1", steps="50m")
    if how == "by somebody":
        await world.steer(Action.ACTION_ABORT)
    else:
        world.failing[NEW] = 0.9
        await world.live(30)
    assert world.where == (Phase.ABORTED if how == "by somebody" else Phase.ROLLED_BACK, 0)
    assert world.shares == {"^1": 100}


def test_a_count_of_calls_that_would_not_fit_a_record_is_refused() -> None:
    check = checker(discovery_pb2.ReportOutcomesRequest.DESCRIPTOR)
    request = discovery_pb2.ReportOutcomesRequest(namespace="default")
    outcomes = request.outcomes.add(service="orders", count=1_000_000_000)
    check(request)
    outcomes.count = 2**64 - 1
    with pytest.raises(InvalidArgument) as refused:
        check(request)
    assert refused.value.violations[0].field == "outcomes[0].count"
