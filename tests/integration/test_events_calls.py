"""EventService of a real server process over plain gRPC, as a client in any language would call it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from integration.processes import Server, serving

from trunkline.api.status import DETAILS_KEY, error_from
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc, registry_pb2, registry_pb2_grpc

NAMESPACES = itertools.count()
Ack = events_pb2.Acknowledgement
Notice = events_pb2.SubscriptionNotice
FAR_AHEAD = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(offset=10**9))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("events")) as running:
        yield running


@pytest.fixture
def namespace() -> str:
    return f"events-{next(NAMESPACES)}"


@pytest.fixture
async def stub(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield events_pb2_grpc.EventServiceStub(channel)


def event(id: str, topic: str = "order.placed") -> events_pb2.CloudEvent:
    return events_pb2.CloudEvent(id=id, source="/shop", spec_version="1.0", type=topic, text_data=f"data of {id}")


def published(answer: Any) -> list[tuple[int, int, bool]]:
    return [(run.offset, run.count, run.duplicate) for run in answer.published]


class Subscriber:
    """A Subscribe call, its messages taken apart."""

    def __init__(self, stub: Any) -> None:
        self.call = stub.Subscribe()
        self.deliveries: list[events_pb2.Delivery] = []
        self.notices: list[events_pb2.SubscriptionNotice] = []

    async def send(self, **fields: Any) -> None:
        await self.call.write(events_pb2.SubscribeRequest(**fields))

    async def until(self, deliveries: int = 0, notices: int = 0) -> None:
        async with asyncio.timeout(10):
            while len(self.deliveries) < deliveries or len(self.notices) < notices:
                response = await self.call.read()
                assert response is not grpc.aio.EOF
                self.deliveries += response.deliveries
                self.notices += response.notices


async def test_publish_deduplicates_and_says_what_it_promises(stub: Any, namespace: str) -> None:
    request = events_pb2.PublishRequest(namespace=namespace, events=[event("a"), event("b")])
    first, again = await stub.Publish(request), await stub.Publish(request)
    assert published(first) == [(0, 2, False)]
    assert published(again) == [(0, 2, True)]
    assert first.durability == common_pb2.Durability(sync=common_pb2.SYNC_FSYNCED, copies=1)
    assert first.incarnation == again.incarnation != 0
    assert len(first.header.journal_id) == 32


async def test_a_stream_of_publishes_is_answered_by_sequence_and_goes_on_after_a_failure(
    stub: Any, namespace: str
) -> None:
    call = stub.PublishStream()
    for sequence in range(1, 51):
        stream = "nowhere" if sequence == 20 else ""
        await call.write(
            events_pb2.PublishStreamRequest(
                namespace=namespace, stream=stream, sequence=sequence, events=[event(f"{sequence}")]
            )
        )
    await call.done_writing()
    answers = {answer.sequence: answer async for answer in call}
    assert answers.keys() == set(range(1, 51))
    assert answers[20].error.reason == "STREAM_NOT_FOUND"
    offsets = [answers[n].published[0].offset for n in answers if n != 20]
    assert sorted(offsets) == list(range(49))


async def test_push_with_acknowledgements_on_one_stream_for_two_subscriptions(stub: Any, namespace: str) -> None:
    subscriber = Subscriber(stub)
    config = events_pb2.SubscriptionConfig(filters=["order.*"], start=events_pb2.StartPosition(earliest=True))
    await subscriber.send(
        open=events_pb2.OpenSubscription(
            subscription_id=1, namespace=namespace, name="billing", config=config, credit=10, client="billing-1"
        )
    )
    await subscriber.send(
        open=events_pb2.OpenSubscription(subscription_id=2, namespace=namespace, credit=10, no_acknowledgement=True)
    )
    await subscriber.until(notices=2)
    await stub.Publish(events_pb2.PublishRequest(namespace=namespace, events=[event("a"), event("b", "cart.filled")]))
    await subscriber.until(deliveries=3)
    assert sorted((d.subscription_id, d.event.id) for d in subscriber.deliveries) == [(1, "a"), (2, "a"), (2, "b")]
    assert subscriber.deliveries[0].event.text_data == "data of a"
    [state] = (await stub.ListSubscriptions(events_pb2.ListSubscriptionsRequest(namespace=namespace))).subscriptions
    assert (state.in_flight, list(state.consumers)) == (1, ["billing-1"])
    await subscriber.send(acknowledgements=[Ack(subscription_id=1, outcome=Ack.OUTCOME_NACK, offsets=[0])])
    await subscriber.until(deliveries=4)
    assert subscriber.deliveries[-1].attempt == 2
    await subscriber.send(acknowledgements=[Ack(subscription_id=1, outcome=Ack.OUTCOME_ACK, offsets=[0])])
    await subscriber.send(close=events_pb2.CloseSubscription(subscription_id=1))
    await subscriber.until(notices=3)
    assert subscriber.notices[-1].kind == Notice.KIND_ENDED
    [state] = (await stub.ListSubscriptions(events_pb2.ListSubscriptionsRequest(namespace=namespace))).subscriptions
    assert (state.in_flight, state.lag, list(state.consumers)) == (0, 0, [])
    await subscriber.call.done_writing()
    assert await subscriber.call.read() is grpc.aio.EOF


async def test_fetch_acknowledge_and_set_aside(stub: Any, namespace: str) -> None:
    config = events_pb2.SubscriptionConfig(max_deliveries=1, start=events_pb2.StartPosition(earliest=True))
    names: Any = {"namespace": namespace, "subscription": "jobs"}
    await stub.CreateSubscription(events_pb2.CreateSubscriptionRequest(namespace=namespace, name="jobs", config=config))
    await stub.Publish(events_pb2.PublishRequest(namespace=namespace, events=[event("a"), event("b")]))
    fetched = await stub.Fetch(events_pb2.FetchRequest(**names, wait=duration_pb2.Duration(seconds=5)))
    assert [(d.offset, d.event.id) for d in fetched.deliveries] == [(0, "a"), (1, "b")]
    assert fetched.header.journal_id
    answer = await stub.Acknowledge(
        events_pb2.AcknowledgeRequest(
            **names,
            acknowledgements=[
                Ack(outcome=Ack.OUTCOME_ACK, offsets=[0, 0]),
                Ack(outcome=Ack.OUTCOME_NACK, offsets=[1]),
            ],
        )
    )
    assert list(answer.not_open) == [0]
    aside = await stub.ListSetAside(events_pb2.ListSetAsideRequest(**names))
    assert [(one.offset, one.attempts, one.event.id) for one in aside.events] == [(1, 1, "b")]
    assert (await stub.ReleaseSetAside(events_pb2.ReleaseSetAsideRequest(**names))).released == 1
    fetched = await stub.Fetch(events_pb2.FetchRequest(**names, wait=duration_pb2.Duration(seconds=5)))
    assert [(d.offset, d.attempt) for d in fetched.deliveries] == [(1, 1)]


async def test_registrations_are_events_of_the_derived_stream(stub: Any, server: Server, namespace: str) -> None:
    subscriber = Subscriber(stub)
    await subscriber.send(
        open=events_pb2.OpenSubscription(
            subscription_id=1, namespace=namespace, stream="changes", credit=10, no_acknowledgement=True
        )
    )
    await subscriber.until(notices=1)
    request = registry_pb2.RegisterRequest(lease_secret=b"0123456789abcdef")
    instance = request.instance
    instance.namespace, instance.service, instance.id = namespace, "cart", "cart-1"
    instance.endpoints.add(host="10.0.0.1", port=8080)
    async with grpc.aio.insecure_channel(server.address) as channel:
        answer = await registry_pb2_grpc.RegistryServiceStub(channel).Register(request)
    await subscriber.until(deliveries=1)
    [delivery] = subscriber.deliveries
    assert delivery.event.type == "trunkline.instance.registered"
    assert delivery.offset == answer.header.revision
    subscriber.call.cancel()


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("Publish", events_pb2.PublishRequest(namespace="x"), "INVALID_ARGUMENT"),
        ("Publish", events_pb2.PublishRequest(namespace="No!", events=[event("a")]), "INVALID_ARGUMENT"),
        ("Publish", events_pb2.PublishRequest(namespace="x", stream="no", events=[event("a")]), "STREAM_NOT_FOUND"),
        ("Publish", events_pb2.PublishRequest(namespace="x", stream="changes", events=[event("a")]), "NOT_SUPPORTED"),
        ("Publish", events_pb2.PublishRequest(namespace="x", events=[event("a", "no topic")]), "INVALID_ARGUMENT"),
        ("Fetch", events_pb2.FetchRequest(namespace="x", subscription="none"), "SUBSCRIPTION_NOT_FOUND"),
        ("DeleteStream", events_pb2.DeleteStreamRequest(namespace="x", stream="none"), "STREAM_NOT_FOUND"),
        (
            "CreateSubscription",
            events_pb2.CreateSubscriptionRequest(
                namespace="x", name="s", config=events_pb2.SubscriptionConfig(filters=["a.>.b"])
            ),
            "INVALID_ARGUMENT",
        ),
        (
            "CreateSubscription",
            events_pb2.CreateSubscriptionRequest(namespace="x", name="s", config=FAR_AHEAD),
            "POSITION_OUT_OF_RANGE",
        ),
    ],
)
async def test_what_is_wrong_is_named_and_the_server_goes_on(stub: Any, method: str, request_: Any, code: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    details = next(value for key, value in caught.value.trailing_metadata() or () if key == DETAILS_KEY)
    assert isinstance(details, bytes)
    assert error_from(caught.value.code().name, caught.value.details() or "", details).code == code


async def test_acknowledged_events_and_open_deliveries_survive_a_kill(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        kept: list[int] = []
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = events_pb2_grpc.EventServiceStub(channel)
            subscriber = Subscriber(stub)
            config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))
            await subscriber.send(
                open=events_pb2.OpenSubscription(
                    subscription_id=1, namespace="shop", name="billing", config=config, credit=1_000
                )
            )
            for number in range(20):
                batch = [event(f"{number}-{i}") for i in range(10)]
                answer = await stub.Publish(events_pb2.PublishRequest(namespace="shop", events=batch))
                kept.append(answer.published[0].offset)
            await subscriber.until(deliveries=200)
            done = list(range(0, 200, 2))
            await subscriber.send(acknowledgements=[Ack(subscription_id=1, outcome=Ack.OUTCOME_ACK, offsets=done)])
            listing = events_pb2.ListSubscriptionsRequest(namespace="shop")
            async with asyncio.timeout(10):
                while (await stub.ListSubscriptions(listing)).subscriptions[0].in_flight != 100:
                    pass
            server.kill()
        server.start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = events_pb2_grpc.EventServiceStub(channel)
            subscriber = Subscriber(stub)
            await subscriber.send(
                open=events_pb2.OpenSubscription(subscription_id=1, namespace="shop", name="billing", credit=1_000)
            )
            # Acknowledgements of the last 50 ms may be lost; what was not acknowledged must not be.
            while not set(range(1, 200, 2)) <= {d.offset for d in subscriber.deliveries}:
                await subscriber.until(deliveries=len(subscriber.deliveries) + 1)
            assert {d.attempt for d in subscriber.deliveries} == {2}
            batch = [event(f"{19}-{i}") for i in range(10)] + [event("new")]
            answer = await stub.Publish(events_pb2.PublishRequest(namespace="shop", events=batch))
            assert published(answer) == [(kept[-1], 10, True), (200, 1, False)]
