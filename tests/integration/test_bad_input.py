"""Bad input over a real channel: the right status, naming field, rule and value; nothing changes; the server goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from integration.acknowledged import Plane, plain
from integration.bad_requests import BAD, Bad, event, instance, publish
from integration.processes import Server, serving

from trunkline.api.v1 import admin_pb2, common_pb2, discovery_pb2, events_pb2, registry_pb2
from trunkline.core.token import ControlToken, EventToken

KIND_ENDED = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        asyncio.run(furnish(running.address))
        yield running


async def furnish(address: str) -> None:
    """Something that bad input could damage."""
    async with plain(address) as plane:
        good = instance()
        good.service, good.id = "good", "good-1"
        request = registry_pb2.RegisterRequest(instance=good, lease_secret=b"0123456789abcdef")
        request.ttl.seconds = 300
        await plane.registry.Register(request, timeout=10)
        stream = events_pb2.StreamConfig(namespace="default", name="kept")
        await plane.events.CreateStream(events_pb2.CreateStreamRequest(stream=stream), timeout=10)
        await plane.events.Publish(publish(event(id="kept", type="kept")), timeout=10)
        subscription = events_pb2.CreateSubscriptionRequest(namespace="default", name="kept")
        await plane.events.CreateSubscription(subscription, timeout=10)


@pytest.fixture
async def plane(server: Server) -> AsyncIterator[Plane]:
    async with plain(server.address) as stubs:
        yield stubs


async def state(plane: Plane) -> tuple[Any, ...]:
    """Everything that could have changed."""
    status = await plane.admin.Status(admin_pb2.StatusRequest(), timeout=10)
    streams = await plane.events.ListStreams(events_pb2.ListStreamsRequest(), timeout=10)
    tokens = await plane.admin.ListTokens(admin_pb2.ListTokensRequest(), timeout=10)
    offsets = tuple((s.config.namespace, s.config.name, s.next_offset) for s in streams.streams)
    return status.header.revision, status.instances, offsets, len(tokens.tokens), status.subscriptions


async def call(plane: Plane, method: str, request: bytes) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    raw: Any = plane.channel.unary_unary(f"/trunkline.api.v1.{method}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(request, timeout=20)
    return caught.value


def details_of(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, broken = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(broken)
    assert status.code == error.code().value[0] if status.details else True
    return info, broken


@pytest.mark.parametrize("bad", BAD, ids=str)
async def test_it_is_refused_by_name_and_nothing_changes(plane: Plane, bad: Bad) -> None:
    before = await state(plane)
    request = bad.request if isinstance(bad.request, bytes) else bad.request.SerializeToString()
    error = await call(plane, bad.method, request)
    info, broken = details_of(error)
    assert (error.code().name, info.reason) == (bad.status, bad.reason), error.details()
    assert info.domain == "trunkline"
    assert error.details()
    assert len(error.details() or "") <= 1_100, "a message for people, not the request again"
    if bad.field:
        fields = [violation.field for violation in broken.field_violations]
        assert any(field.startswith(bad.field) for field in fields), (fields, error.details())
        assert all(violation.description for violation in broken.field_violations)
    assert await state(plane) == before


async def test_a_refusal_names_field_rule_and_value(plane: Plane) -> None:
    request = discovery_pb2.ResolveRequest(namespace="default", service="Not A Name")
    error = await call(plane, "DiscoveryService/Resolve", request.SerializeToString())
    (violation,) = details_of(error)[1].field_violations
    assert violation.field == "service"
    assert "63" in violation.description, "the rule"
    assert "Not A Name" in violation.description, "the value"


async def test_every_broken_rule_is_told_at_once(plane: Plane) -> None:
    request = discovery_pb2.ResolveRequest(namespace="Bad One", service="Bad Two")
    error = await call(plane, "DiscoveryService/Resolve", request.SerializeToString())
    assert {v.field for v in details_of(error)[1].field_violations} == {"namespace", "service"}


async def test_an_oversize_message_is_refused_and_the_connection_lives(plane: Plane) -> None:
    before = await state(plane)
    error = await call(plane, "EventService/Publish", bytes(17 << 20))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await state(plane) == before


async def test_an_unknown_method_is_unimplemented(plane: Plane) -> None:
    error = await call(plane, "RegistryService/Surprise", b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_unknown_leases_are_told_and_break_nothing(plane: Plane) -> None:
    answer = await plane.registry.KeepAliveOnce(registry_pb2.KeepAliveOnceRequest(lease_ids=[1, 2]), timeout=10)
    unknown = registry_pb2.LostLease.REASON_UNKNOWN
    assert [(lost.lease_id, lost.reason) for lost in answer.lost] == [(1, unknown), (2, unknown)]
    gone = registry_pb2.RegistrationRef(namespace="default", lease_id=1)
    done = await plane.registry.Deregister(registry_pb2.DeregisterRequest(registration=gone), timeout=10)
    assert not done.changed


async def ended_watch(plane: Plane, opening: discovery_pb2.OpenWatch) -> common_pb2.Failure:
    """Why a watch ended, while another one on the same stream goes on."""
    stream = plane.discovery.Watch()
    other = discovery_pb2.OpenWatch(watch_id=1, namespace="default", service="good")
    await stream.write(discovery_pb2.WatchRequest(open=other))
    await stream.write(discovery_pb2.WatchRequest(open=opening))
    seen_other = False
    ended: common_pb2.Failure | None = None
    async with asyncio.timeout(10):
        while ended is None or not seen_other:
            for told in (await stream.read()).events:
                seen_other |= told.watch_id == 1 and bool(told.upserted)
                ended = told.error if told.watch_id == 2 and told.kind == KIND_ENDED else ended
    stream.cancel()
    return ended


async def identity(plane: Plane) -> common_pb2.ResponseHeader:
    status: admin_pb2.StatusResponse = await plane.admin.Status(admin_pb2.StatusRequest(), timeout=10)
    return status.header


async def watch_token(plane: Plane) -> bytes:
    """A good one of the service `good`."""
    stream = plane.discovery.Watch()
    opening = discovery_pb2.OpenWatch(watch_id=1, namespace="default", service="good")
    await stream.write(discovery_pb2.WatchRequest(open=opening))
    async with asyncio.timeout(10):
        while True:
            for told in (await stream.read()).events:
                if told.resume_token:
                    stream.cancel()
                    return bytes(told.resume_token)


async def test_watch_tokens_that_cannot_be(plane: Plane) -> None:
    header = await identity(plane)
    good = ControlToken.decode(await watch_token(plane))
    cases = {
        "TOKEN_MALFORMED": [b"x", good.encode()[:-1], bytes(46)],
        "TOKEN_FOREIGN": [
            ControlToken("0" * 32, good.incarnation, good.revision, good.scope).encode(),
            ControlToken(header.journal_id, good.incarnation, good.revision, good.scope ^ 1).encode(),
            EventToken(header.journal_id, 1, 2, 3).encode(),
        ],
        "REVISION_IN_FUTURE": [ControlToken(header.journal_id, good.incarnation, 1 << 60, good.scope).encode()],
    }
    for reason, tokens in cases.items():
        for token in tokens:
            opening = discovery_pb2.OpenWatch(watch_id=2, namespace="default", service="good", resume_token=token)
            failure = await ended_watch(plane, opening)
            assert failure.reason == reason, (failure, token)
            assert failure.message


async def test_a_watch_with_bad_fields_ends_the_stream_by_name(plane: Plane) -> None:
    for opening in (
        discovery_pb2.OpenWatch(watch_id=0, namespace="default"),
        discovery_pb2.OpenWatch(watch_id=1, namespace="Default"),
        discovery_pb2.OpenWatch(watch_id=1, namespace="default", resume_token=bytes(257)),
        discovery_pb2.OpenWatch(watch_id=1, namespace="default", selector=selector_of("nonsense")),
    ):
        stream = plane.discovery.Watch()
        await stream.write(discovery_pb2.WatchRequest(open=opening))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(read_to_end(stream), 10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details_of(caught.value)[1].field_violations[0].field.startswith("open.")


async def read_to_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


def selector_of(version: str) -> common_pb2.Selector:
    return common_pb2.Selector(version=version)


async def ended_subscription(plane: Plane, opening: events_pb2.OpenSubscription) -> common_pb2.Failure:
    stream = plane.events.Subscribe()
    await stream.write(events_pb2.SubscribeRequest(open=opening))
    async with asyncio.timeout(10):
        while True:
            for notice in (await stream.read()).notices:
                if notice.kind == events_pb2.SubscriptionNotice.KIND_ENDED:
                    stream.cancel()
                    ended: common_pb2.Failure = notice.error
                    return ended


async def test_subscriptions_that_cannot_be_end_by_themselves(plane: Plane) -> None:
    header = await identity(plane)
    opening = events_pb2.OpenSubscription
    cases = [
        (opening(name="nobody"), "SUBSCRIPTION_NOT_FOUND"),
        (opening(stream="nowhere"), "STREAM_NOT_FOUND"),
        (opening(name="kept", resume_token=bytes(46)), "INVALID_ARGUMENT"),
        (opening(resume_token=b"x"), "TOKEN_MALFORMED"),
        (opening(resume_token=EventToken("0" * 32, 1, 2, 3).encode()), "TOKEN_FOREIGN"),
        (opening(resume_token=EventToken(header.journal_id, 1, 2, 3).encode()), "TOKEN_FOREIGN"),
        (opening(resume_token=ControlToken(header.journal_id, 1, 2, 3).encode()), "TOKEN_FOREIGN"),
    ]
    for request, reason in cases:
        request.subscription_id, request.namespace, request.credit = 1, "default", 1
        failure = await ended_subscription(plane, request)
        assert failure.reason == reason, (failure, request)


async def test_a_publish_that_fails_is_answered_by_its_sequence_and_the_stream_goes_on(plane: Plane) -> None:
    stream = plane.events.PublishStream()
    nowhere = events_pb2.PublishStreamRequest(namespace="default", stream="nowhere", sequence=1, events=[event()])
    there = events_pb2.PublishStreamRequest(namespace="default", stream="kept", sequence=2, events=[event()])
    for request in (nowhere, there):
        await stream.write(request)
    async with asyncio.timeout(10):
        answers = {answer.sequence: answer for answer in [await stream.read(), await stream.read()]}
    assert answers[1].error.reason == "STREAM_NOT_FOUND"
    assert answers[2].published[0].count == 1
    stream.cancel()


async def test_a_bad_message_ends_a_publish_stream_by_name(plane: Plane) -> None:
    """Its sequence may be as wrong as the rest of it."""
    before = await state(plane)
    stream = plane.events.PublishStream()
    await stream.write(events_pb2.PublishStreamRequest(namespace="default", sequence=1, events=[event(id="")]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(read_to_end(stream), 10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(caught.value)[1].field_violations[0].field == "events[0].id"
    assert await state(plane) == before


async def test_the_server_has_complained_of_nothing_and_goes_on(plane: Plane, server: Server) -> None:
    """Last: bad input is the caller's affair, and leaves no traceback in the server's log."""
    assert server.process is not None
    assert server.process.poll() is None
    assert "Traceback" not in server.output.read_text()
    request = discovery_pb2.ResolveRequest(namespace="default", service="good")
    assert len((await plane.discovery.Resolve(request, timeout=10)).instances) == 1
