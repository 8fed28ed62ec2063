"""Two control planes that share one journal: each registers, times leases, is killed and comes back; both must agree."""

from __future__ import annotations

import asyncio
from typing import Any

import guarantees
from simulation import virtual
from simulation.chance import between, choose, happens, rng_of
from simulation.shared_journal import Share, SharedJournal
from simulation.truth import NODE_STARTED, Order
from simulation.virtual import Host, LoopClock

from trunkline.core.errors import OutcomeUnknown, TrunklineError
from trunkline.core.model import Endpoint, Instance, Registration
from trunkline.server.journal.block import Block
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.control.sequencer import Group, Origin, Sequencer
from trunkline.server.registry.config import RegistryConfig
from trunkline.server.registry.fold import RegistryFold
from trunkline.server.registry.guard import GuardConfig
from trunkline.server.registry.registry import Reference, Registry

BY = Origin(author="holder")
HOLDERS = 8
TTL_MS = 2_000
FAULTS_S = 20.0
CALM_S = 8.0
CONFIG = RegistryConfig(keeps_all=False, guard=GuardConfig(stale_retention_ms=5_000))


class Member:
    """One control plane across its incarnations."""

    def __init__(self, journal: SharedJournal, number: int, seed: int) -> None:
        self.node_id = number
        self.registry: Registry | None = None
        self.sequencer: Sequencer | None = None
        self.digests: dict[int, str] = {}
        """By revision, of the registry as this member has it."""
        self.broken: list[str] = []
        """What ended it and should not have."""
        self.host: Host
        self._journal = journal
        self._seed = seed
        self._starts = 0

    async def start(self) -> None:
        """Fold the journal, fence what an earlier incarnation left behind, and serve. A start that fails ends the
        process, and whoever minds it starts it again."""
        while self.registry is None:
            self._starts += 1
            self.host = Host(f"plane{self.node_id}#{self._starts}")
            await self.host.run(self._open(self.host))
            if self.registry is None:
                await self.host.kill()
                await asyncio.sleep(0.5)

    async def _open(self, host: Host) -> None:
        clock, fold = LoopClock(), RegistryFold(CONFIG.tombstones)
        engine: Any = Share(self._journal, host, self.node_id)
        control = Control(engine, Folds([fold]), clock, ControlConfig(), program_version="0")
        await control.open()

        def note(group: Group) -> None:
            self.digests.setdefault(group.revision, fold.digest())

        control.sequencer.on_group(note)
        rng = rng_of(self._seed, host.name)
        registry = Registry(fold, control.sequencer, clock, rng, node_id=self.node_id, config=CONFIG)
        registry.begin()
        running = host.run(control.run(), name="control")
        ready = host.run(control.ready.wait())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            self._ended(running)
            return
        running.add_done_callback(self._ended)
        host.run(registry.run(), name="registry").add_done_callback(self._ended)
        self.registry, self.sequencer = registry, control.sequencer

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A control plane may end when nobody answers its start, and when it is killed."""
        if task.cancelled():
            return
        error = task.exception()
        if self.registry is not None or not _is_unknown_outcome(error):
            self.broken.append(f"plane {self.node_id} ended: {error!r}")

    async def kill(self) -> None:
        """SIGKILL."""
        self.registry = self.sequencer = None
        await self.host.kill()


def _is_unknown_outcome(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_unknown_outcome(part) for part in error.exceptions)
    return isinstance(error, OutcomeUnknown)


class Holder:
    """Registers one instance at either control plane, keeps it alive at either, leaves, comes back."""

    def __init__(self, pair: Pair, number: int) -> None:
        self.pair = pair
        self.name = f"h{number}"
        self.rng = rng_of(pair.seed, self.name)
        self.secret = self.rng.bytes(16)
        self.lease_id = 0

    async def live(self) -> None:
        """Until the world ends."""
        while True:
            await asyncio.sleep(between(self.rng, 0.2, 0.6))
            member = choose(self.rng, self.pair.members) if happens(self.rng, 20) else self.pair.members[0]
            if member.registry is None:
                continue
            # A refusal, or the death of the host, is its own affair; being cancelled itself ends this.
            work = member.host.run(self._do(member.registry))
            await asyncio.wait([work])
            if not work.cancelled() and not isinstance(work.exception(), TrunklineError):
                await work

    async def _do(self, registry: Registry) -> None:
        if not self.lease_id or happens(self.rng, 10):
            instance = Instance(
                namespace="default", service="cart", id=self.name, endpoints=(Endpoint("10.0.0.1", 80, "grpc"),)
            )
            answer = await registry.register(Registration(instance, self.secret, TTL_MS), BY)
            self.lease_id = answer.lease_id
        elif happens(self.rng, 10) and not self.pair.journal.calm:
            await registry.deregister(Reference(namespace="default", lease_id=self.lease_id), BY)
            self.lease_id = 0
        elif registry.keep_alive([self.lease_id]).lost:
            self.lease_id = 0  # by its own word, perhaps, whose answer was lost


class Pair:
    """The world of two."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng_of(seed, "pair")
        self.journal = SharedJournal(seed)
        self.members = [Member(self.journal, number, seed) for number in (1, 2)]
        self.broken: list[str] = []

    async def live(self) -> list[str]:
        """Faults, calm, verdict: what was broken."""
        for member in self.members:
            await member.start()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(Holder(self, number).live()) for number in range(HOLDERS)]
        tasks.append(loop.create_task(self._look()))
        for _ in range(3):
            await asyncio.sleep(between(self.rng, 1.0, FAULTS_S / 3))
            member = choose(self.rng, self.members)
            await member.kill()
            await asyncio.sleep(between(self.rng, 0.05, 1.5 * TTL_MS / 1_000))
            await member.start()
        self.journal.calm = True
        await asyncio.sleep(CALM_S)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(1.0)
        await self._judge()
        for member in self.members:
            await member.kill()
        return self.broken

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            first, second = self.members
            if first.registry is None or second.registry is None:
                continue
            assert first.sequencer is not None
            assert second.sequencer is not None
            if first.sequencer.revision == second.sequencer.revision:
                timed = [
                    {entry.lease.id for entry in registry.fold.entries() if entry.lease.id in registry.keeper.live}
                    for registry in (first.registry, second.registry)
                ]
                self.broken += [f"G11: {what}" for what in guarantees.broke_one_keeper_per_lease(timed)]

    async def _judge(self) -> None:
        blocks = await self.journal.read_all()
        truth = _truth(blocks)
        first, second = self.members
        for revision in first.digests.keys() & second.digests.keys():
            if first.digests[revision] != second.digests[revision]:
                self.broken.append(f"the same records, the same state: not so at {revision}")
        end = blocks[-1].end_offset - 1
        for member in self.members:
            self.broken += member.broken
            if member.sequencer is None or member.sequencer.revision != end:
                self.broken.append(f"plane {member.node_id} has not folded all up to {end}")
            elif member.digests[end] != truth:
                self.broken.append(f"plane {member.node_id} made something else of the records up to {end}")
        fold = first.registry.fold if first.registry is not None else RegistryFold()
        live = [entry for entry in fold.entries() if not entry.lease.lapsed]
        if len(live) != HOLDERS:
            self.broken.append(
                f"liveness: {len(live)} of {HOLDERS} holders are registered after a calm of {CALM_S:g} s"
            )


def _truth(blocks: list[Block]) -> str:
    """What the records lead to by the rule alone, as a digest of the registry."""
    order, fold = Order(), RegistryFold(CONFIG.tombstones)
    for block in blocks:
        for record in (block.record(index) for index in range(block.count)):
            if order.counts(record) and record.topic != NODE_STARTED:
                fold.apply(record)
    return fold.digest()


def simulate_pair(seed: int) -> list[str]:
    """Run the world of two of a seed; what was broken."""
    return virtual.run(Pair(seed).live())
