"""Sinks and listeners over real sockets: coalescing, pausing, peers that do not read, taken addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop
from integration.chain_server import Running, register_request, running
from integration.transports import new_transport

from trunkline.api.v1 import discovery_pb2, registry_pb2, registry_pb2_grpc
from trunkline.core.errors import InvalidArgument, LimitExceeded
from trunkline.server.chain.config import ChainConfig
from trunkline.server.transport.config import TransportConfig
from trunkline.server.transport.listener import Listener
from trunkline.server.transport.sink import Sink, SinkConfig

EACH_TRANSPORT = True

OPEN = discovery_pb2.WatchRequest(open=discovery_pb2.OpenWatch(watch_id=1, namespace="shop"))


def event(revision: int, size: int = 0) -> bytes:
    """One encoded piece of a WatchResponse."""
    token = b"x" * size
    response = discovery_pb2.WatchResponse(events=[discovery_pb2.WatchEvent(revision=revision, resume_token=token)])
    return response.SerializeToString()


async def open_watch(server: Running) -> tuple[Any, Any]:
    """A Watch call that is being served, and the server's end of it."""
    call = server.discovery_stub.Watch()
    await call.write(OPEN)
    return call, await server.discovery.opened.get()


def fill(sink: Sink) -> None:
    """Offer as long as the sink is ready, now and whenever it is again."""

    def offer() -> None:
        while sink.offer(event(1, 100_000)):
            pass

    sink.on_ready(offer)
    offer()


async def test_pieces_that_wait_are_one_message() -> None:
    async with running() as server:
        call, sink = await open_watch(server)
        assert sink.offer(event(1))
        assert sink.offer([event(2), event(3)])
        assert [e.revision for e in (await call.read()).events] == [1, 2, 3]
        assert sink.offer(event(4))
        assert [e.revision for e in (await call.read()).events] == [4]
        assert (await server.discovery.requests.get()) == OPEN


async def test_what_was_offered_is_written_before_the_stream_ends() -> None:
    async with running() as server:
        call, sink = await open_watch(server)
        await server.discovery.requests.get()
        for revision in range(1, 6):
            sink.offer(event(revision, 200_000))
        await call.done_writing()
        seen = [e.revision async for response in call for e in response.events]
        assert seen == [1, 2, 3, 4, 5]
        assert await call.code() is grpc.StatusCode.OK


async def test_a_sink_pauses_its_writer_until_the_peer_has_read() -> None:
    async with running() as server:
        call, sink = await open_watch(server)
        ready = asyncio.Event()
        sink.on_ready(ready.set)
        offered = 0
        while sink.offer(event(offered + 1, 100_000)):
            offered += 1
            await asyncio.sleep(0)
            assert offered < 10_000
        last = offered + 1
        seen = 0
        async for response in call:
            seen = response.events[-1].revision
            if seen == last:
                break
        await ready.wait()
        assert sink.ready
        assert sink.pending_bytes == 0


async def test_a_stream_that_is_offered_too_much_is_ended_and_lets_go_of_it() -> None:
    config = SinkConfig(high_water_bytes=100_000, low_water_bytes=10_000, pending_bytes_max=1_000_000)
    async with running(sink=config) as server:
        call, sink = await open_watch(server)
        for _ in range(11):
            sink.offer(event(1, 100_000))
        error = await server.discovery.sink_errors.get()
        assert isinstance(error, LimitExceeded)
        assert error.fields["limit"] == "sink_pending_bytes_max"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in call:
                pass
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_peer_that_does_not_read_is_given_up() -> None:
    config = ChainConfig(refusal_timeout_ms=100)
    async with running(sink=SinkConfig(write_timeout_ms=200), config=config) as server:
        call, sink = await open_watch(server)
        await server.discovery.requests.get()
        fill(sink)
        error = await server.discovery.sink_errors.get()
        assert isinstance(error, LimitExceeded)
        assert error.fields["limit"] == "sink_write_timeout_ms"
        assert server.counted("Watch") == {"RESOURCE_EXHAUSTED": 1}
        other, other_sink = await open_watch(server)
        other_sink.offer(event(9))
        assert [e.revision for e in (await other.read()).events] == [9]
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        await other.done_writing()
        assert await other.read() is grpc.aio.EOF


async def test_a_client_that_goes_ends_the_stream() -> None:
    async with running() as server:
        call, sink = await open_watch(server)
        call.cancel()
        while server.counted("Watch") != {"CANCELLED": 1}:  # noqa: ASYNC110 - nothing tells when a call was counted
            await asyncio.sleep(0)
        assert not sink.offer(event(1))


async def test_unix_sockets_serve_and_are_not_taken_away(tmp_path: Path) -> None:
    listener = Listener(address=f"unix:{tmp_path}/trunkline.sock")
    # Or the second channel may find the first one's connection, before gRPC has seen its end.
    apart = [("grpc.use_local_subchannel_pool", 1)]
    async with running(listener=listener, channel_options=apart) as server:
        assert (await server.registry_stub.Register(register_request())).lease_id == 7
        second = new_transport(None, [listener])
        with pytest.raises(InvalidArgument, match="is taken"):
            await second.start()
        assert (await server.registry_stub.Register(register_request())).lease_id == 7
    async with running(listener=listener, channel_options=apart) as server:
        assert (await server.registry_stub.Register(register_request())).lease_id == 7


async def test_a_taken_port_is_noticed() -> None:
    async with running() as server:
        second = new_transport(None, [Listener(address=server.address)])
        with pytest.raises(InvalidArgument, match="is taken"):
            await second.start()


async def test_several_listeners() -> None:
    async with running() as server:
        transport = new_transport(None, [Listener(address="127.0.0.1:0"), Listener(address="[::1]:0")])
        methods = {
            name.rpartition("/")[2]: handler
            for name, handler in server.chain._composed.items()
            if "RegistryService" in name
        }
        transport.add_registered_method_handlers("trunkline.api.v1.RegistryService", methods)
        addresses = await transport.start()
        try:
            for address in addresses:
                assert not address.endswith(":0")
                async with grpc.aio.insecure_channel(address) as channel:
                    stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
                    assert (await stub.Register(register_request())).lease_id == 7
        finally:
            await transport.stop(0)
        await transport.wait()


async def test_a_request_that_inflates_beyond_the_limit_ends_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with running(transport_config=TransportConfig(receive_message_bytes_max=100_000)) as server:
        other, _ = await open_watch(server)
        call: Any = server.channel.stream_stream("/trunkline.api.v1.DiscoveryService/Watch")(
            compression=grpc.Compression.Gzip, timeout=10
        )
        await call.write(OPEN.SerializeToString())
        await server.discovery.opened.get()
        await call.write(bytes(100_001))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not other.done()
        if isinstance(asyncio.get_running_loop(), uvloop.Loop):  # grpc.aio does not tell
            assert server.counted("Watch") == {"RESOURCE_EXHAUSTED": 1}
        assert not caplog.records, "a peer must not be able to fill the log"


async def test_requests_are_answered_no_faster_than_the_client_takes_the_answers() -> None:
    many = 3_000
    window: list[tuple[str, Any]] = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
    async with running(channel_options=window) as server, asyncio.timeout(60):
        call = server.registry_stub.KeepAlive()
        asked = registry_pb2.KeepAliveRequest(lease_ids=[1, 2])

        async def ask() -> None:
            for _ in range(many):
                await call.write(asked)
            await call.done_writing()

        asking = asyncio.create_task(ask())
        answered = -1
        while answered != server.registry.answered:  # until it does not go on
            answered = server.registry.answered
            await asyncio.sleep(0.5)
        assert 0 < answered < many
        assert [answer.renewed async for answer in call] == [2] * many
        await asking
