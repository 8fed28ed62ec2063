"""SIGKILL of a real server under load, several times in a row: what it acknowledged is found again, all of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.acknowledged import OPTIONS, Ledger, Load, audit, make_stream
from integration.processes import serving
from integration.waiting import until

from trunkline.client import Delivery, connect
from trunkline.core.model import Sync

KILLS = 4
EVENTS_BETWEEN_KILLS = 800
INSTANCES_BETWEEN_KILLS = 60
STREAMS = ("events", "written")
"""FSYNCED and WRITTEN: the death of a process takes nothing from either."""


@asynccontextmanager
async def running(load: Load) -> AsyncIterator[None]:
    """The load beside the test; what breaks it, breaks the test."""
    task = asyncio.create_task(load.run())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def more(ledger: Ledger) -> None:
    """Wait for acknowledgements of every kind since now."""
    events = {stream: len(ledger.events[stream]) for stream in STREAMS}
    instances, made = len(ledger.instances), len(ledger.tokens)
    await until(
        lambda: (
            all(len(ledger.events[stream]) > before + EVENTS_BETWEEN_KILLS for stream, before in events.items())
            and len(ledger.instances) > instances + INSTANCES_BETWEEN_KILLS
            and len(ledger.tokens) > made + 1
        )
    )


@pytest.mark.timeout(120)
async def test_what_was_acknowledged_outlives_sigkill_under_load(tmp_path: Path) -> None:
    ledger = Ledger()
    seen: Counter[str] = Counter()

    async def consume(delivery: Delivery) -> None:
        seen[delivery.event.id] += 1

    with serving(tmp_path) as server:
        await make_stream(server.address, "written", Sync.WRITTEN)
        load = Load(server.address, ledger, streams=STREAMS)
        async with connect(server.address, options=OPTIONS, name="consumer") as trunkline:
            subscription = trunkline.subscribe("reader", start="earliest", credit=500)
            consuming = asyncio.create_task(subscription.consume(consume, concurrency=50))
            async with running(load):
                for _ in range(KILLS):
                    await more(ledger)
                    server.kill()
                    await asyncio.to_thread(server.start)
                await more(ledger)
                assert await audit(server.address, ledger, streams=STREAMS) == []
            acknowledged = set(ledger.events["events"].values())
            await until(lambda: consuming.done() or acknowledged <= seen.keys())
            assert not consuming.done(), "a kill does not end a consumer"
            subscription.close()
            await consuming
    assert seen.keys() <= ledger.sent.keys(), "nothing is delivered that nobody sent"
    repeated = sum(seen.values()) - len(seen)
    assert repeated <= KILLS * 1_500, (
        f"{repeated} of {len(seen)} came again: a kill repeats what was open, not everything"
    )
