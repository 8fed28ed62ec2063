"""One release that two control planes work at, on one journal whose transport delays, loses answers and repeats appends.

Both look at the same moments and make the same moves: each must be made once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from simulation import virtual
from simulation.report import seeds
from simulation.shared_journal import Share, SharedJournal
from simulation.virtual import Host, LoopClock

from trunkline.api.v1 import releases_pb2
from trunkline.core.model import Endpoint, Instance, RegisteredInstance, Status
from trunkline.core.policy import StatusCode
from trunkline.core.records import Record
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.control.sequencer import Group, Origin
from trunkline.server.traffic.outcomes import Outcomes, Reported
from trunkline.server.traffic.release import Phase
from trunkline.server.traffic.release_config import ReleasesConfig
from trunkline.server.traffic.release_fold import RELEASE_COMPLETED, RELEASE_STARTED, RELEASE_STEPPED, ReleasesFold
from trunkline.server.traffic.releases import Releases

SEEDS_DEFAULT = 20
NAMESPACE, SERVICE = "shop", "orders"
KEY = f"release/{NAMESPACE}/{SERVICE}"
STEPS = (5, 20, 50, 80, 100)
VERSIONS = ("1.4.0", "2.0.0")
INSTANCES = [
    RegisteredInstance(
        Instance(namespace=NAMESPACE, service=SERVICE, id=version, endpoints=(Endpoint("10.0.0.1", 80),), version=version),
        Status.SERVING, "", 1, 1, 0,
    )
    for version in VERSIONS
]  # fmt: skip


class Member:
    """One control plane with nothing but releases."""

    def __init__(self, journal: SharedJournal, number: int) -> None:
        self.host = Host(f"plane{number}")
        self.fold = ReleasesFold()
        self.admitted: list[Record] = []
        self.outcomes = Outcomes()
        self.releases: Releases
        self._journal = journal
        self._number = number

    async def start(self) -> None:
        await self.host.run(self._open())

    async def _open(self) -> None:
        clock = LoopClock()
        engine: Any = Share(self._journal, self.host, self._number)
        control = Control(engine, Folds([self.fold]), clock, ControlConfig(), program_version="0")
        await control.open()
        self.releases = Releases(
            self.fold, lambda namespace, service: INSTANCES, self.outcomes, control.sequencer, clock,
            ReleasesConfig(look_interval_s=0.25),
        )  # fmt: skip
        control.sequencer.on_group(self._told)
        self.host.run(control.run(), name="control")
        await control.ready.wait()
        self.host.run(self.releases.run(), name="releases")

    def _told(self, group: Group) -> None:
        self.admitted += [record for record in group.applied if record.topic.startswith("release.")]
        self.releases.on_records(group.applied)

    def call(self) -> None:
        reports = [Reported(SERVICE, version, StatusCode.OK, 200, 0, "", {20: 200}) for version in VERSIONS]
        self.outcomes.report(NAMESPACE, reports, 0)


async def world(seed: int) -> None:
    journal = SharedJournal(seed)
    journal.calm = True  # a start whose answer is lost ends the process
    members = [Member(journal, number) for number in (1, 2)]
    for member in members:
        await member.start()
    wanted = releases_pb2.Release(namespace=NAMESPACE, service=SERVICE, version="^2")
    for percent in STEPS:
        wanted.steps.add(percent=percent).hold.FromSeconds(2)
    await members[seed % 2].host.run(members[seed % 2].releases.start(wanted, Origin(author="ops")))
    journal.calm = False
    for _ in range(200):
        for member in members:
            member.call()
        await asyncio.sleep(0.25)
    journal.calm = True
    await asyncio.sleep(5)
    first, second = members
    assert first.admitted == second.admitted, "both fold the same"
    assert list(first.fold.dump()) == list(second.fold.dump())
    assert Counter(record.topic for record in first.admitted) == {
        RELEASE_STARTED: 1, RELEASE_STEPPED: len(STEPS) - 1, RELEASE_COMPLETED: 1,
    }  # fmt: skip
    release = first.fold.get(KEY)
    assert release is not None
    assert release.phase is Phase.COMPLETED
    times = [record.time_ns for record in first.admitted]
    assert all(later - earlier >= 1_900_000_000 for earlier, later in pairwise(times)), times
    for member in members:
        await member.host.kill()


@pytest.mark.parametrize("seed", seeds(SEEDS_DEFAULT))
def test_each_step_is_taken_once(seed: int) -> None:
    virtual.run(world(seed))
