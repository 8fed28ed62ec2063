"""A watching client without the SDK: it resumes at any token that it was ever given, and acknowledges when it likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from simulation.chance import between, happens
from simulation.clients import NAMESPACE, Client, Part
from simulation.history import Resumption, Watched

from reference.watch import ModelWatcher
from trunkline.api.v1 import discovery_pb2_grpc
from trunkline.api.v1.discovery_pb2 import AcknowledgeWatch, OpenWatch, WatchRequest
from trunkline.core.selector import Selector

CREDIT = 3

Look = Callable[[], None]


def _unseen(client: Client, model: ModelWatcher) -> Look:
    return lambda: None


def raw_watcher(service: str, begins: Callable[[Client, ModelWatcher], Look] = _unseen) -> Part:
    """Watches a service of the namespace (all of them if empty), in many short stretches.

    `begins` is called before each of them, and what it gives after each event.
    """

    async def part(client: Client) -> None:
        model = ModelWatcher(1)
        while not client.leaving.is_set():
            channel = client.dial()
            try:
                await _stretch(client, model, service, channel, begins)
            finally:
                await channel.close()
            await client.rest(0.05, 0.8)

    return part


async def _stretch(
    client: Client, model: ModelWatcher, service: str, channel: Any, begins: Callable[[Client, ModelWatcher], Look]
) -> None:
    """One stream, from a token or from nothing, until it breaks or has lasted long enough."""
    if model.ended or not happens(client.rng, 85):
        model.token = b""
    elif model.tokens and happens(client.rng, 40):
        model.go_back_to(client.rng.below(len(model.tokens)))
    before = model.seen[-1] if model.token and model.seen else None
    if before is not None and before.revision != model.revision:
        before = next((seen for seen in reversed(model.seen) if seen.revision == model.revision), None)
    model.reopened(resumed=bool(model.token))
    model.seen = []
    watched = Watched("raw", service, Selector(), seen=model.seen)
    client.history.watches.append(watched)
    client.history.resumptions.append(Resumption(before, model.seen))
    look = begins(client, model)
    call = discovery_pb2_grpc.DiscoveryServiceStub(channel).Watch()
    with contextlib.suppress(grpc.RpcError, TimeoutError, asyncio.InvalidStateError):
        async with asyncio.timeout(between(client.rng, 0.1, 6.0)):
            opened = OpenWatch(
                watch_id=1, namespace=NAMESPACE, service=service, resume_token=model.token, credit=CREDIT, client="raw"
            )
            await call.write(WatchRequest(open=opened))
            while (response := await call.read()) is not grpc.aio.EOF and not model.ended:
                for event in response.events:
                    model.apply(event)
                    look()
                client.history.note("raw", client.name, model.revision, len(model.view))
                if happens(client.rng, 30):
                    await asyncio.sleep(between(client.rng, 0.0, 0.5))
                if happens(client.rng, 90) and not model.ended:
                    acknowledged = AcknowledgeWatch(watch_id=1, revision=model.revision)
                    await call.write(WatchRequest(acknowledge=acknowledged))
    call.cancel()
