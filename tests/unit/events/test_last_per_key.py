"""Subscriptions that begin with the latest event of each key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from reference.events_world import BY, Client, Notice, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import LimitExceeded
from trunkline.server.events.operations import seek
from trunkline.server.events.stream import EventStream

Config = events_pb2.SubscriptionConfig
LAST = events_pb2.StartPosition(last_per_key=True)


async def publish(world: World, keys: Sequence[str], *, prefix: str = "") -> EventStream:
    events = [event(f"{prefix}{number}", key=key) for number, key in enumerate(keys)]
    await world.publishing.publish(publish_request(events), BY, lambda _: None)
    return await world.bus.streams.get("shop", "", BY)


async def opened(world: World, **more: Any) -> Client:
    client = world.connect()
    await client.open(**{"config": Config(start=LAST)} | more)
    await asyncio.sleep(0.2)
    return client


def test_events_without_a_key_are_of_none_and_what_is_new_all_comes() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await publish(world, ["a", "", "b", "a", "", "c", "b"])
            for more in ({"name": "billing"}, {}, {"no_acknowledgement": True}):
                client = await opened(world, **more)
                assert client.offsets == [3, 5, 6]
            await publish(world, ["", "a", "a"], prefix="new")
            await asyncio.sleep(0.2)
            assert client.offsets == [3, 5, 6, 7, 8, 9]

    virtual(main)


def test_nothing_there_is_nothing_and_then_all_that_comes() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await publish(world, ["", ""])
            named, tap = await opened(world, name="billing"), await opened(world, no_acknowledgement=True)
            assert (named.offsets, tap.offsets) == ([], [])
            await publish(world, ["a", ""], prefix="new")
            await asyncio.sleep(0.2)
            assert (named.offsets, tap.offsets) == ([2, 3], [2, 3])

    virtual(main)


@pytest.mark.parametrize("acknowledges", [True, False])
def test_there_is_no_token_before_what_was_there_is_through(acknowledges: bool) -> None:
    """With one it would go on with every event of each key; without, it begins so anew, at what is the latest then."""

    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await publish(world, ["a", "b", "a", "b"])
            client = await opened(world, credit=1, no_acknowledgement=not acknowledges)
            [session] = bus._sessions
            session.bookmark()
            assert client.offsets == [2]
            assert [notice.resume_token for notice in client.notices] == [b""]
            await client.ack(2)
            await client.give(5)
            await asyncio.sleep(0.2)
            assert client.offsets == [2, 3]
            await client.ack(3)
            await asyncio.sleep(0.2)
            session.bookmark()
            token = client.notices[-1].resume_token
            assert (client.notices[-1].kind, client.notices[-1].next_offset) == (Notice.KIND_BOOKMARK, 4)
            world.disconnect(client)
            await publish(world, ["a", "a"], prefix="new")
            again = await opened(world, resume_token=token, no_acknowledgement=not acknowledges)
            assert again.offsets == [4, 5], "what is new all comes"

    virtual(main)


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_in_the_middle_goes_on_with_the_same(crash: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=crash):
            await publish(world, ["a", "b", "c", "a", "b", "d"])
            client = await opened(world, name="billing", credit=1)
            assert client.offsets == [2]
            await client.ack(2)
            await asyncio.sleep(0.2)
        async with world.running():
            stream = await publish(world, ["a"], prefix="new")
            client = await opened(world, name="billing", config=None)
            assert sorted(client.offsets) == [3, 4, 5, 6], "an attempt may be counted that was not made"
            await client.ack(3, 4, 5, 6)
            await asyncio.sleep(0.2)
            assert stream.feeds["billing"].lag == 0
            assert stream.feeds["billing"].state.latest_from is None

    virtual(main)


def test_it_is_there_as_soon_as_the_subscription_is_though_nobody_consumes() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            stream = await publish(world, ["a", "b", "a"])
            _, created = await bus.subscriptions.create(stream, "billing", Config(start=LAST, max_deliveries=1), BY)
            assert created
            assert not (await bus.subscriptions.create(stream, "billing", Config(start=LAST, max_deliveries=1), BY))[1]
        async with world.running():
            await publish(world, ["a", "a"], prefix="new")
            client = await opened(world, name="billing", config=None)
            assert client.offsets == [1, 2, 3, 4]

    virtual(main)


def test_a_subscription_is_moved_to_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            stream = await publish(world, ["a", "b", "a", "c", "a"])
            client = await opened(world, name="billing", config=Config(start=events_pb2.StartPosition(latest=True)))
            assert await seek(stream, stream.feeds["billing"], LAST, bus.subscriptions, bus.checkpoints) == 5
            assert client.kinds()[-1] == Notice.KIND_ENDED
        async with world.running() as bus:
            stream = await publish(world, ["c"], prefix="new")
            client = await opened(world, name="billing", config=None)
            assert client.offsets == [1, 3, 4, 5]
            earliest = events_pb2.StartPosition(earliest=True)
            await seek(stream, stream.feeds["billing"], earliest, bus.subscriptions, bus.checkpoints)
            client = await opened(world, name="billing", config=None)
            assert client.offsets == [0, 1, 2, 3, 4, 5], "all of it after that"

    virtual(main)


def test_more_keys_than_may_be_are_refused_and_nothing_is_made() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await publish(world, ["a", "b", "c"])
            object.__setattr__(bus.subscriptions._config, "last_per_key_keys_max", 2)
            with pytest.raises(LimitExceeded, match="last_per_key_keys_max"):
                await bus.subscriptions.create(stream, "billing", Config(start=LAST), BY)
            assert not stream.feeds
            client = await opened(world)
            assert client.notices[-1].error.reason == "LIMIT_EXCEEDED"
            object.__setattr__(bus.subscriptions._config, "last_per_key_keys_max", 3)
            assert (await opened(world)).offsets == [0, 1, 2]

    virtual(main)
