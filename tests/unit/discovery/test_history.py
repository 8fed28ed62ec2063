"""The registry as it was, from snapshots and records, against what it really was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reference.registry_facts import instance
from reference.registry_world import BY, World, virtual
from trunkline.core.errors import InvalidArgument, LimitExceeded, RevisionCompacted, RevisionInFuture
from trunkline.core.model import Declared, RegisteredInstance
from trunkline.core.records import Draft, Version
from trunkline.server.discovery import replay
from trunkline.server.discovery.history import History, HistoryConfig
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.log import Retention
from trunkline.server.registry.changes import RegistryStep
from trunkline.server.registry.registry import Reference

State = dict[tuple[str, str], RegisteredInstance]


class Past:
    """A registry that writes down what it is like after every step."""

    def __init__(self, config: HistoryConfig | None = None) -> None:
        self.world = World()
        self.states: dict[int, State] = {0: {}}
        self.times: dict[int, int] = {}
        self.config = config
        self.leases: dict[tuple[str, str], int] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[History]:
        async with self.world.running() as registry:
            registry.on_step(self._note)
            yield History(self.world.engine, self.world.control.log, self.world.clock, self.config)

    def _note(self, step: RegistryStep) -> None:
        self.times[step.revision] = step.time_ns
        self.states[step.revision] = {
            (entry.registered.instance.service, entry.registered.instance.id): entry.registered
            for entry in self.world.fold.entries()
        }

    def state(self, revision: int) -> State:
        return self.states[max(known for known in self.states if known <= revision)]

    async def register(self, name: str, service: str = "orders", **fields: Any) -> None:
        done = await self.world.register(instance(name, service, **fields), ttl_ms=300_000)
        self.leases[service, name] = done.lease_id

    async def live(self, steps: int, seed: int) -> None:
        """Things happen; snapshots are taken in between."""
        rng = random.Random(seed)
        for _ in range(steps):
            service, name = rng.choice(("orders", "cart")), rng.choice("abcde")
            lease_id = self.leases.get((service, name), 0)
            if lease_id and rng.random() < 0.3:
                del self.leases[service, name]
                await self.world.registry.deregister(Reference(namespace="default", lease_id=lease_id), BY)
            else:
                declared = rng.choice((Declared.SERVING, Declared.DEGRADED))
                await self.register(name, service, weight=rng.randrange(1, 1_000), declared=declared)
            await asyncio.sleep(0.5)
            if rng.random() < 0.1:
                await self.world.control.snapshot()


@pytest.mark.parametrize("seed", range(5))
def test_every_revision_can_be_seen_again(seed: int) -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.live(60, seed)
            for revision in range(history.revision + 1):
                found = await history.at("default", revision=revision)
                assert found.revision == revision
                shown = {(one.instance.service, one.instance.id): one for one in found.instances}
                assert shown == past.state(revision)
                assert list(shown) == sorted(shown)
                assert not found.changes
            assert (await history.at("default")).revision == history.revision
            orders = await history.at("default", "orders")
            assert {one.instance.service for one in orders.instances} == {"orders"}
            assert not (await history.at("elsewhere")).instances

    virtual(main)


def test_changes_lead_from_one_revision_to_another() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.live(60, 9)
            last = history.revision
            for since in (1, 7, last - 3):
                found = await history.at("default", since_revision=since)
                state = dict(past.state(since))
                for change in found.changes:
                    assert since < change.revision <= last
                    key = (change.service, change.instance_id)
                    assert state.get(key) == change.before
                    state.pop(key, None)
                    if change.after is not None:
                        state[key] = change.after
                assert state == past.state(last)
                assert not found.truncated
            few = await history.at("default", since_revision=1, max_changes=3)
            assert (len(few.changes), few.truncated) == (3, True)
            one_service = await history.at("default", "cart", since_revision=1)
            assert {change.service for change in one_service.changes} == {"cart"}
            assert one_service.changes[0].author == "tests"

    virtual(main)


def test_steps_can_be_read_again_as_they_were_told() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.live(30, 4)
            told = [step for step in past.world.steps if step.revision > 5]
            again = [step async for step in history.steps(5, history.revision)]
            assert [(step.revision, step.time_ns) for step in again] == [(s.revision, s.time_ns) for s in told]
            assert [list(step.changes) for step in again] == [list(step.changes) for step in told]

    virtual(main)


def test_a_revision_in_the_middle_of_a_group_is_that_and_no_more() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.register("i", "other")
            before = history.revision
            await asyncio.gather(*(past.register(f"i{number}") for number in range(8)))
            assert len([known for known in past.states if known > before]) < 8, "they were written in groups"
            for number in range(1, 9):
                found = await history.at("default", "orders", revision=before + number, since_revision=before)
                assert len(found.instances) == len(found.changes) == number

    virtual(main)


def test_records_that_do_not_count_do_not_count_here_either() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.register("a")
            stale = Draft(
                topic="instance.removed",
                key="instance/default/orders/a",
                body=b"",
                namespace="default",
                version=Version(past.world.engine.node_id, past.world.control.sequencer.epoch, 99),
                expects=None,
            )
            log = past.world.control.log
            await log.append(Batch.of_records([stale]), time_ns=past.world.clock.time_ns())
            assert past.world.control.sequencer.skipped == 1
            found = await history.at("default")
            assert found.revision == log.next_offset - 1
            assert [one.instance.id for one in found.instances] == ["a"]

    virtual(main)


def test_a_time_is_the_last_revision_at_or_before_it() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.register("a")
            await asyncio.sleep(10)
            await past.register("b")
            written = past.times[history.revision]
            assert len((await history.at("default", time_ns=written)).instances) == 2
            assert len((await history.at("default", time_ns=written - 1)).instances) == 1
            found = await history.at("default", time_ns=past.world.clock.time_ns())
            assert (found.revision, found.time_ns) == (history.revision, written)
            with pytest.raises(RevisionInFuture):
                await history.at("default", time_ns=past.world.clock.time_ns() + 1)

    virtual(main)


def test_what_has_not_happened_or_is_not_kept_is_refused() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.live(20, 1)
            with pytest.raises(RevisionInFuture):
                await history.at("default", revision=history.revision + 1)
            with pytest.raises(InvalidArgument, match="since_revision"):
                await history.at("default", revision=3, since_revision=4)
            await past.world.control.snapshot()
            kept = history.revision
            await past.register("z")
            await past.world.engine.prune_snapshots(before_time_ns=past.world.clock.time_ns())
            await past.world.control.log.trim(Retention(max_offset=kept + 1), now_ns=past.world.clock.time_ns())
            assert past.world.control.log.first_offset > 1
            first = past.world.control.log.first_offset - 1
            assert (await history.at("default", revision=first)).revision == first
            for too_early in (0, 1, first - 1):
                if too_early < kept:
                    with pytest.raises(RevisionCompacted):
                        await history.at("default", revision=too_early)
            with pytest.raises(RevisionCompacted):
                await history.at("default", since_revision=1)

    virtual(main)


def test_looking_back_is_bounded() -> None:
    async def main() -> None:
        past = Past()
        async with past.running():
            await past.live(20, 2)
            slow = SlowSnapshots()
            log, clock = past.world.control.log, past.world.clock
            history = History(slow, log, clock, HistoryConfig(replays_max=1, waiting_max=1))
            looks = [asyncio.create_task(history.at("default")) for _ in range(4)]
            await asyncio.sleep(1)
            slow.readable.set()
            done = await asyncio.gather(*looks, return_exceptions=True)
            refused = [one for one in done if isinstance(one, LimitExceeded)]
            assert len(refused) == 2
            assert (await history.at("default")).revision == history.revision

    virtual(main)


class SlowSnapshots:
    """None, after a while."""

    def __init__(self) -> None:
        self.readable = asyncio.Event()

    async def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
        await self.readable.wait()
        nothing: tuple[int, bytes]
        for nothing in ():
            yield nothing


def test_a_large_snapshot_is_loaded_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.register(instance("a"))
            await world.control.snapshot()
            seen = await History(world.engine, world.control.log, world.clock).at("default")
            kept.extend(seen.instances)
            snapshots.extend([one async for one in world.engine.load_snapshots()])

    kept: list[RegisteredInstance] = []
    snapshots: list[tuple[int, bytes]] = []
    virtual(main)
    monkeypatch.setattr(replay, "THREAD_BYTES", 0)

    class Kept:
        async def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
            for one in snapshots:
                yield one

    class Nothing:
        first_offset = 0

    async def load() -> list[RegisteredInstance]:
        loaded = replay.Replay(Nothing())  # type: ignore[arg-type]
        await loaded.load(Kept(), snapshots[0][0])
        return [entry.registered for entry in loaded.fold.entries()]

    assert asyncio.run(load()) == kept


def test_a_long_replay_lets_others_have_the_loop() -> None:
    async def main() -> None:
        past = Past()
        async with past.running() as history:
            await past.live(300, 3)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            await history.at("default", since_revision=1)
            counting.cancel()
            assert turns >= 2

    virtual(main)
