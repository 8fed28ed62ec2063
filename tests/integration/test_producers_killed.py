"""Producers of a real server, on each transport: SIGKILL under load, restarts, and what a client in any language sees."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from integration.processes import Server, serving, trunkline
from integration.waiting import until

from trunkline.api.status import DETAILS_KEY, error_from
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc
from trunkline.client import Event, Trunkline, connect
from trunkline.core.errors import (
    InvalidArgument,
    OutOfOrderSequence,
    ProducerFenced,
    SequenceReused,
    TrunklineError,
    UnknownProducer,
)

KILLS = 3
PUBLISHERS = 3
NAMESPACES = itertools.count()


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_TRANSPORT__KIND", request.param)
        with serving(tmp_path_factory.mktemp("producers")) as running:
            yield running


@pytest.fixture
def namespace() -> str:
    return f"producers-{next(NAMESPACES)}"


async def stored(connection: Trunkline) -> list[str]:
    """The data of all events, in order."""
    found: list[str] = []
    end = (await connection.publish(Event(type="end"))).offsets[0]
    async for delivery in connection.subscribe(start="earliest", acknowledge=False):
        if delivery.offset >= end:
            return found
        found.append(str(delivery.event.data))
    raise AssertionError("the subscription ended")


class Load:
    """A publisher that pipelines numbers until it is told to stop."""

    def __init__(self, connection: Trunkline, name: str) -> None:
        self.name = name
        self.answers: list[asyncio.Future[Any]] = []
        self.answered = 0
        self.stopped = False
        self._connection = connection

    async def run(self) -> None:
        async with self._connection.publisher(producer=self.name, timeout_s=60) as publisher:
            while not self.stopped:
                for _ in range(5):
                    answer = await publisher.send(Event(type="tick", data=f"{self.name} {len(self.answers)}"))
                    answer.add_done_callback(self._count)
                    self.answers.append(answer)
                await asyncio.sleep(0)

    def _count(self, _: object) -> None:
        self.answered += 1


@pytest.mark.timeout(180)
async def test_sigkill_in_full_flight(server: Server, namespace: str) -> None:
    async with connect(server.address, namespace=namespace) as connection:
        loads = [Load(connection, f"p{number}") for number in range(PUBLISHERS)]
        tasks = [asyncio.create_task(load.run()) for load in loads]
        for _ in range(KILLS):
            before = [load.answered for load in loads]
            await until(lambda: all(load.answered > n + 500 for load, n in zip(loads, before, strict=True)))  # noqa: B023
            server.kill()
            await asyncio.to_thread(server.start)
        for load in loads:
            load.stopped = True
        await asyncio.gather(*tasks)
        found = await stored(connection)
        duplicates = 0
        for load in loads:
            mine = [index for index, text in enumerate(found) if text.split()[0] == load.name]
            assert [found[index] for index in mine] == [f"{load.name} {n}" for n in range(len(load.answers))]
            published = [await answer for answer in load.answers]
            assert [one.offsets[0] for one in published] == mine
            duplicates += sum(one.events[0].duplicate for one in published)
        assert duplicates > 0, "no answer was lost: the kills came at the wrong time"


async def refusal(call: Any) -> TrunklineError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailing: Any = caught.value.trailing_metadata()
    details = next(value for key, value in trailing if key == DETAILS_KEY)
    return error_from(caught.value.code().name, caught.value.details() or "", details)


class Raw:
    """Publishes to one stream as a client in any language would."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str, stream: str = "") -> None:
        self.stub: Any = events_pb2_grpc.EventServiceStub(channel)
        self.namespace = namespace
        self.stream = stream

    def call(self, first: int, *ids: str, epoch: int = 1, producer: str = "p", **more: Any) -> Any:
        return self.stub.Publish(
            events_pb2.PublishRequest(
                namespace=self.namespace, stream=self.stream, producer=producer, producer_epoch=epoch,
                first_sequence=first, events=[event(id) for id in ids], **more,
            )
        )  # fmt: skip

    async def publish(self, first: int, *ids: str, **more: Any) -> list[tuple[int, int, bool]]:
        answer = await self.call(first, *ids, **more)
        return [(run.offset, run.count, run.duplicate) for run in answer.published]

    async def make_stream(self, **settings: Any) -> None:
        config = events_pb2.StreamConfig(namespace=self.namespace, name=self.stream, **settings)
        await self.stub.CreateStream(events_pb2.CreateStreamRequest(stream=config))


def event(id: str, **more: Any) -> events_pb2.CloudEvent:
    return events_pb2.CloudEvent(id=id, source="/shop", spec_version="1.0", type="order.placed", **more)


async def test_what_is_said_to_whom(server: Server, namespace: str) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        raw = Raw(channel, namespace)
        assert await raw.publish(1, "a", "b") == [(0, 2, False)]
        assert await raw.publish(2, "b", "c") == [(1, 1, True), (2, 1, False)]
        gap = await refusal(raw.call(5, "e"))
        assert (type(gap), gap.fields) == (OutOfOrderSequence, {"expected": "4"})
        assert isinstance(await refusal(raw.call(3, "other")), SequenceReused)
        assert await raw.publish(1, "n", epoch=2) == [(3, 1, False)]
        fenced = await refusal(raw.call(4, "d"))
        assert (type(fenced), fenced.fields, fenced.status) == (ProducerFenced, {"epoch": "2"}, "FAILED_PRECONDITION")
        assert isinstance(await refusal(raw.call(2, "x", producer="q")), UnknownProducer)
        invalid = await refusal(raw.call(0, "x"))
        assert isinstance(invalid, InvalidArgument)
        assert invalid.violations[0].field == "first_sequence"
        assert await raw.publish(1, "x", producer="q" * 128, expected_offset=4) == [(4, 1, False)]


async def test_a_stream_of_publishes_is_checked_against_what_is_on_its_way(server: Server, namespace: str) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = events_pb2_grpc.EventServiceStub(channel)
        call = stub.PublishStream()
        firsts = [*range(1, 101), 150, *range(90, 121)]
        for sequence, first in enumerate(firsts, 1):
            await call.write(
                events_pb2.PublishStreamRequest(
                    namespace=namespace,
                    sequence=sequence,
                    producer="p",
                    first_sequence=first,
                    events=[event(str(first))],
                )
            )
        answers = {}
        for _ in firsts:
            answer = await call.read()
            answers[answer.sequence] = answer
        await call.done_writing()
        offsets: dict[int, int] = {}
        for sequence, first in enumerate(firsts, 1):
            if first == 150:
                assert answers[sequence].error.reason == "OUT_OF_ORDER_SEQUENCE"
                continue
            [run] = answers[sequence].published
            assert run.duplicate == (first in offsets)
            assert offsets.setdefault(first, run.offset) == run.offset
        assert offsets == {first: first - 1 for first in range(1, 121)}


@pytest.mark.parametrize("clean", [True, False])
async def test_what_a_start_remembers(server: Server, namespace: str, clean: bool) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        raw, gone = Raw(channel, namespace), Raw(channel, namespace, "in-memory")
        await gone.make_stream(sync=common_pb2.SYNC_MEMORY)
        await raw.publish(1, "a", "b", epoch=3)
        await raw.publish(1, "q", producer="q")
        await raw.publish(3, "c", epoch=3)
        await gone.publish(1, "a")
    if clean:
        assert await asyncio.to_thread(server.stop) == 0
    else:
        server.kill()
    await asyncio.to_thread(server.start)
    async with grpc.aio.insecure_channel(server.address) as channel:
        raw, gone = Raw(channel, namespace), Raw(channel, namespace, "in-memory")
        assert await raw.publish(1, "a", "b", "c", "d", epoch=3) == [(0, 2, True), (3, 1, True), (4, 1, False)]
        assert isinstance(await refusal(raw.call(1, "z", epoch=2)), ProducerFenced)
        assert isinstance(await refusal(raw.call(3, "z", producer="q")), OutOfOrderSequence)
        assert isinstance(await refusal(gone.call(2, "b")), UnknownProducer)


async def test_what_a_restored_journal_remembers(tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")
    with serving(tmp_path) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            raw = Raw(channel, "shop")
            await raw.publish(1, "a", "b")
            saved = await asyncio.to_thread(trunkline, "journal", "backup", str(tmp_path / "data"), backup)
            assert saved.returncode == 0, saved.stderr
            await raw.publish(3, "c")
    (tmp_path / "restored").mkdir()
    restored = await asyncio.to_thread(trunkline, "journal", "restore", backup, str(tmp_path / "restored" / "data"))
    assert restored.returncode == 0, restored.stderr
    with serving(tmp_path / "restored") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            raw = Raw(channel, "shop")
            lost = await refusal(raw.call(4, "d"))
            assert (type(lost), lost.fields) == (OutOfOrderSequence, {"expected": "3"})
            assert await raw.publish(1, "a", "b", "c", "d") == [(0, 2, True), (2, 2, False)]


async def test_a_stream_that_was_made_anew_knows_nobody(server: Server, namespace: str) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        raw = Raw(channel, namespace, "again")
        await raw.make_stream()
        await raw.publish(1, "a", epoch=9)
        await raw.stub.DeleteStream(events_pb2.DeleteStreamRequest(namespace=namespace, stream="again"))
        await raw.make_stream()
        assert isinstance(await refusal(raw.call(2, "b", epoch=9)), UnknownProducer)
        assert await raw.publish(1, "a", epoch=1) == [(0, 1, False)]


async def test_a_newer_publisher_of_the_sdk_fences_an_older_one(server: Server, namespace: str) -> None:
    async with connect(server.address, namespace=namespace) as one, connect(server.address, namespace=namespace) as two:
        async with one.publisher(producer="orders-7") as older:
            await older.publish(Event(type="tick", data="a"))
            await asyncio.sleep(0.005)
            async with two.publisher(producer="orders-7") as newer:
                await newer.publish(Event(type="tick", data="b"))
                with pytest.raises(ProducerFenced):
                    await older.publish(Event(type="tick", data="c"))
                assert older.closed
        with suppress(ProducerFenced):
            await older.close()
        assert await stored(one) == ["a", "b"]
