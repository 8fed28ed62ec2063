"""A real server compacts a stream under load, beside readers and a backup, and is killed: no key loses its last event."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from integration.acknowledged import OPTIONS
from integration.processes import Server, serving, trunkline
from integration.waiting import until

from trunkline.api.v1 import events_pb2
from trunkline.client import Delivery, Event, Trunkline, connect

KILLS = 4
KEYS = 40
EVENTS_BETWEEN_KILLS = 1_500
EAGER = """
[events.compaction]
interval_s = 0.05
dirty_bytes_min = 20000
dirty_ratio = 0.2
"""


async def make(connected: Trunkline) -> None:
    config = events_pb2.StreamConfig(
        namespace="default",
        name="prices",
        dedupe_window=Duration(),
        compaction=events_pb2.StreamConfig.Compaction(min_lag=Duration()),
    )
    await connected.call(
        lambda stubs: stubs.events.CreateStream,
        events_pb2.CreateStreamRequest(stream=config),
        events_pb2.CreateStreamResponse,
    )


async def state_of(connected: Trunkline) -> events_pb2.StreamState:
    answer = await connected.call(
        lambda stubs: stubs.events.ListStreams,
        events_pb2.ListStreamsRequest(namespace="default"),
        events_pb2.ListStreamsResponse,
    )
    return next(stream for stream in answer.streams if stream.config.name == "prices")


class Prices:
    """One publisher that counts up, each event of the next key; of each key the last number that was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.sent = 0

    async def publish(self, connected: Trunkline) -> None:
        while True:
            numbers = range(self.sent, self.sent + 20)
            self.sent += 20
            await connected.publish(
                [Event(type="price", key=f"k{n % KEYS}", data=str(n), id=str(n)) for n in numbers],
                stream="prices",
                timeout_s=60,
            )
            self.acknowledged.update((f"k{n % KEYS}", n) for n in numbers)

    async def broken(self, connected: Trunkline, **start: object) -> list[str]:
        """What a reader of the whole stream misses, or sees in the wrong order."""
        end = (await state_of(connected)).next_offset
        wanted = dict(self.acknowledged)
        last: dict[str, int] = {}
        problems = []
        async with connected.subscribe(stream="prices", acknowledge=False, credit=10_000, **start) as reader:  # type: ignore[arg-type]
            async with asyncio.timeout(30):
                while any(last.get(key, -1) < number for key, number in wanted.items()):
                    delivery = await reader.next()
                    assert delivery is not None
                    key, number = delivery.event.key, int(str(delivery.event.data))
                    if number <= last.get(key, -1):
                        problems.append(f"{number} of {key} after {last[key]}")
                    if delivery.offset < end and start.get("start") == "last_per_key" and key in last:
                        problems.append(f"{key} twice, at {delivery.offset} of {end}")
                    last[key] = number
        return problems


async def backed_up(server: Server, tmp_path: Path) -> None:
    """Take a backup of the running server and look at it."""
    target = tmp_path / "backup"
    shutil.rmtree(target, ignore_errors=True)
    arguments = ("journal", "backup", str(server.folder / "data"), str(target))
    done = await asyncio.to_thread(trunkline, *arguments)
    assert done.returncode == 0, done.stderr
    checked = await asyncio.to_thread(trunkline, "journal", "check", str(target))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.timeout(180)
async def test_no_key_loses_its_last_event(tmp_path: Path) -> None:
    config = tmp_path / "eager.toml"
    config.write_text(EAGER)
    prices = Prices()
    seen: dict[str, int] = {}

    async def consume(delivery: Delivery) -> None:
        number, key = int(str(delivery.event.data)), delivery.event.key
        if delivery.attempt == 1:
            assert number > seen.get(key, -1) or number in again, "an older one after a newer one"
        again.add(number)
        seen[key] = max(seen.get(key, -1), number)

    again: set[int] = set()
    with serving(tmp_path, "--config", str(config)) as server:
        async with connect(server.address, options=OPTIONS, name="prices") as connected:
            await make(connected)
            publishing = asyncio.create_task(prices.publish(connected))
            await until(lambda: prices.sent > 200)
            durable = connected.subscribe(
                "follower", stream="prices", start="last_per_key", ordering="keyed", credit=50
            )
            consuming = asyncio.create_task(durable.consume(consume, concurrency=20))
            for kill in range(KILLS):
                target = prices.sent + EVENTS_BETWEEN_KILLS
                await until(lambda target=target: publishing.done() or prices.sent > target)  # type: ignore[misc]
                assert not publishing.done(), publishing.exception()
                if kill % 2:
                    await backed_up(server, tmp_path)
                server.kill()
                await asyncio.to_thread(server.start)
                assert await prices.broken(connected, start="earliest") == []
                assert await prices.broken(connected, start="last_per_key") == []
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            assert not consuming.done(), consuming.exception()
            await until(lambda: all(seen.get(key, -1) >= number for key, number in prices.acknowledged.items()))
            durable.close()
            await consuming
            state = await state_of(connected)
            assert state.compaction.passes >= KILLS
            assert state.compaction.removed_events > state.next_offset // 2, state
    checked = trunkline("journal", "check", str(tmp_path / "data"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
