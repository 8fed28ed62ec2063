"""Thresholds, doubt, addresses, and the prober's loop in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from reference.registry_facts import instance
from reference.registry_world import S, World, virtual
from trunkline.core.model import Endpoint, GrpcHealthCheck, Status
from trunkline.server.registry.probe_config import ProberConfig
from trunkline.server.registry.probe_state import Doubt, ProbeState
from trunkline.server.registry.prober import Prober

CHECK = GrpcHealthCheck(interval_ms=1_000, timeout_ms=500)


def test_a_verdict_takes_as_many_probes_in_a_row_as_the_check_says() -> None:
    state = ProbeState(CHECK, failed=False)
    assert [state.add(passed=p) for p in (False, False, True, False, False, False)] == [False] * 5 + [True]
    state.settle(failed=True)
    assert [state.add(passed=p) for p in (True, False, True, True)] == [False, False, False, True]


def test_a_verdict_that_could_not_be_written_is_asked_for_again() -> None:
    state = ProbeState(CHECK, failed=False)
    assert [state.add(passed=False) for _ in range(5)] == [False, False, True, True, True]


def doubt(targets: int) -> Doubt:
    made = Doubt(ProberConfig())
    made.targets = targets
    return made


def test_the_prober_is_doubted_when_most_probes_fail_at_once() -> None:
    d = doubt(10)
    for n in range(5):
        d.add(n, passed=False, now_ns=n * S)
    assert d.since_ns is None
    d.add(5, passed=False, now_ns=5 * S)
    assert d.since_ns == 5 * S
    d.add(5, passed=False, now_ns=500 * S)
    assert d.since_ns == 5 * S, "it does not get more credible by itself"
    d.add(0, passed=True, now_ns=501 * S)
    assert d.since_ns is None


def test_what_fails_one_after_the_other_is_believed() -> None:
    d = doubt(10)
    for n in range(10):
        d.add(n, passed=False, now_ns=n * 10 * S)
    assert d.since_ns is None


def test_a_few_failures_are_believed_however_few_targets_there_are() -> None:
    d = doubt(4)
    for n in range(4):
        d.add(n, passed=False, now_ns=0)
    assert d.since_ns is None


def test_targets_that_went_no_longer_speak() -> None:
    d = doubt(10)
    for n in range(6):
        d.add(n, passed=False, now_ns=0)
    d.targets = 9
    d.forget(0, now_ns=0)
    d.targets = 8
    d.forget(1, now_ns=0)
    assert d.since_ns is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "0.0.0.0",
        "fe80::1",
        "fe80::1%eth0",
        "::",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_addresses_that_give_credentials_away_are_never_probed(address: str) -> None:
    assert ProberConfig(allowed_networks=("0.0.0.0/0", "::/0")).rules().why_not(address) is not None


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "::1", "192.168.1.1", "8.8.8.8", "fd12::1"])
def test_others_may_be(address: str) -> None:
    assert ProberConfig().rules().why_not(address) is None


def test_an_operator_says_which() -> None:
    rules = ProberConfig(allowed_networks=("10.0.0.0/8", "fd12::/16")).rules()
    assert rules.why_not("10.1.2.3") is None
    assert rules.why_not("fd12::9") is None
    assert rules.why_not("127.0.0.1") == "127.0.0.1 is not in allowed_networks"


def test_a_network_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        ProberConfig(allowed_networks=("10.0.0.0/99",))


@dataclass
class Fleet:
    """Answers for instances by port."""

    sick: dict[int, str] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    takes_s: float = 0.0
    at_once: int = 0
    at_once_max: int = 0
    closed: bool = False

    async def check(self, endpoint: Endpoint, service: str, *, timeout_ms: int) -> str | None:
        self.asked.append(endpoint.port)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(self.takes_s)
        self.at_once -= 1
        return self.sick.get(endpoint.port)

    async def close(self) -> None:
        self.closed = True


class ProbedWorld(World):
    def __init__(self, config: ProberConfig | None = None) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.prober_config = config or ProberConfig()
        self.prober: Prober
        self.leases: list[int] = []

    @asynccontextmanager
    async def probing(self) -> AsyncIterator[Prober]:
        async with self.running() as registry:
            self.prober = Prober(registry, self.clock, self.rng, self.prober_config, probe=self.fleet)
            task = asyncio.create_task(self.prober.run())
            try:
                yield self.prober
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def add(self, count: int, check: GrpcHealthCheck = CHECK) -> None:
        for n in range(count):
            declared = instance(f"i{n}", endpoints=(Endpoint("10.0.0.1", 1_000 + n),), health_check=check)
            self.leases.append((await self.register(declared)).lease_id)

    async def live(self, seconds: float) -> None:
        await self.keep_alive(self.leases, for_s=seconds)


def test_an_instance_that_fails_its_probes_is_not_serving_until_it_passes_them() -> None:
    async def main() -> None:
        world = ProbedWorld()
        async with world.probing() as prober:
            await world.add(10)
            world.fleet.sick[1_000] = "answered NOT_SERVING"
            await world.live(5)
            shown = world.shown("i0")
            assert shown is not None
            assert (shown.status, shown.status_reason) == (Status.NOT_SERVING, "probe: answered NOT_SERVING")
            assert world.status("i1") is Status.SERVING
            world.fleet.sick.clear()
            await world.live(4)
            assert world.status("i0") is Status.SERVING
            assert prober.alarms() == []
            probed = [change.what for step in world.steps for change in step.changes if "probe" in change.what]
            assert probed == ["probe failed", "probe passed"]
        assert world.fleet.closed

    virtual(main)


def test_verdicts_stand_while_the_prober_is_doubted() -> None:
    async def main() -> None:
        world = ProbedWorld()
        async with world.probing() as prober:
            await world.add(10)
            await world.live(3)
            world.fleet.sick.update({1_000 + n: "no route" for n in range(10)})
            await world.live(60)
            assert [world.status(f"i{n}") for n in range(10)] == [Status.SERVING] * 10
            [alarm] = prober.alarms()
            assert alarm.name == "PROBER_DOUBTED"
            assert prober.metrics()["verdicts_withheld_total"] > 0
            for n in range(5, 10):
                del world.fleet.sick[1_000 + n]
            await world.live(5)
            assert prober.alarms() == []
            assert world.status("i0") is Status.NOT_SERVING, "half is not most: these are believed"

    virtual(main)


def test_probes_at_a_time_are_bounded() -> None:
    async def main() -> None:
        world = ProbedWorld(ProberConfig(concurrent_max=3, channels_max=3))
        world.fleet.takes_s = 0.4
        async with world.probing():
            await world.add(20)
            await world.live(6)
            assert world.fleet.at_once_max == 3
            assert set(world.fleet.asked) == {1_000 + n for n in range(20)}, "late, but every one in turn"

    virtual(main)


def test_a_changed_endpoint_is_probed_from_then_on() -> None:
    async def main() -> None:
        world = ProbedWorld()
        async with world.probing():
            await world.add(1)
            await world.live(2)
            await world.register(instance("i0", endpoints=(Endpoint("10.0.0.1", 9),), health_check=CHECK))
            world.fleet.asked.clear()
            await world.live(3)
            assert set(world.fleet.asked) == {9}
            await world.register(instance("i0", endpoints=(Endpoint("10.0.0.1", 9),)))
            world.fleet.asked.clear()
            await world.live(3)
            assert world.fleet.asked == []

    virtual(main)


def test_an_instance_that_went_is_probed_no_more() -> None:
    async def main() -> None:
        world = ProbedWorld()
        async with world.probing() as prober:
            await world.add(2)
            world.leases.pop()
            await world.live(12)
            assert world.status("i1") is None
            world.fleet.asked.clear()
            await world.live(3)
            assert set(world.fleet.asked) == {1_000}
            assert prober.metrics()["targets"] == 1

    virtual(main)


def test_after_a_start_probing_goes_on_from_the_verdict_on_record() -> None:
    async def main() -> None:
        world = ProbedWorld()
        world.fleet.sick[1_000] = "no"
        async with world.probing():
            await world.add(1)
            await world.live(5)
            assert world.status("i0") is Status.NOT_SERVING
        world.fleet.sick.clear()
        async with world.probing():
            assert world.status("i0") is Status.NOT_SERVING
            await world.live(4)
            assert world.status("i0") is Status.SERVING

    virtual(main)


def test_the_interval_is_kept_with_a_little_jitter() -> None:
    async def main() -> None:
        world = ProbedWorld()
        async with world.probing():
            await world.add(1, replace(CHECK, interval_ms=2_000))
            await world.live(60)
            assert 27 <= len(world.fleet.asked) <= 33

    virtual(main)


def test_a_prober_that_is_off_probes_nothing() -> None:
    async def main() -> None:
        world = ProbedWorld(ProberConfig(enabled=False))
        async with world.running() as registry:
            await Prober(registry, world.clock, world.rng, world.prober_config, probe=world.fleet).run()
            await world.add(1)
            await world.live(5)
            assert world.fleet.asked == []

    virtual(main)
