"""One consumer that takes so many events with an empty handler and acknowledges each: ours, or nats-py's.

`python -m bench.load.drain ours|nats ADDRESS NAMESPACE NAME COUNT` on asyncio's own loop; says events a second, from when
it asks until the server has its last acknowledgement.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from trunkline.client import Delivery, connect

TOGETHER = 256
"""Deliveries on their way to a consumer: the credit of ours by default, and a batch of nats-py's."""
WITHIN_S = 120
NATS_STREAM = "BENCH"
NATS_SUBJECTS = "bench.events.*"


async def drain_ours(address: str, namespace: str, name: str, count: int) -> float:
    """Seconds for a durable subscription, one event at a time of each key."""
    left = count

    async def handle(_: Delivery) -> None:
        nonlocal left
        left -= 1
        if not left:
            subscription.close()

    async with connect(address, namespace=namespace) as trunkline:
        began = time.perf_counter()
        async with trunkline.subscribe(name, ordering="keyed", start="earliest", credit=TOGETHER) as subscription:
            await subscription.consume(handle, concurrency=TOGETHER)
        return time.perf_counter() - began


async def drain_nats(address: str, _: str, name: str, count: int) -> float:
    """Seconds for a durable pull consumer."""
    import nats

    left = count

    async def handle(message: Any) -> None:
        nonlocal left
        left -= 1

    client = await nats.connect(f"nats://{address}")
    try:
        began = time.perf_counter()
        subscription = await client.jetstream().pull_subscribe(NATS_SUBJECTS, durable=name, stream=NATS_STREAM)
        while left:
            for message in await subscription.fetch(min(TOGETHER, left), timeout=10):
                await handle(message)
                await message.ack()
        await client.flush()
        return time.perf_counter() - began
    finally:
        await client.close()


DRAINS: dict[str, Callable[[str, str, str, int], Awaitable[float]]] = {"ours": drain_ours, "nats": drain_nats}


async def main(side: str, address: str, namespace: str, name: str, *, count: int) -> None:
    """Measure, and say it."""
    async with asyncio.timeout(WITHIN_S):
        seconds = await DRAINS[side](address, namespace, name, count)
    sys.stdout.write(f"{count / seconds:.1f}\n")


if __name__ == "__main__":
    _, chosen, *place, wanted = sys.argv
    asyncio.run(main(chosen, *place, count=int(wanted)))
