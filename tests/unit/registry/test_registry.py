"""The registry's shell on the real sequencer, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from reference.registry_facts import instance
from reference.registry_world import BY, S, World, virtual
from trunkline.core.errors import (
    InstanceAlive,
    InstanceNotFound,
    InstanceOverridden,
    InvalidArgument,
    LeaseNotFound,
    LimitExceeded,
    RevisionMismatch,
)
from trunkline.core.model import Declared, Status
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.registry.changes import RegistryStep
from trunkline.server.registry.config import ExpiryConfig, RegistryConfig, RegistryLimits
from trunkline.server.registry.entity import InstanceKey
from trunkline.server.registry.lost import LostReason
from trunkline.server.registry.registry import Late, Reference

KEY = InstanceKey("default", "orders", "a")


def ref(lease_id: int = 0, *, namespace: str = "default", service: str = "", instance_id: str = "") -> Reference:
    return Reference(namespace=namespace, lease_id=lease_id, service=service, instance_id=instance_id)


def test_registering_again_is_the_same_lease_and_writes_nothing() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            first = await world.register(instance("a"))
            revision = world.control.sequencer.revision
            again = await world.register(instance("a"))
            assert first.changed
            assert again == first._replace(changed=False)
            assert world.control.sequencer.revision == revision
            changed = await world.register(instance("a", weight=7))
            assert (changed.lease_id, changed.changed) == (first.lease_id, True)
            assert changed.modified_revision > first.modified_revision
            shown = world.shown("a")
            assert shown is not None
            assert shown.created_revision == first.modified_revision

    virtual(main)


def test_registering_again_keeps_the_lease_alive() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            for _ in range(5):
                await world.register(instance("a"))
                await asyncio.sleep(9)
            assert world.status("a") is Status.SERVING

    virtual(main)


def test_a_live_id_is_taken_over_only_on_demand() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            old = await world.register(instance("a"), secret=b"1" * 16)
            with pytest.raises(InstanceAlive):
                await world.register(instance("a"), secret=b"2" * 16)
            new = await world.register(instance("a"), secret=b"2" * 16, take_over=True)
            assert new.lease_id != old.lease_id
            assert registry.keep_alive([old.lease_id, new.lease_id])[:2] == (
                1,
                [(old.lease_id, LostReason.TAKEN_OVER)],
            )

    virtual(main)


def test_a_lease_that_runs_out_ends_the_instance_in_time() -> None:
    """Gone within TTL + 1 s, not before the TTL."""

    async def main() -> None:
        world = World()
        async with world.running() as registry:
            keeper = await world.register(instance("a"))
            dead = await world.register(instance("b"))
            await world.keep_alive([keeper.lease_id], for_s=9.99)
            assert world.status("b") is Status.SERVING
            await world.keep_alive([keeper.lease_id], for_s=1.01)
            assert world.status("b") is None
            assert world.status("a") is Status.SERVING
            assert registry.keep_alive([dead.lease_id]).lost == [(dead.lease_id, LostReason.EXPIRED)]
            assert world.steps[-1].changes[0].reason == "no keep-alive within the TTL"

    virtual(main)


def test_the_last_instance_is_kept_and_comes_back() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            only = await world.register(instance("a"))
            await asyncio.sleep(11)
            assert world.status("a") is Status.STALE
            kept = registry.keep_alive([only.lease_id])
            assert kept == (1, [], 3_333)
            await asyncio.sleep(0.01)
            assert world.status("a") is Status.SERVING
            assert not registry.keeper.restoring
            await world.keep_alive([only.lease_id], for_s=30)
            assert world.status("a") is Status.SERVING

    virtual(main)


def test_the_last_instance_goes_when_another_serves() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.register(instance("a"))
            await asyncio.sleep(11)
            new = await world.register(instance("b", declared=Declared.STARTING))
            await world.keep_alive([new.lease_id], for_s=5)
            assert world.status("a") is Status.STALE, "the other one does not serve yet"
            await world.register(instance("b"))
            await asyncio.sleep(0.3)
            assert world.status("a") is None
            assert world.status("b") is Status.SERVING

    virtual(main)


def test_the_last_instance_goes_when_its_retention_is_over() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.register(instance("a"))
            await asyncio.sleep(600 + 10)
            assert world.status("a") is Status.STALE
            await asyncio.sleep(2)
            assert world.status("a") is None

    virtual(main)


def test_a_mass_lapse_pauses_expiry_until_the_holders_are_heard_of() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            leases = [(await world.register(instance(f"i{n}", f"s{n % 3}"))).lease_id for n in range(40)]
            alive, silent = leases[:30], leases[30:]
            await world.keep_alive(alive, for_s=12)
            assert len(world.fold) == 40, "25 % fell silent together: all are kept"
            assert registry.keeper.kept_of.keys() == {("default", f"s{n}") for n in range(3)}
            [alarm] = registry.alarms()
            assert (alarm.name, alarm.namespace) == ("EXPIRY_PAUSED", "default")
            await world.keep_alive([*alive, *silent[:5]], for_s=6)
            assert registry.alarms() == []
            assert len(world.fold) == 35, "12.5 % were lapsed: the pause ended and they went"

    virtual(main)


def test_an_operator_ends_a_pause() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            for n in range(10):
                await world.register(instance(f"i{n}"))
            await asyncio.sleep(11)
            assert len(registry.alarms()) == 1
            assert await registry.end_expiry_pause("default", Origin(author="ops", reason="they are gone")) == 10
            assert len(world.fold) == 0
            assert registry.alarms() == []
            assert world.steps[-1].changes[-1].author == "ops"
            assert await registry.end_expiry_pause("default", Origin(author="ops")) == 0

    virtual(main)


def test_a_pause_ends_after_the_retention() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            for n in range(10):
                await world.register(instance(f"i{n}"))
            await asyncio.sleep(609)
            assert len(world.fold) == 10
            await asyncio.sleep(3)
            assert len(world.fold) == 0
            assert registry.alarms() == []

    virtual(main)


def test_a_stall_of_the_server_is_not_held_against_anyone() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            leases = [(await world.register(instance(f"i{n}"))).lease_id for n in range(3)]
            await world.keep_alive(leases, for_s=5)
            world.clock.skip(60 * S)
            await asyncio.sleep(2)
            registry.keep_alive(leases)
            await asyncio.sleep(9)
            assert [world.status(f"i{n}") for n in range(3)] == [Status.SERVING] * 3
            assert registry.metrics()["stalls_total"] == 1
            assert 59_500 < registry.metrics()["stalled_ms_total"] < 60_500

    virtual(main)


def test_after_a_stall_the_first_keep_alive_does_not_make_a_lease_live_longer() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            stays = await world.register(instance("a"))
            lease = await world.register(instance("b"))
            await asyncio.sleep(1)
            world.clock.skip(60 * S)
            registry.keep_alive([lease.lease_id, stays.lease_id])  # before the tick that finds the stall
            await world.keep_alive([stays.lease_id], for_s=11)
            assert world.status("b") is None

    virtual(main)


def test_a_queued_keep_alive_is_read_before_its_lease_lapses() -> None:
    """The keep-alive is on the loop's queue when the look begins; it counts though the deadline has passed."""

    async def main() -> None:
        world = World()
        async with world.running() as registry:
            lease = (await world.register(instance("a"))).lease_id
            deadline_ns = registry.keeper.live.deadline_ns(lease)
            assert deadline_ns is not None
            loop = asyncio.get_running_loop()
            look_ns = -(-deadline_ns // 1_000_000) * 1_000_000
            loop.call_at(look_ns / 1e9 + 0.015, registry.keep_alive, [lease])
            await asyncio.sleep((look_ns - world.clock.now_ns()) / 1e9)
            await registry.expiry.look()
            assert world.status("a") is Status.SERVING

    virtual(main)


def test_a_keep_alive_while_the_silent_are_counted_still_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Counting looks at every lease in steps; who is heard of between two of them has not lapsed, nor does the guard
    take him for one who did."""

    async def main() -> None:
        world = World()
        async with world.running() as registry:
            leases = [(await world.register(instance(f"i{n}"))).lease_id for n in range(6)]
            count = registry.keeper.count_silent

            def heard_meanwhile(counts: dict[str, int], now_ns: int) -> Iterator[None]:
                yield from count(counts, now_ns)
                registry.keep_alive(leases)

            registry.keeper.count_silent = heard_meanwhile  # type: ignore[method-assign]
            await asyncio.sleep(11)
            assert {world.status(f"i{n}") for n in range(6)} == {Status.SERVING}

    virtual(main)
    assert "expiry paused" not in caplog.messages


def test_a_keep_alive_between_two_batches_still_counts() -> None:
    """A mass lapse is written in batches; who is heard of while one is written is not in the next."""

    async def main() -> None:
        world = World(RegistryConfig(expiry=ExpiryConfig(batch_max=1)))
        async with world.running() as registry:
            leases = {f"i{n}": (await world.register(instance(f"i{n}"))).lease_id for n in range(3)}
            lapsed: list[str] = []

            def renew_the_others(step: RegistryStep) -> None:
                lapsed.extend(change.instance_id for change in step.changes)
                registry.keep_alive([lease for name, lease in leases.items() if name not in lapsed])

            registry.on_step(renew_the_others)
            world.registry.keeper.settled_ns = 10_700_000_000  # so that all are due together
            await asyncio.sleep(12)
            assert len(lapsed) == 1, lapsed

    virtual(main)


def test_each_lease_has_a_full_ttl_after_a_start() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            lease = (await world.register(instance("a"))).lease_id
            await world.register(instance("b"))
            await asyncio.sleep(9)
        await asyncio.sleep(300)
        async with world.running():
            assert world.status("a") is Status.SERVING
            await asyncio.sleep(9.9)
            assert world.status("a") is Status.SERVING
            world.registry.keep_alive([lease])
            await asyncio.sleep(1.1)
            assert (world.status("a"), world.status("b")) == (Status.SERVING, None)

    virtual(main)


def test_a_kept_instance_has_a_ttl_to_come_back_after_a_start() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            lease = (await world.register(instance("a"))).lease_id
            await asyncio.sleep(11)
        await asyncio.sleep(3_600)
        async with world.running():
            await asyncio.sleep(9)
            assert world.status("a") is Status.STALE
            world.registry.keep_alive([lease])
            await asyncio.sleep(0.1)
            assert world.status("a") is Status.SERVING

    virtual(main)


def test_what_was_kept_has_a_ttl_to_come_back_after_a_start_although_others_serve() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            leases = [(await world.register(instance(f"i{n}"))).lease_id for n in range(5)]
            await asyncio.sleep(11)
            await world.keep_alive(leases[:2], for_s=1)
            assert len(world.fold) == 5, "expiry is paused"
        async with world.running() as registry:
            assert registry.alarms() == [], "three lapsed leases do not tell that it was"
            await world.keep_alive(leases[:3], for_s=9.8)
            assert [world.status(f"i{n}") for n in range(5)] == [Status.SERVING] * 3 + [Status.STALE] * 2
            await world.keep_alive(leases[:3], for_s=0.5)
            assert len(world.fold) == 3

    virtual(main)


def test_a_pause_outlives_a_restart() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            for n in range(10):
                await world.register(instance(f"i{n}"))
            await asyncio.sleep(11)
        async with world.running() as registry:
            await asyncio.sleep(20)
            assert len(registry.alarms()) == 1
            assert len(world.fold) == 10

    virtual(main)


def test_deregistering_by_lease_or_by_name() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            a = await world.register(instance("a"))
            await world.register(instance("b"))
            assert not await registry.deregister(ref(a.lease_id, namespace="other"), BY)
            assert not await registry.deregister(ref(a.lease_id, service="orders", instance_id="b"), BY)
            assert await registry.deregister(ref(a.lease_id), BY)
            assert not await registry.deregister(ref(a.lease_id), BY)
            assert await registry.deregister(ref(service="orders", instance_id="b"), Origin(author="t", request_id="x"))
            assert await registry.deregister(ref(service="orders", instance_id="b"), Origin(author="t", request_id="x"))
            assert not await registry.deregister(ref(service="orders", instance_id="b"), BY)
            assert registry.keep_alive([a.lease_id]).lost == [(a.lease_id, LostReason.DEREGISTERED)]
            with pytest.raises(InvalidArgument):
                await registry.deregister(ref(service="orders"), BY)

    virtual(main)


@dataclass(frozen=True)
class Slow:
    client: str = "gateway"
    applied_revision: int = 3
    late_by_ns: int = S


@dataclass(frozen=True)
class Outcome:
    complete: bool
    late: Sequence[Late]


@dataclass
class Followers:
    asked: list[tuple[str, str, str | None, int, int]] = field(default_factory=list)

    async def wait_applied(
        self, namespace: str, service: str, instance_id: str | None, revision: int, limit_ns: int
    ) -> Outcome:
        self.asked.append((namespace, service, instance_id, revision, limit_ns))
        return Outcome(False, (Slow(),))


def test_draining_waits_for_the_watchers() -> None:
    async def main() -> None:
        followers = Followers()
        world = World(watchers=followers)
        async with world.running() as registry:
            a = await world.register(instance("a"))
            drained = await registry.drain(ref(a.lease_id), BY, limit_ns=5 * S)
            assert world.status("a") is Status.DRAINING
            assert (drained.complete, [late.client for late in drained.late]) == (False, ["gateway"])
            again = await registry.drain(ref(a.lease_id), BY, limit_ns=5 * S)
            assert again.revision == drained.revision
            assert followers.asked == [("default", "orders", "a", drained.revision, 5 * S)] * 2
            with pytest.raises(LeaseNotFound):
                await registry.drain(ref(12345), BY, limit_ns=0)
            with pytest.raises(InstanceNotFound):
                await registry.drain(ref(service="orders", instance_id="zz"), BY, limit_ns=0)

    virtual(main)


def test_draining_is_refused_while_an_override_keeps_traffic_coming() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            a = await world.register(instance("a"))
            await registry.set_override(KEY, Status.SERVING, Origin(author="ops", reason="trust me"))
            with pytest.raises(InstanceOverridden):
                await registry.drain(ref(a.lease_id), BY, limit_ns=0)

    virtual(main)


def test_draining_what_has_lapsed_removes_it() -> None:
    """STALE stands above DRAINING: it would go on being picked."""

    async def main() -> None:
        world = World()
        async with world.running() as registry:
            await world.register(instance("a"))
            await asyncio.sleep(11)
            drained = await registry.drain(ref(service="orders", instance_id="a"), BY, limit_ns=0)
            assert world.shown("a") is None
            assert drained.revision == world.fold.service("default", "orders").tombstones["a"]  # type: ignore[union-attr]

    virtual(main)


def test_a_drained_instance_that_falls_silent_goes_although_it_was_the_last() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            a = await world.register(instance("a"))
            await registry.drain(ref(a.lease_id), BY, limit_ns=0)
            await asyncio.sleep(11)
            assert world.shown("a") is None

    virtual(main)


def test_overrides() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as registry:
            await world.register(instance("a"))
            shown = await registry.set_override(KEY, Status.NOT_SERVING, Origin(author="ops", reason="bad disk"))
            assert (shown.status, shown.status_reason) == (Status.NOT_SERVING, "override: bad disk")
            same = await registry.set_override(KEY, Status.NOT_SERVING, Origin(author="ops", reason="bad disk"))
            assert same is shown
            with pytest.raises(RevisionMismatch):
                await registry.set_override(KEY, None, BY, if_revision=shown.created_revision)
            back = await registry.set_override(KEY, None, BY, if_revision=shown.modified_revision)
            assert back.status is Status.SERVING
            with pytest.raises(InvalidArgument):
                await registry.set_override(KEY, Status.STALE, BY)
            with pytest.raises(InstanceNotFound):
                await registry.set_override(KEY._replace(id="zz"), None, BY)

    virtual(main)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (RegistryLimits(instances_max=2), "instances_max"),
        (RegistryLimits(namespace_instances_max=2), "namespace_instances_max"),
        (RegistryLimits(service_instances_max=2), "service_instances_max"),
    ],
)
def test_limits_have_names(limits: RegistryLimits, name: str) -> None:
    async def main() -> None:
        world = World(RegistryConfig(limits=limits))
        async with world.running():
            for n in range(2):
                await world.register(instance(f"i{n}"))
            with pytest.raises(LimitExceeded) as refused:
                await world.register(instance("i3"))
            assert refused.value.fields == {"limit": name, "value": "2"}
            await world.register(instance("i0", weight=3))  # a change is no new one

    virtual(main)


def test_a_lease_kept_elsewhere_moves_here_by_a_record() -> None:
    async def main() -> None:
        world = World(RegistryConfig(keeps_all=False))
        async with world.running():
            lease = (await world.register(instance("a"))).lease_id
        world.engine.node_id += 1  # another control plane on the same journal
        async with world.running() as registry:
            assert len(registry.keeper.live) == 0
            await asyncio.sleep(60)
            assert world.status("a") is Status.SERVING, "another node times it"
            assert registry.keep_alive([lease]).renewed == 1
            await asyncio.sleep(0.1)
            entry = world.fold.of_lease(lease)
            assert entry is not None
            assert entry.lease.keeper == world.engine.node_id
            await asyncio.sleep(11)
            assert world.status("a") is Status.STALE

    virtual(main)


def test_what_is_promised_of_a_dead_instance_fits_into_a_second() -> None:
    with pytest.raises(ValueError, match="less than 1,000"):
        ExpiryConfig(jitter_ms_max=900, tick_ms=100)
