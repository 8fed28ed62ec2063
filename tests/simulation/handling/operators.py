"""Who moves subscriptions, and has dead letters' events delivered again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from simulation.chance import choose, happens
from simulation.clients import DEAD_LETTERS, NAMESPACE, Client, Part
from simulation.handling.fates import CLINIC, MOVED
from simulation.handling.handlers import make_stream

from trunkline.api.v1 import events_pb2
from trunkline.client._event import Event
from trunkline.client._subscription import Subscription
from trunkline.client._subscription_options import Start
from trunkline.core.errors import TrunklineError

BACK_MAX = 20
"""How many events back a subscription is moved, mostly."""


def operator(calm: Callable[[], bool]) -> Part:
    """Looks at dead letters, has some delivered again, and moves MOVED about, until all is calm."""

    async def part(client: Client) -> None:
        await make_stream(client, DEAD_LETTERS)
        letters: list[Event] = []
        tap = client.trunkline.subscribe(stream=DEAD_LETTERS, start="earliest", acknowledge=False)
        reading = asyncio.get_running_loop().create_task(_read(tap, letters))
        while await client.rest(0.3, 1.5):
            if calm():
                continue
            with contextlib.suppress(TrunklineError):
                if happens(client.rng, 50):
                    await client.trunkline.seek(MOVED.name, _place(client))
                elif letters:
                    await _redeliver(client, letters)
        tap.close()
        await reading

    return part


async def _read(tap: Subscription, letters: list[Event]) -> None:
    while (delivery := await tap.next()) is not None:
        if delivery.event.attributes["dlsubscription"] == CLINIC.name:
            letters.append(delivery.event)


def _place(client: Client) -> Start:
    known = client.history.events[-1].offset if client.history.events else 0
    back = max(0, known - client.rng.below(BACK_MAX))
    return choose(client.rng, ("earliest", "latest", *[back] * 8))


async def _redeliver(client: Client, letters: list[Event]) -> None:
    chosen = [choose(client.rng, letters) for _ in range(1 + client.rng.below(3))]
    request = events_pb2.RedeliverEventsRequest(
        namespace=NAMESPACE,
        subscription=CLINIC.name,
        offsets=sorted({int(str(letter.attributes["dloffset"])) for letter in chosen}),
        incarnation=int(str(chosen[0].attributes["dlincarnation"])),
    )
    await client.trunkline.call(lambda stubs: stubs.events.RedeliverEvents, request, events_pb2.RedeliverEventsResponse)
