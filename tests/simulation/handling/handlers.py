"""Clients whose handling of events goes wrong: always, sometimes, or for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from simulation.chance import between, choose, happens
from simulation.clients import DEAD_LETTERS, NAMESPACE, Client, Part, consume_until_leaving
from simulation.handling.fates import CLINIC, LANES, Taken, event_of

from trunkline.api.v1 import events_pb2
from trunkline.client._delivery import Delivery
from trunkline.core.errors import StreamExists, TrunklineError

Handler = Callable[[Client, Delivery], Awaitable[None]]
CREDIT = 32
HOLD_S = (5.0, 12.0)
"""How long a stuck handler takes."""


def publisher(*, every_s: tuple[float, float], wall_ns: Callable[[], int]) -> Part:
    """Publishes events with fates. `wall_ns` is the server's clock."""

    async def part(client: Client) -> None:
        number = 0
        while await client.rest(*every_s):
            count = choose(client.rng, (1, 2, 5))
            events = [event_of(client, number + place, wall_ns()) for place in range(count)]
            number += count
            try:
                await client.trunkline.publish(events)
            except TrunklineError as error:
                client.history.note("client", client.name, "not published", type(error).__name__)

    return part


def handler(taken: Taken, handle: Handler, *, stays_s: tuple[float, float] | None = None) -> Part:
    """A consumer of a subscription whose failures become dead letters; it leaves when it has stayed for so long."""

    async def part(client: Client) -> None:
        await make_stream(client, DEAD_LETTERS)
        if stays_s is not None:
            asyncio.get_running_loop().call_later(between(client.rng, *stays_s), client.leaving.set)
        subscription = client.trunkline.subscribe(
            taken.name,
            start="earliest",
            credit=CREDIT,
            ordering=taken.ordering,
            max_deliveries=taken.max_deliveries,
            ack_deadline_s=taken.ack_deadline_s,
            backoff_s=taken.backoff_s,
            dead_letter_stream=taken.dead_letter_stream,
            attribute_filters=[{"exact": {"fate": taken.fate}}] if taken.fate else [],
        )
        await consume_until_leaving(client, subscription, lambda delivery: handle(client, delivery))

    return part


async def make_stream(client: Client, name: str) -> None:
    """Make a stream, if it is not there, that recognises no repeats: what it takes has to be published once."""
    config = events_pb2.StreamConfig(namespace=NAMESPACE, name=name)
    config.dedupe_window.FromMilliseconds(0)
    with contextlib.suppress(StreamExists):
        await client.trunkline.call(
            lambda stubs: stubs.events.CreateStream,
            events_pb2.CreateStreamRequest(stream=config, request_id=client.rng.bytes(8).hex()),
            events_pb2.CreateStreamResponse,
        )


def by_fate(calm: Callable[[], bool]) -> Handler:
    """Does with an event what its fate says."""

    async def handle(client: Client, delivery: Delivery) -> None:
        fate = delivery.event.attributes["fate"]
        await asyncio.sleep(between(client.rng, 0.0, 0.03))
        if fate == "unwanted":
            delivery.term(f"unwanted: {delivery.event.id}")
        elif fate == "silent":
            await asyncio.sleep(1.6 * CLINIC.ack_deadline_s)
            delivery.nack(0.0, "it is too late for that")
        elif fate == "doomed" or (fate == "flaky" and not calm() and happens(client.rng, 50)):
            delay_s = None if happens(client.rng, 50) else between(client.rng, 0.0, 0.5)
            delivery.nack(delay_s, f"doomed: {delivery.event.id}")
        else:
            _ack(client, CLINIC, delivery)

    return handle


def when_it_likes(taken: Taken, calm: Callable[[], bool]) -> Handler:
    """Puts off every third event, for as long as the subscription says."""

    async def handle(client: Client, delivery: Delivery) -> None:
        await asyncio.sleep(between(client.rng, 0.0, 0.02))
        if not calm() and happens(client.rng, 33):
            delivery.nack(None, "not now")
        else:
            _ack(client, taken, delivery)

    return handle


def by_key(calm: Callable[[], bool]) -> Handler:
    """Keeps lanes stuck: one by not coming to an end, one by putting off, until all has been calm for long enough."""

    async def handle(client: Client, delivery: Delivery) -> None:
        key = delivery.event.key
        await asyncio.sleep(between(client.rng, 0.0, 0.02))
        if key == "sick":
            delivery.nack(0.1, f"doomed: {delivery.event.id}")
            return
        if key == "stuck-0":
            await _hold(client, delivery, calm)
        elif key == "stuck-1" and delivery.attempt == 1 and not calm():
            delivery.nack(between(client.rng, 3.0, 6.0), "not now")
            return
        _ack(client, LANES, delivery)

    return handle


async def _hold(client: Client, delivery: Delivery, calm: Callable[[], bool]) -> None:
    """Be at it for long, and say so."""
    ends_s = asyncio.get_running_loop().time() + between(client.rng, *HOLD_S)
    while not calm() and asyncio.get_running_loop().time() < ends_s and not client.leaving.is_set():
        await asyncio.sleep(0.3 * LANES.ack_deadline_s)
        delivery.progress()


def _ack(client: Client, taken: Taken, delivery: Delivery) -> None:
    delivery.ack()
    client.history.handled[taken.name].add((delivery.incarnation, delivery.offset))
