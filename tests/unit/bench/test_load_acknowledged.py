"""The load client as a consumer: each delivery is acknowledged once, where it came from, and credit comes back with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from bench.load.batches import MARK, NUMBER
from bench.load.client.fanout import Delivered, Fanout, deliver
from trunkline.api.v1 import events_pb2

SUBSCRIBE, PUBLISH = "/bench.Test/Subscribe", "/bench.Test/Publish"
EVENT = (MARK + NUMBER).ljust(200, b".")
BODIES, REPETITIONS = 30, 2
TOLD = BODIES * (REPETITIONS + 1)


class Stream(grpc.GenericRpcHandler):
    """Delivers what is published to its one subscriber; offsets have all lengths."""

    def __init__(self) -> None:
        self.asked: list[events_pb2.SubscribeRequest] = []
        self.offsets: list[int] = []
        self._told: asyncio.Queue[bytes] = asyncio.Queue()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == SUBSCRIBE:
            return grpc.stream_stream_rpc_method_handler(self._subscribe)
        return grpc.unary_unary_rpc_method_handler(self._publish)

    async def _publish(self, body: bytes, context: Any) -> bytes:
        response = events_pb2.SubscribeResponse()
        response.header.revision = 1 << 50
        for _ in range(2):  # the second bears no mark of its own
            self.offsets.append(len(self.offsets) ** 5)
            delivery = response.deliveries.add(subscription_id=1, attempt=1, offset=self.offsets[-1], time_ns=1 << 60)
            delivery.event.id = "some"
        delivery.event.binary_data = body
        await self._told.put(response.SerializeToString())
        return b""

    async def _subscribe(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        notice = events_pb2.SubscriptionNotice(subscription_id=1)
        reading = asyncio.create_task(self._read(requests))
        try:
            yield events_pb2.SubscribeResponse(notices=[notice]).SerializeToString()
            while True:
                yield await self._told.get()
        finally:
            reading.cancel()

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for request in requests:
            self.asked.append(events_pb2.SubscribeRequest.FromString(request))


async def test_every_delivery_of_grpc_is_acknowledged_at_its_offset() -> None:
    stream = Stream()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((stream,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    opening = events_pb2.SubscribeRequest(open=events_pb2.OpenSubscription(subscription_id=1, credit=10))
    fanout = Fanout(
        protocol="grpc",
        opening=opening.SerializeToString(),
        body=EVENT,
        events=1,
        subscribers=1,
        subscribe_path=SUBSCRIBE,
        publish_path=PUBLISH,
        in_flight=4,
        acknowledge=True,
    )
    try:
        await delivered(f"127.0.0.1:{port}", fanout)
    finally:
        await server.stop(None)
    first, *later = stream.asked
    assert first == opening
    said = [(one.acknowledgements[0], one.credits[0]) for one in later]
    assert all(len(one.acknowledgements) == len(one.credits) == 1 and not one.HasField("open") for one in later)
    offsets = [offset for acknowledgement, _ in said for offset in acknowledgement.offsets]
    assert len(offsets) > 2 * (TOLD - 4), "the last may be lost with the connection"
    assert offsets == stream.offsets[: len(offsets)]
    assert all(credit.credit == len(acknowledgement.offsets) for acknowledgement, credit in said)
    assert {acknowledgement.outcome for acknowledgement, _ in said} == {events_pb2.Acknowledgement.OUTCOME_ACK}
    assert {one.subscription_id for pair in said for one in pair} == {1}


class JetStream:
    """As much of it as a stream and a consumer that is pushed to need."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.acknowledged: list[bytes] = []
        self.unanswered_most = 0
        self._refuses = refuses
        self._published = self._answered = 0
        self._subscriber: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {}\r\n")
        while line := await reader.readline():
            word, *rest = line.split()
            if word == b"PING":
                writer.write(b"PONG\r\n")
            elif word == b"SUB" and rest[0] == b"pushed":
                self._subscriber = writer
            elif word == b"PUB":
                payload = await reader.readexactly(int(rest[-1]) + 2)
                self._published_to(rest[0], payload, writer)

    def _published_to(self, subject: bytes, payload: bytes, publisher: asyncio.StreamWriter) -> None:
        if subject.startswith(b"$JS.ACK."):
            assert payload == b"+ACK\r\n"
            self.acknowledged.append(subject)
            return
        self._published += 1
        self.unanswered_most = max(self.unanswered_most, self._published - self._answered)
        assert self._subscriber is not None
        self._subscriber.write(b"MSG events 1 $JS.ACK.%d 200\r\n%s" % (self._published, payload))
        asyncio.get_running_loop().call_later(0.002, self._answer, publisher)

    def _answer(self, publisher: asyncio.StreamWriter) -> None:
        self._answered += 1
        said = b'{"error":{"code":503}}' if self._refuses else b'{"stream":"S","seq":%d}' % self._answered
        if not publisher.is_closing():
            publisher.write(b"MSG acks 2 %d\r\n%s\r\n" % (len(said), said))


async def jetstream_delivers(jetstream: JetStream, *, in_flight: int = 4) -> list[Delivered]:
    server = await asyncio.start_server(jetstream.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    fanout = Fanout(
        protocol="nats",
        opening=b"SUB pushed 1\r\n",
        body=b"PUB events acks 200\r\n%s\r\n" % EVENT,
        events=1,
        subscribers=1,
        in_flight=in_flight,
        acknowledge=True,
    )
    try:
        return await delivered(f"{host}:{port}", fanout)
    finally:
        server.close()
        await server.wait_closed()


async def delivered(address: str, fanout: Fanout) -> list[Delivered]:
    """The servers are in this process, so the client must not hold up its loop."""
    return await asyncio.to_thread(deliver, address, fanout, bodies=BODIES, repetitions=REPETITIONS, within_s=20)


async def test_every_delivery_of_jetstream_is_acknowledged_where_it_says() -> None:
    jetstream = JetStream()
    assert len(await jetstream_delivers(jetstream)) == REPETITIONS
    said = jetstream.acknowledged
    assert said == [b"$JS.ACK.%d" % number for number in range(1, len(said) + 1)]
    assert len(said) > TOLD - 4, "the last may be lost with the connection"


async def test_no_more_publishes_are_on_their_way_than_asked_for() -> None:
    jetstream = JetStream()
    await jetstream_delivers(jetstream, in_flight=2)
    assert jetstream.unanswered_most == 2


async def test_a_publish_that_jetstream_refuses_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="JetStream refuses"):
        await jetstream_delivers(JetStream(refuses=True))
