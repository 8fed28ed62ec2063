"""The control plane that users' tests have does what the real one does: the same story, told by both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from integration.processes import Server, serving

from trunkline.api.v1 import events_pb2
from trunkline.client import Delivery, Event, Trunkline, connect
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import InvalidArgument, StreamNotFound, TrunklineError

Story = Callable[[Trunkline], Awaitable[Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


async def told_by_both(server: Server, namespace: str, story: Story) -> Any:
    """What came of it, which is the same."""
    async with FakeControlPlane().connect(namespace=namespace) as client, asyncio.timeout(20):
        by_fake = await story(client)
    async with connect(server.address, namespace=namespace) as client, asyncio.timeout(20):
        by_server = await story(client)
    assert by_fake == by_server
    return by_server


async def make_stream(client: Trunkline, name: str) -> None:
    request = events_pb2.CreateStreamRequest()
    request.stream.namespace, request.stream.name = client.namespace, name
    await client.call(lambda stubs: stubs.events.CreateStream, request, events_pb2.CreateStreamResponse)


async def take(subscription: Any, count: int) -> list[Delivery]:
    return [await subscription.next() for _ in range(count)]


ORDERS = [
    Event(type="order.placed", id="a", source="/shop/eu", key="k1", attributes={"region": "eu-west", "gifts": 3}),
    Event(type="order.placed", id="b", source="/shop/us", subject="s-1", attributes={"region": "us-east", "gifts": 30}),
    Event(type="order.paid", id="c", source="/shop/eu", key="k2", attributes={"region": "eu-east"}),
    Event(type="stock.low", id="d", source="/stock", data="7", attributes={"urgent": True}),
]


@pytest.mark.parametrize(
    ("filters", "attribute_filters", "taken"),
    [
        ([], [{"prefix": {"region": "eu"}}], "ac"),
        (["order.placed"], [{"prefix": {"region": "eu"}}], "a"),
        ([], [{"exact": {"source": "/shop/eu"}}, {"suffix": {"region": "east"}}], "c"),
        ([], [{"any": [{"exact": {"urgent": "true"}}, {"exact": {"subject": "s-1"}}]}], "bd"),
        ([], [{"not": {"suffix": {"region": "east"}}}], "ad"),
        ([], [{"all": [{"prefix": {"gifts": "3"}}, {"not": {"exact": {"partitionkey": "k1"}}}]}], "b"),
        ([], [{"exact": {"type": "stock.low"}}], "d"),
    ],
)
async def test_filters_on_attributes_take_the_same(
    server: Server, filters: list[str], attribute_filters: list[dict[str, Any]], taken: str
) -> None:
    async def story(client: Trunkline) -> list[str]:
        await client.publish(ORDERS)
        wanted: Any = {"filters": filters, "attribute_filters": attribute_filters, "start": "earliest"}
        async with client.subscribe(**wanted) as subscription:
            return [one.event.id for one in await take(subscription, len(taken))]

    namespace = f"filters-{taken}-{len(filters)}"
    assert "".join(await told_by_both(server, namespace, story)) == taken


async def test_dead_letters_are_the_same(server: Server) -> None:
    async def story(client: Trunkline) -> list[Any]:
        await make_stream(client, "letters")
        options: Any = {"max_deliveries": 2, "dead_letter_stream": "letters", "start": "earliest"}
        subscription = client.subscribe("billing", **options)
        await client.publish(ORDERS[:3])
        for delivery in await take(subscription, 3):
            if delivery.event.id == "a":
                delivery.ack()
            elif delivery.event.id == "b":
                delivery.term("nonsense")
            else:
                delivery.nack(reason="not now")
        [again] = await take(subscription, 1)
        again.nack(reason="never")
        letters = await take(client.subscribe(stream="letters", start="earliest"), 2)
        subscription.close()
        return [shown(one) for one in letters]

    def shown(letter: Delivery) -> Any:
        event = letter.event
        attributes = {
            name: value for name, value in event.attributes.items() if name not in ("dltime", "dlincarnation")
        }
        return event.type, event.source, event.subject, event.key, event.data, event.id.split("-")[2:], attributes

    first, second = await told_by_both(server, "letters", story)
    assert first[1] == "/trunkline/letters/events/billing"
    assert (first[-1]["dlid"], first[-1]["dlattempts"], first[-1]["dlreason"]) == ("b", 1, "nonsense")
    assert (second[-1]["dlid"], second[-1]["dlattempts"], second[-1]["dloffset"]) == ("c", 2, "2")
    assert second[-1]["dlreason"] == "delivered 2 times; at last it was refused by its consumer: never"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("", {"dead_letter_stream": "letters"}),
        ("billing", {"dead_letter_stream": "events"}),
        ("billing", {"dead_letter_stream": "nowhere"}),
        ("billing", {"attribute_filters": [{"exact": {"no-name": "x"}}]}),
        ("billing", {"attribute_filters": [{"any": []}]}),
    ],
)
async def test_what_is_refused_is_refused_for_the_same_reason(
    server: Server, name: str, options: dict[str, Any]
) -> None:
    async def story(client: Trunkline) -> Any:
        try:
            await client.subscribe(name, start="earliest", **options).opened()
        except TrunklineError as error:
            violations = error.violations if isinstance(error, InvalidArgument) else ()
            return type(error), [(one.field, one.rule, one.value) for one in violations]
        return None

    refused = await told_by_both(server, "refused", story)
    assert refused is not None
    assert refused[0] in (InvalidArgument, StreamNotFound)
