"""What a webhook sends to: an endpoint behind a network in which requests and answers are lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from simulation.chance import between, happens, rng_of
from simulation.clients import NAMESPACE, Client, Part
from simulation.handling.fates import HOOK
from simulation.handling.handlers import make_stream
from yarl import URL

from trunkline.api.v1 import events_pb2
from trunkline.server.events.webhook_outcome import Answer, Result, Silence
from trunkline.server.events.webhook_request import Request

if TYPE_CHECKING:
    from simulation.world import World

URL_TEXT = "https://hooks.example/in"
CONCURRENCY = 4
TIMEOUT_S = 0.8
REFUSED, FAILED, UNHEARD = 4, 8, 16
"""Of a hundred requests those below come to that, until all is calm."""


class Requested(NamedTuple):
    """A request that came to the endpoint."""

    at_s: float
    wall_ns: int
    """What the server's clock showed."""
    life: int
    """Which incarnation of the server sent it."""
    source: str
    id: str
    attempt: int


class Endpoint:
    """Takes most, refuses some, hangs, and answers what gets lost. So little of that that it is not paused for failing."""

    def __init__(self, world: World) -> None:
        self.requests: list[Requested] = []
        self.taken: set[tuple[str, str]] = set()
        """By source and id: what it has handled, whether the server knows or not."""
        self.answered: list[Requested] = []
        """What the server was told is handled, as of when."""
        self.open_max = 0
        self._open = 0
        self._world = world
        self._rng = rng_of(world.seed, "endpoint")

    async def post(self, url: URL, request: Request, *, timeout_s: float) -> Result:
        """See Sender."""
        self._open += 1
        self.open_max = max(self.open_max, self._open)
        try:
            return await self._handle(request, timeout_s)
        finally:
            self._open -= 1

    async def _handle(self, request: Request, timeout_s: float) -> Result:
        await asyncio.sleep(between(self._rng, 0.0, 0.03))
        chance = 100 if self._world.calm else self._rng.below(100)
        if chance < REFUSED:
            return Silence("connection refused", was_sent=False)
        node, headers = self._world.node, request.headers
        now_s = asyncio.get_running_loop().time()
        came = Requested(
            now_s, node.clock.time_ns(), node.life, headers["ce-source"], headers["ce-id"],
            int(headers["trunkline-attempt"]),
        )  # fmt: skip
        self.requests.append(came)
        self._world.history.note("webhook", came.id, came.attempt, chance)
        if chance < FAILED:
            return Answer(503)
        if chance < UNHEARD:
            if happens(self._rng, 50):
                self.taken.add((came.source, came.id))  # and nobody hears of it
            await asyncio.sleep(timeout_s)
            return Silence("no answer", was_sent=True)
        self.taken.add((came.source, came.id))
        self.answered.append(came)
        return Answer(200)

    async def probe(self, url: URL, *, timeout_s: float) -> Result:
        """See Sender."""
        return Answer(405)

    async def close(self) -> None:
        """Nothing is open."""


def webhook_owner() -> Part:
    """Makes the subscription with the webhook, and stays."""

    async def part(client: Client) -> None:
        await make_stream(client, HOOK.dead_letter_stream)
        config = events_pb2.SubscriptionConfig(
            start=events_pb2.StartPosition(earliest=True),
            max_deliveries=HOOK.max_deliveries,
            dead_letter_stream=HOOK.dead_letter_stream,
            webhook=events_pb2.Webhook(url=URL_TEXT, concurrency=CONCURRENCY),
        )
        config.webhook.timeout.FromMilliseconds(int(TIMEOUT_S * 1_000))
        request = events_pb2.CreateSubscriptionRequest(namespace=NAMESPACE, name=HOOK.name, config=config)
        await client.trunkline.call(
            lambda stubs: stubs.events.CreateSubscription, request, events_pb2.CreateSubscriptionResponse
        )
        await client.leaving.wait()

    return part
