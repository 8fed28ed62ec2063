"""A webhook that changes: the next request goes where it says now, and what was open is neither lost nor counted twice."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from yarl import URL

from reference.events_world import BY, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.server.events.webhook_outcome import Answer, Result, Silence
from trunkline.server.events.webhook_request import Request

OLD, NEW = "https://old.example/in", "https://new.example/in"


class Endpoints:
    """The old one is away; the new one takes everything, a little later."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        """Where, which event, and its signature."""
        self.away = {OLD}

    async def post(self, url: URL, request: Request, *, timeout_s: float) -> Result:
        headers = request.headers
        self.asked.append((str(url), headers["ce-id"], headers.get("webhook-signature", "")))
        await asyncio.sleep(0.01)
        return Silence("connection refused", was_sent=False) if str(url) in self.away else Answer(200)

    async def probe(self, url: URL, *, timeout_s: float) -> Result:
        return Silence("connection refused", was_sent=False) if str(url) in self.away else Answer(405)

    async def close(self) -> None:
        """Nothing is kept."""

    def at(self, url: str) -> set[str]:
        return {event for where, event, _ in self.asked if where == url}


async def create(world: World, url: str) -> None:
    stream = await world.bus.streams.get("shop", "events", BY)
    config = events_pb2.SubscriptionConfig(webhook=events_pb2.Webhook(url=url, secret=b"s" * 24))
    config.start.earliest = True
    await world.bus.subscriptions.create(stream, "billing", config, BY)


async def update(world: World, *paths: str, **webhook: Any) -> None:
    request = events_pb2.UpdateSubscriptionRequest(
        namespace="shop", name="billing", update_mask=FieldMask(paths=paths), config=events_pb2.SubscriptionConfig()
    )
    if webhook:
        request.config.webhook.CopyFrom(events_pb2.Webhook(**webhook))
    await world.bus.updates.subscription(request, BY)


def shown(world: World) -> events_pb2.SubscriptionState:
    [state] = world.bus.subscriptions.states("shop", "")
    return state


async def until_done(world: World, floor: int) -> None:
    for _ in range(250):
        if shown(world).floor >= floor:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(shown(world))


def test_an_endpoint_that_moved_is_tried_at_once_and_keeps_its_secret() -> None:
    async def main() -> None:
        endpoints = Endpoints()
        world = World(sender=endpoints)
        async with world.running():
            await create(world, OLD)
            await world.publish("a", "b", "c")
            await asyncio.sleep(300)
            assert shown(world).webhook.consecutive_failures > 1
            assert shown(world).webhook.HasField("paused_until")
            await update(world, "webhook.url", url=NEW)
            await until_done(world, 3)
            assert endpoints.at(NEW) == {"a", "b", "c"}
            assert all(signature for where, _, signature in endpoints.asked if where == NEW)
            state = shown(world)
            assert (state.webhook.consecutive_failures, state.set_aside) == (0, 0)
            assert not state.config.webhook.secret, "an answer holds no secret"
            await update(world, "webhook.secret", url=NEW)
            await world.publish("d")
            await until_done(world, 4)
            assert endpoints.asked[-1] == (NEW, "d", "")
        async with world.running():
            await world.publish("e")
            await until_done(world, 5)
            assert endpoints.asked[-1] == (NEW, "e", "")

    virtual(main)


def test_a_webhook_that_is_taken_away_leaves_its_events_to_others_and_may_come_back() -> None:
    async def main() -> None:
        endpoints = Endpoints()
        world = World(sender=endpoints)
        async with world.running():
            await create(world, OLD)
            await world.publish("a", "b")
            await asyncio.sleep(1)
            await update(world, "webhook")
            asked = len(endpoints.asked)
            client = world.connect()
            await client.open(name="billing")
            await client.received(2)
            await client.ack(0, 1)
            await world.publish("c")
            await client.received(3)
            assert client.attempts[-1] == (2, 1)
            assert len(endpoints.asked) == asked
            assert shown(world).webhook == events_pb2.WebhookState()
            world.disconnect(client)
            await update(world, "webhook", url=NEW)
            await until_done(world, 3)
            assert endpoints.at(NEW) == {"c"}

    virtual(main)
