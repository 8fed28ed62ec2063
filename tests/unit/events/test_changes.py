"""The derived stream of a namespace: every change once, in order, from memory or from control's past, across restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reference.events_world import BY, Client, Notice, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import NotSupported
from trunkline.core.model import Endpoint, Instance, Registration
from trunkline.server.discovery.history import History
from trunkline.server.events import changes as changes_module
from trunkline.server.events.bus import BusConfig, EventBus
from trunkline.server.events.changes import Changes
from trunkline.server.events.fold import EventsFold
from trunkline.server.events.publishing import Publishing
from trunkline.server.events.streams import Promise
from trunkline.server.events.tasks import Tasks
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.registry.config import RegistryConfig
from trunkline.server.registry.fold import RegistryFold
from trunkline.server.registry.registry import Registry

EARLIEST = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))


class Plane(World):
    """With a registry, so that there is something to derive from."""

    registry: Registry

    @asynccontextmanager
    async def running(self, *, crash: bool = False) -> AsyncIterator[EventBus]:
        self.fold, registry_fold, tasks = EventsFold(), RegistryFold(RegistryConfig().tombstones), Tasks()
        folds = Folds([registry_fold, self.fold])
        self.control = Control(self.engine, folds, self.clock, ControlConfig(), program_version="0")
        await self.control.open()
        sequencer = self.control.sequencer
        self.registry = Registry(
            registry_fold, sequencer, self.clock, self.rng, node_id=self.engine.node_id, config=RegistryConfig()
        )
        history = History(self.engine, self.control.log, self.clock)
        changes = Changes(
            self.control.log, history, tasks, journal_id=self.engine.journal_id, revision=sequencer.revision
        )
        self.bus = EventBus(
            self.engine,
            self.fold,
            sequencer,
            self.clock,
            self.rng,
            BusConfig(),
            tasks,
            promise=Promise(),
            changes=changes,
        )
        self.registry.on_step(changes.on_step)
        sequencer.on_group(lambda group: self.bus.on_records(group.applied))
        sequencer.on_group(changes.on_group)
        self.publishing = Publishing(self.bus.streams, self.encoded_header)
        journal = asyncio.create_task(self.control.run())
        await self.control.ready.wait()
        await self.bus.start(BY)
        self.registry.begin()
        work = asyncio.create_task(self.bus.run())
        try:
            yield self.bus
            assert not work.done(), work
        finally:
            for task in (work, journal):
                task.cancel()
            await asyncio.gather(work, journal, return_exceptions=True)
            if not crash:
                await self.bus.stop()
            for stream in self.bus.streams.opened():
                stream.dispatcher.close()

    async def register(self, name: str, *, namespace: str = "shop") -> int:
        instance = Instance(namespace=namespace, service="cart", id=name, endpoints=(Endpoint("10.0.0.1", 80),))
        wanted = Registration(instance, name.encode().ljust(16, b"."), 10_000, False)
        await self.registry.register(wanted, BY)
        return self.control.sequencer.revision


def seen(client: Client) -> list[tuple[int, str, str]]:
    return [
        (d.offset, d.event.type.removeprefix("trunkline."), d.event.attributes["subject"].ce_string)
        for d in client.deliveries
    ]


def test_changes_are_events_whose_offsets_are_revisions() -> None:
    async def main() -> None:
        world = Plane()
        async with world.running() as bus:
            first = await world.register("c1")
            client = world.connect()
            await client.open(stream="changes", config=EARLIEST, no_acknowledgement=True)
            await client.received(1)
            await world.register("elsewhere", namespace="other")
            second = await world.register("c2")
            await bus.streams.create(events_pb2.StreamConfig(namespace="shop", name="audit"), BY)
            third = world.control.sequencer.revision
            await client.received(3)
            assert seen(client) == [
                (first, "instance.registered", "cart/c1"),
                (second, "instance.registered", "cart/c2"),
                (third, "stream.created", "audit"),
            ]
            event = client.deliveries[0].event
            assert event.source == "/trunkline/shop"
            assert event.id == f"{world.control.log.incarnation:016x}-{first}"
            data = json.loads(event.text_data)
            assert (data["before"], data["after"]["instance"]["id"], data["author"]) == (None, "c1", "tests")
            with pytest.raises(NotSupported):
                await world.publish("a", stream="changes")

    virtual(main)


@pytest.mark.parametrize("name", ["", "auditor"])
def test_the_last_change_of_each_subject_is_a_start(name: str) -> None:
    async def main() -> None:
        world = Plane()
        async with world.running() as bus:
            first = await world.register("c1")
            await bus.streams.create(events_pb2.StreamConfig(namespace="shop", name="audit"), BY)
            await world.register("elsewhere", namespace="other")
            await bus.streams.delete("shop", "audit", BY)
            deleted = world.control.sequencer.revision
            config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(last_per_key=True))
            client = world.connect()
            await client.open(stream="changes", config=config, name=name)
            await client.received(2)
            new = await world.register("c2")
            await client.until(lambda: client.offsets[-1] == new)
            assert seen(client)[:2] == [
                (first, "instance.registered", "cart/c1"),
                (deleted, "stream.deleted", "audit"),
            ], "not that it was created"

    virtual(main)


@pytest.mark.parametrize("recent", [2, 16_384])
def test_what_is_no_longer_at_hand_comes_from_the_past_and_is_the_same(
    recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "RECENT_CHANGES_MAX", recent)
    monkeypatch.setattr(changes_module, "OLDER_EVENTS_MAX", 3)
    monkeypatch.setattr(changes_module, "READ_EVENTS_MAX", 2)

    async def main() -> None:
        world = Plane()
        async with world.running() as bus:
            live = world.connect()
            await live.open(stream="changes", config=EARLIEST, no_acknowledgement=True)
            for number in range(10):
                await world.register(f"c{number}")
                await world.register(f"x{number}", namespace="other")
                if number == 5:
                    await bus.streams.create(events_pb2.StreamConfig(namespace="shop", name="audit"), BY)
            await live.received(11)
            late = world.connect()
            stream = await bus.streams.get("shop", "changes", BY)
            stream.dispatcher.cache.clear()
            await late.open(stream="changes", config=EARLIEST, no_acknowledgement=True)
            await late.received(11)
            assert [d.SerializeToString() for d in late.deliveries] == [d.SerializeToString() for d in live.deliveries]

    virtual(main)


def test_a_durable_subscription_of_changes_goes_on_after_a_crash() -> None:
    async def main() -> None:
        world = Plane()
        async with world.running(crash=True):
            client = world.connect()
            await client.open(stream="changes", name="auditor", config=EARLIEST)
            one = await world.register("c1")
            two = await world.register("c2")
            await client.until(lambda: two in client.offsets)
            created = client.offsets[0]
            await client.ack(created, one)
            await asyncio.sleep(0.2)
        async with world.running():
            three = await world.register("c3")
            client = world.connect()
            await client.open(stream="changes", name="auditor")
            await client.until(lambda: {two, three} <= set(client.offsets))
            attempts = dict(client.attempts)
            assert created not in attempts
            assert one not in attempts
            assert attempts[two] == 2
            assert attempts[three] == 1

    virtual(main)


def test_bookmarks_move_on_though_nothing_happens_in_the_namespace() -> None:
    async def main() -> None:
        world = Plane()
        async with world.running():
            await world.register("first", namespace="other")
            client = world.connect()
            await client.open(stream="changes", no_acknowledgement=True)
            await asyncio.sleep(6)
            before = client.notices[-1]
            for number in range(5):
                await world.register(f"x{number}", namespace="other")
            await asyncio.sleep(6)
            after = client.notices[-1]
            assert after.kind == Notice.KIND_BOOKMARK
            assert after.next_offset == before.next_offset + 5
            again = world.connect()
            await again.open(stream="changes", no_acknowledgement=True, resume_token=after.resume_token)
            revision = await world.register("mine")
            await again.received(1)
            assert again.offsets == [revision]

    virtual(main)
