"""What may be subscribed to is decided for each subscription: one that is refused ends alone, and makes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from reference.events_world import BY, Client, Notice, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.server.events.service import _may_subscribe
from trunkline.server.security.principal import Principal, Role, Via

SHOPS = Principal(
    name="shop", role=Role.SERVICE, namespaces=frozenset({"shop"}), topic_filters=("shop.order.>",), via=Via.TOKEN
)


def connected(world: World, principal: Principal) -> Client:
    client = Client(world.delivered)
    client.session = world.bus.open_session(client, BY, allow=_may_subscribe(principal))
    return client


ORDERS = events_pb2.SubscriptionConfig(filters=["shop.order.*"], start=events_pb2.StartPosition(earliest=True))
ELSE = events_pb2.SubscriptionConfig(filters=["shop.invoice.*"])
DEAD = events_pb2.SubscriptionConfig(filters=["shop.order.*"], dead_letter_stream="dead")


@pytest.mark.parametrize(
    "refused",
    [
        {"namespace": "other", "config": ORDERS},
        {"config": ELSE},
        {},
        {"name": "invoices", "config": ELSE},
        {"name": "everything"},
        {"name": "orders", "config": DEAD},
        {"name": "known"},
    ],
)
def test_one_that_is_refused_ends_alone(refused: dict[str, Any]) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("a")
            stream = await bus.streams.get("shop", "", BY)
            await bus.subscriptions.create(stream, "known", ELSE, BY)
            client = connected(world, SHOPS)
            await client.open(config=ORDERS)
            await client.received(1)
            await client.open(subscription_id=2, **refused)
            [ended] = [notice for notice in client.notices if notice.kind == Notice.KIND_ENDED]
            assert (ended.subscription_id, ended.error.reason) == (2, "PERMISSION_DENIED")
            assert {state.config.namespace for state in bus.streams.states("")} == {"shop"}
            assert [state.name for state in bus.subscriptions.states("", "")] == ["known"]
            await world.publish("b")
            await client.received(2)

    virtual(main)


def test_a_durable_one_that_is_there_is_opened_by_its_own_filters() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("a")
            stream = await bus.streams.get("shop", "", BY)
            await bus.subscriptions.create(stream, "known", ORDERS, BY)
            client = connected(world, SHOPS)
            await client.open(name="known")
            await client.received(1)

    virtual(main)
