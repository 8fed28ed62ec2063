"""What is written and what is kept in memory stays bounded, whatever consumers and publishers do."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from reference.events_on_disk import DiskWorld
from reference.events_world import BY, Client, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import SystemClock
from trunkline.server.events import checkpoint
from trunkline.server.events.publishing import IN_FLIGHT_MAX
from trunkline.server.journal.files.real_disk import RealDisk
from trunkline.server.journal.files.segment_engine import SegmentEngine

EARLIEST = events_pb2.StartPosition(earliest=True)
WIDE = events_pb2.SubscriptionConfig(start=EARLIEST, max_in_flight=10_000)


def test_the_checkpoints_of_a_hundred_thousand_acknowledgements_take_little_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = 16 << 10
    monkeypatch.setattr(checkpoint, "COMPACT_BYTES_MIN", room)

    async def main() -> None:
        world = DiskWorld()
        chance = random.Random(7)
        loop = asyncio.get_running_loop()
        left: set[int] = set()
        async with world.running(crash=True) as bus:
            client = world.connect()
            await client.open(name="billing", config=WIDE, credit=1_000_000)
            begun, largest = loop.time(), 0
            journal: Any = bus.checkpoints._log
            for number in range(100):
                await world.publish(*(f"{number}-{i}" for i in range(1_000)))
                await client.received(1_000 * (number + 1))
                left.update(range(1_000 * number, 1_000 * (number + 1)))
                for _ in range(10):
                    some = chance.sample(sorted(left), min(len(left), 100))
                    left.difference_update(some)
                    await client.ack(*some)
                    await asyncio.sleep(0.02)
                    largest = max(largest, journal.bytes)
            await client.ack(*left)
            await asyncio.sleep(1)
            written = bus.checkpoints.written
            assert written <= (loop.time() - begun) / 0.05 + 100_000 / 1_000 + 1, "more often than every 50 ms"
            assert written >= 400
            assert largest < 3 * room, f"{largest} bytes for {written} checkpoints"
            size = journal.bytes
            await asyncio.sleep(1_000)
            assert (bus.checkpoints.written, journal.bytes) == (written, size), "nothing changed"
        async with world.running() as bus:
            [state] = bus.subscriptions.states("shop", "events")
            assert (state.floor, state.lag) == (100_000, 0)

    virtual(main)


def test_many_subscriptions_are_written_together() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running() as bus:
            clients = [world.connect() for _ in range(100)]
            for number, client in enumerate(clients):
                await client.open(name=f"s{number}", config=WIDE)
            await asyncio.sleep(1)
            syncs = world.disk.syncs
            for batch in range(20):
                await world.publish(*(f"{batch}-{i}" for i in range(10)))
                for client in clients:
                    await client.received(10 * (batch + 1))
                    await client.ack(*range(10 * batch, 10 * batch + 10))
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.2)
            assert all(feed.state.floor == 200 for feed in bus.streams.peek("shop", "events").feeds.values())  # type: ignore[union-attr]
            assert bus.checkpoints.written > 1_000
            assert world.disk.syncs - syncs < 150, "each by itself"

    virtual(main)


class Answers:
    """Takes what PublishStream answers; `full` makes it not ready."""

    def __init__(self) -> None:
        self.ready = True
        self.answers: list[events_pb2.PublishStreamResponse] = []
        self._on_ready: list[Callable[[], None]] = []

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        whole = data if isinstance(data, bytes) else b"".join(data)
        self.answers.append(events_pb2.PublishStreamResponse.FromString(whole))
        return self.ready

    def flush(self) -> None:
        """It is there already."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._on_ready.append(callback)

    def drain(self) -> None:
        self.ready = True
        for callback in self._on_ready:
            callback()


def stream_request(sequence: int, *ids: str, data: bytes = b"") -> bytes:
    request = events_pb2.PublishStreamRequest(
        namespace="shop", sequence=sequence, events=[event(one, data=data) for one in ids]
    )
    return request.SerializeToString()


def test_a_stream_of_publishes_has_so_many_in_flight_and_each_answer_names_its_request() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running() as bus:
            await world.publish("known")
            out, read = Answers(), [0]
            world.faults.slow_sync_ns = 1_000_000_000

            async def requests() -> AsyncIterator[bytes]:
                for sequence in range(1_000):
                    read[0] += 1
                    yield stream_request(sequence, "known" if sequence == 100 else f"n{sequence}")

            serving = asyncio.create_task(world.publishing.publish_stream(requests(), out, BY, lambda _: None))
            await asyncio.sleep(0.5)
            assert [answer.sequence for answer in out.answers] == [100], "the duplicate waits for nobody"
            assert read[0] == IN_FLIGHT_MAX + 2, "answered one, and one read that waits for room"
            out.ready = False
            await asyncio.sleep(30)
            assert len(out.answers) == IN_FLIGHT_MAX + 1, "nothing is taken on while answers are not taken"
            assert read[0] == IN_FLIGHT_MAX + 2
            out.drain()
            async with asyncio.timeout(60):
                await serving
            stream = await bus.streams.get("shop", "", BY)
            assert sorted(answer.sequence for answer in out.answers) == list(range(1_000))
            for answer in out.answers:
                [run] = answer.published
                body = await stream.dispatcher.event_at(run.offset)
                assert body is not None
                expected = "known" if answer.sequence == 100 else f"n{answer.sequence}"
                assert events_pb2.CloudEvent.FromString(bytes(body)).id == expected
                assert run.duplicate == (answer.sequence == 100)

    virtual(main)


def test_large_publishes_are_bounded_by_their_bytes() -> None:
    async def main() -> None:
        world = DiskWorld()
        async with world.running():
            await world.publish("first")
            out, read = Answers(), [0]
            world.faults.slow_sync_ns = 1_000_000_000

            async def requests() -> AsyncIterator[bytes]:
                for sequence in range(40):
                    read[0] += 1
                    yield stream_request(sequence, f"n{sequence}", data=bytes(1 << 20 - 1))

            serving = asyncio.create_task(world.publishing.publish_stream(requests(), out, BY, lambda _: None))
            await asyncio.sleep(0.5)
            assert read[0] <= 2 + (16 << 20) // (1 << 19) + 1
            await serving
            assert len(out.answers) == 40

    virtual(main)


class RealWorld(World):
    """On a real disk, in real time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.clock = SystemClock()  # type: ignore[assignment]
        self.engine = SegmentEngine(str(folder), RealDisk(), self.clock, self.rng)  # type: ignore[assignment]


@pytest.mark.timeout(180)
async def test_a_consumer_that_is_stuck_costs_no_memory_however_much_waits_for_it(tmp_path: Path) -> None:
    world = RealWorld(tmp_path)
    engine: Any = world.engine
    await engine.open()
    async with world.running() as bus:
        durable, own, tap, none = (world.connect() for _ in range(4))
        await durable.open(name="billing", config=WIDE, credit=1_000_000)
        await own.open(config=WIDE, credit=1_000_000)
        await tap.open(no_acknowledgement=True, credit=1_000_000)
        await none.open(name="nobody", config=events_pb2.SubscriptionConfig(start=EARLIEST, max_in_flight=10))
        await world.publish("first")
        for client in (durable, own, tap, none):
            await client.received(1)
        for client in (durable, own, tap):
            client.set_ready(False)
        tracemalloc.start()
        try:
            for number in range(200):
                request = publish_request([event(f"{number}-{i}", data=bytes(850)) for i in range(500)])
                await world.publishing.publish(request, BY, lambda _: None)
            del request
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        stream = await bus.streams.get("shop", "", BY)
        assert stream.dispatcher.end == 100_001
        assert stream.history.bytes > 85 << 20
        assert used < 64 << 20, f"{used >> 20} MiB for {stream.history.bytes >> 20} MiB of events"
        assert len(none.deliveries) == 10
        for client in (tap, own):
            await drained(client, 100_001)
    await engine.close()


async def drained(client: Client, count: int) -> None:
    """It takes again, and acknowledges what it is given: nothing was lost meanwhile."""
    client.set_ready(True)
    done = 0
    async with asyncio.timeout(50):
        while done < count:
            await client.received(done + 1)
            offsets = client.offsets[done:]
            done += len(offsets)
            await client.ack(*offsets)
    assert client.offsets == list(range(count))
