"""The registry under random holders, operators, silences, stalls and restarts, against what it may and must do."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference.registry import Model, Name
from reference.registry_facts import instance
from reference.registry_world import S, VirtualTime, World
from trunkline.core.errors import InstanceAlive
from trunkline.core.model import Declared, RegisteredInstance, Registration, Status
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.registry.decisions import lease_id_of
from trunkline.server.registry.entity import InstanceKey
from trunkline.server.registry.registry import Reference

services = st.sampled_from(["orders", "cart"])
ids = st.sampled_from("abcdef")
secrets = st.sampled_from([b"1" * 16, b"2" * 16])
ASKED = Origin(author="holder")


def lease_of(name: Name, secret: bytes) -> int:
    return lease_id_of(InstanceKey("default", *name).text, secret)


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = VirtualTime()
        self.model = Model()
        self.world = World()
        self.started: AbstractAsyncContextManager[Any] | None = None
        self.seen = 0
        self.run(self._start())

    def run(self, awaitable: Any) -> Any:
        return self.time.run(awaitable)

    async def _start(self) -> None:
        self.started = self.world.running()
        await self.started.__aenter__()
        self.world.steps.clear()
        self.seen = 0

    async def _stop(self) -> None:
        assert self.started is not None
        await self.started.__aexit__(None, None, None)

    def teardown(self) -> None:
        self.run(self._stop())
        self.time.close()

    def _sync(self) -> None:
        """Show the model what the registry did by itself."""
        for step in self.world.steps[self.seen :]:
            for change in step.changes:
                if change.author != ASKED.author:
                    self.model.saw(change)
        self.seen = len(self.world.steps)

    async def _pass(self, seconds: float) -> None:
        """Time goes by; what the registry does is seen within 100 ms."""
        left_ms = round(seconds * 1_000)
        while left_ms > 0:
            step_ms = min(100, left_ms)
            await asyncio.sleep(step_ms / 1_000)
            self.model.now_ms += step_ms
            left_ms -= step_ms
            self._sync()
            self.model.look()

    @initialize(
        names=st.sets(st.tuples(services, ids), min_size=3),
        ttl_s=st.sampled_from([3, 10]),
        secret=secrets,
    )
    def there_are_some(self, names: set[Name], ttl_s: int, secret: bytes) -> None:
        async def main() -> None:
            for service, name in sorted(names):
                made = instance(name, service)
                self.model.register(made, secret, ttl_s, take_over=False)
                await self._register(made, secret, ttl_s, False)

        self.run(main())

    @rule(
        service=services,
        name=ids,
        secret=secrets,
        weight=st.integers(1, 2),
        ttl_s=st.sampled_from([1, 3, 10]),
        declared=st.sampled_from([Declared.SERVING, Declared.SERVING, Declared.STARTING, Declared.DEGRADED]),
        take_over=st.booleans(),
    )
    def register(
        self, service: str, name: str, secret: bytes, weight: int, ttl_s: int, declared: Declared, take_over: bool
    ) -> None:
        made = instance(name, service, weight=weight, declared=declared)
        accepted, changed = self.model.register(made, secret, ttl_s, take_over=take_over)

        async def main() -> None:
            if not accepted:
                with pytest.raises(InstanceAlive):
                    await self._register(made, secret, ttl_s, take_over)
                return
            registered = await self._register(made, secret, ttl_s, take_over)
            assert (registered.lease_id, registered.changed) == (lease_of((service, name), secret), changed)
            self._sync()

        self.run(main())

    async def _register(self, made: Any, secret: bytes, ttl_s: int, take_over: bool) -> Any:
        return await self.world.registry.register(Registration(made, secret, ttl_s * 1_000, take_over), ASKED)

    @rule(names=st.lists(st.tuples(services, ids), max_size=8, unique=True), secret=secrets)
    def keep_alive(self, names: list[Name], secret: bytes) -> None:
        async def main() -> None:
            kept = self.world.registry.keep_alive([lease_of(name, secret) for name in names])
            held = [name for name in names if self.model.heard_of(name, secret)]
            assert kept.renewed == len(held)
            assert [lease_id for lease_id, _ in kept.lost] == [
                lease_of(name, secret) for name in names if name not in held
            ]
            await self._pass(0.05)  # records of those that came back

        self.run(main())

    @rule(for_s=st.integers(1, 8))
    def everybody_is_well_for_a_while(self, for_s: int) -> None:
        async def main() -> None:
            for _ in range(for_s * 4):
                held = [(name, there.secret) for name, there in self.model.known.items()]
                self.world.registry.keep_alive([lease_of(name, secret) for name, secret in held])
                for name, secret in held:
                    assert self.model.heard_of(name, secret)
                await self._pass(0.25)

        self.run(main())

    @rule(names=st.sets(ids, min_size=1, max_size=4), for_s=st.integers(3, 12))
    def only_these_are_well_for_a_while(self, names: set[str], for_s: int) -> None:
        async def main() -> None:
            for _ in range(for_s * 4):
                held = [(name, there.secret) for name, there in self.model.known.items() if name[1] in names]
                self.world.registry.keep_alive([lease_of(name, secret) for name, secret in held])
                for name, secret in held:
                    assert self.model.heard_of(name, secret)
                await self._pass(0.25)

        self.run(main())

    @rule(seconds=st.floats(0.1, 15))
    def silence(self, seconds: float) -> None:
        self.run(self._pass(round(seconds, 1)))

    @rule()
    @precondition(lambda self: any(there.lapsed_s is not None for there in self.model.known.values()))
    def a_long_silence(self) -> None:
        self.run(self._pass(200))

    @rule(seconds=st.integers(1, 600))
    def the_server_stands_still(self, seconds: int) -> None:
        async def main() -> None:
            self.world.clock.skip(seconds * S)
            self.model.deaf_s += seconds
            await self._pass(0.8)  # found, and settled

        self.run(main())

    @rule(down_s=st.integers(0, 100))
    def the_server_restarts(self, down_s: int) -> None:
        async def main() -> None:
            await self._stop()
            await asyncio.sleep(down_s)
            self.model.deaf_s += down_s
            await self._start()
            self.model.started()

        self.run(main())

    @rule(service=services, name=ids)
    def deregister(self, service: str, name: str) -> None:
        reference = Reference(namespace="default", service=service, instance_id=name)

        async def main() -> None:
            there = self.model.known.pop((service, name), None)
            assert await self.world.registry.deregister(reference, ASKED) is (there is not None)

        self.run(main())

    @rule(service=services, name=ids)
    def drain(self, service: str, name: str) -> None:
        there = self.model.known.get((service, name))
        if there is None or there.override is not None:
            return
        reference = Reference(namespace="default", service=service, instance_id=name)
        if there.lapsed_s is not None:
            del self.model.known[service, name]
        else:
            there.instance = instance(name, service, weight=there.instance.weight, declared=Declared.DRAINING)
        self.run(self.world.registry.drain(reference, ASKED, limit_ns=0))

    @rule(service=services, name=ids, status=st.sampled_from([None, Status.SERVING, Status.NOT_SERVING]))
    def override(self, service: str, name: str, status: Status | None) -> None:
        there = self.model.known.get((service, name))
        if there is not None:
            there.override = status
            self.run(self.world.registry.set_override(InstanceKey("default", service, name), status, ASKED))

    @invariant()
    def the_registry_is_as_it_must_be(self) -> None:
        self._sync()  # a loop that is stopped has a last turn
        shown: dict[Name, RegisteredInstance] = {
            (entry.registered.instance.service, entry.registered.instance.id): entry.registered
            for entry in self.world.fold.entries()
        }
        self.model.check(shown, paused=bool(self.world.registry.guard.paused()))


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining traces every line
)
