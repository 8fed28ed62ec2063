"""Events over HTTP, to a real server, by curl, aiohttp and CloudEvents' own SDK: what gets in, and is the same as over gRPC."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from integration.processes import Server, serving

from reference import http_events
from trunkline.api.v1 import common_pb2, events_pb2, events_pb2_grpc
from trunkline.client import Event
from trunkline.client._event import event_to

NAMESPACES = itertools.count()
WITHIN_S = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("http"), "--http-listen", "127.0.0.1:0") as running:
        yield running


@pytest.fixture
def namespace() -> str:
    return f"http-{next(NAMESPACES)}"


@pytest.fixture
async def stub(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield events_pb2_grpc.EventServiceStub(channel)


def url(server: Server, namespace: str, stream: str = "events", query: str = "") -> str:
    return f"http://{server.http_address()}/v1/namespaces/{namespace}/streams/{stream}/events{query}"


def curl(*arguments: str, input: bytes = b"") -> tuple[int, dict[str, Any]]:
    """The status and the JSON that curl got."""
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        str(WITHIN_S),
        "--write-out",
        "%{http_code}",
        *arguments,
    ]
    done = subprocess.run(command, input=input, capture_output=True, timeout=WITHIN_S + 5, check=True)
    return int(done.stdout[-3:]), json.loads(done.stdout[:-3])


def event(id: str, **attributes: Any) -> events_pb2.CloudEvent:
    """What the Python SDK sends."""
    made = Event.json(
        type="order.placed", id=id, source="/shop", key="customer", data={"id": id}, attributes=attributes
    )
    return event_to(made)


async def stored(stub: Any, namespace: str, stream: str = "") -> list[events_pb2.CloudEvent]:
    """Every event of a stream, by offset."""
    config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))
    names: dict[str, Any] = {"namespace": namespace, "stream": stream}
    await stub.CreateSubscription(events_pb2.CreateSubscriptionRequest(**names, name="all", config=config))
    fetched = await stub.Fetch(events_pb2.FetchRequest(**names, subscription="all", max_events=10_000))
    return [delivery.event for delivery in fetched.deliveries]


async def post(
    target: str, headers: Any, body: Any = b"", *, session: aiohttp.ClientSession | None = None
) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer."""
    if session is None:
        async with aiohttp.ClientSession() as own:
            return await post(target, headers, body, session=own)
    given = io.BytesIO(body) if isinstance(body, bytes) else body
    async with asyncio.timeout(WITHIN_S), session.post(target, headers=headers, data=given) as answer:
        return answer.status, json.loads(await answer.read())


def as_headers(raw: http_events.Headers) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in raw]


async def test_curl_publishes_in_each_mode_what_the_sdk_would_send(server: Server, stub: Any, namespace: str) -> None:
    wanted = [event("binary", note="Grüße 😀"), event("structured", count=7), event("first"), event("second", yes=True)]
    raw_headers, body = http_events.binary(wanted[0])
    target = url(server, namespace)
    given = [argument for name, value in as_headers(raw_headers) for argument in ("--header", f"{name}: {value}")]
    status, told = curl(target, *given, "--data-binary", "@-", input=body)
    assert (status, told["published"]) == (200, [{"offset": "0", "count": 1, "duplicate": False}])
    assert told["durability"] == {"sync": "SYNC_FSYNCED", "copies": 1}
    assert int(told["incarnation"]) > 0
    assert len(told["header"]["journalId"]) == 32
    as_json = ["--header", "content-type: application/cloudevents+json", "--data-binary", "@-"]
    status, told = curl(target, *as_json, input=http_events.written(wanted[1]).encode())
    assert (status, told["published"]) == (200, [{"offset": "1", "count": 1, "duplicate": False}])
    as_batch = ["--header", "content-type: application/cloudevents-batch+json", "--data-binary", "@-"]
    batch = f"[{','.join(map(http_events.written, wanted))}]"
    status, told = curl(target, *as_batch, input=batch.encode())
    assert status == 200
    assert told["published"] == [
        {"offset": "0", "count": 2, "duplicate": True},
        {"offset": "2", "count": 2, "duplicate": False},
    ]
    assert await stored(stub, namespace) == wanted


async def test_an_empty_batch_asks_for_nothing(server: Server, namespace: str) -> None:
    given = {"content-type": "application/cloudevents-batch+json"}
    assert await post(url(server, namespace), given, b"[]") == (200, {"published": []})


async def test_what_the_sdk_of_cloudevents_sends_is_taken(server: Server, stub: Any, namespace: str) -> None:
    attributes = {
        "id": "1", "source": "/sdk", "type": "order.placed", "specversion": "1.0", "time": datetime(2026, 1, 2, tzinfo=UTC),
        "subject": '50 % "off" €', "datacontenttype": "application/json",
    }  # fmt: skip
    for mode, id in ((sdk.to_binary_event, "1"), (sdk.to_structured_event, "2")):
        message = mode(SdkEvent({**attributes, "id": id}, {"items": [1, 2]}))
        status, told = await post(url(server, namespace), message.headers, message.body)
        assert status == 200, told
    found = await stored(stub, namespace)
    assert [one.id for one in found] == ["1", "2"]
    for one in found:
        assert one.attributes["subject"].ce_string == '50 % "off" €'
        assert one.attributes["time"].ce_timestamp.ToJsonString() == "2026-01-02T00:00:00Z"
        assert json.loads(one.text_data) == {"items": [1, 2]}


async def test_one_event_over_both_ways_is_kept_once(server: Server, stub: Any, namespace: str) -> None:
    """A dozen of each at the same time, with the same names."""
    target, wanted = url(server, namespace), [event(f"{n}") for n in range(40)]

    async def by_http(one: events_pb2.CloudEvent) -> bool:
        headers, body = http_events.binary(one)
        _, told = await post(target, as_headers(headers), body, session=session)
        return bool(told["published"][0]["duplicate"])

    async def by_grpc(one: events_pb2.CloudEvent) -> bool:
        answer = await stub.Publish(events_pb2.PublishRequest(namespace=namespace, events=[one]))
        return bool(answer.published[0].duplicate)

    async with aiohttp.ClientSession() as session:
        calls = [way(one) for one in wanted for way in (by_http, by_grpc, by_http)]
        answers = await asyncio.gather(*calls)
    assert [sum(answers[3 * n : 3 * n + 3]) for n in range(40)] == [2] * 40
    assert sorted(one.id for one in await stored(stub, namespace)) == sorted(one.id for one in wanted)


async def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    with serving(tmp_path, "--http-listen", "127.0.0.1:0") as own:
        batch = f"[{','.join(http_events.written(event(f'{n}')) for n in range(100))}]"
        given = {"content-type": "application/cloudevents-batch+json"}
        status, told = await post(url(own, "shop"), given, batch)
        assert (status, told["published"][0]["duplicate"]) == (200, False)
        own.kill()
        own.start()
        status, again = await post(url(own, "shop"), given, batch)
        assert (status, again["incarnation"]) == (200, told["incarnation"])
        assert again["published"] == [{"offset": "0", "count": 100, "duplicate": True}]


async def test_a_promise_may_be_required(server: Server, stub: Any, namespace: str) -> None:
    config = events_pb2.StreamConfig(namespace=namespace, name="quick", sync=common_pb2.SYNC_MEMORY)
    await stub.CreateStream(events_pb2.CreateStreamRequest(stream=config))
    headers, body = http_events.binary(event("1"))
    for stream, query, status in [
        ("quick", "", 200),
        ("quick", "?require_sync=memory", 200),
        ("quick", "?require_sync=fsynced", 412),
        ("events", "?require_sync=FSYNCED", 200),
        ("events", "?require_sync=twice", 400),
        ("events", "?require_sync=memory&require_sync=fsynced", 400),
        ("events", "?sync=fsynced", 400),
    ]:
        answer = await post(url(server, namespace, stream, query), as_headers(headers), body)
        assert answer[0] == status, answer


async def test_publishes_are_counted(server: Server, namespace: str) -> None:
    async def handled() -> dict[str, float]:
        async with aiohttp.ClientSession() as session, session.get(f"http://{server.http_address()}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("trunkline_http_")}

    headers, body = http_events.binary(event("1"))
    before = await handled()
    await post(url(server, namespace), as_headers(headers), body)
    await post(url(server, namespace), {}, body)
    after = await handled()
    for code in ("200", "400"):
        name = f'trunkline_http_publishes_total{{code="{code}"}}'
        assert after[name] - before.get(name, 0) == 1
    assert after["trunkline_http_publishes_in_flight"] == after["trunkline_http_body_bytes_in_flight"] == 0
    assert after["trunkline_http_connections"] >= 1
