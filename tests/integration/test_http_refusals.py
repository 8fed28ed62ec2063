"""What a real server answers to requests that are wrong, too much, too slow, or no HTTP; afterwards it serves as before."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from integration.processes import Server, serving
from integration.test_http_events import as_headers, curl, event, post, stored, url

from reference import http_events
from trunkline.api.v1 import events_pb2_grpc

WITHIN_S = 20
LIMITS = {
    "TRUNKLINE_HTTP__BODY_TIMEOUT_MS": "1500",
    "TRUNKLINE_HTTP__IDLE_TIMEOUT_MS": "1500",
    "TRUNKLINE_HTTP__CONNECTIONS_MAX": "12",
    "TRUNKLINE_HTTP__REQUESTS_IN_FLIGHT_MAX": "4",
    "TRUNKLINE_HTTP__BODY_BYTES_MAX": "3000000",
    "TRUNKLINE_HTTP__BODY_BYTES_IN_FLIGHT_MAX": "4000000",
}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCHED = {"content-type": "application/cloudevents-batch+json"}
GOOD = http_events.written(event("good"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LIMITS.items():
            patch.setenv(name, value)
        with serving(tmp_path_factory.mktemp("refusals"), "--http-listen", "127.0.0.1:0") as running:
            yield running


@pytest.fixture(autouse=True)
async def serves_on(server: Server) -> AsyncIterator[None]:
    """Whatever a test did, a good publish is taken."""
    yield
    status, told = await post(url(server, "afterwards"), STRUCTURED, GOOD)
    assert status == 200, told


def reason_of(told: dict[str, Any]) -> str:
    reason: str = told["details"][0]["reason"]
    return reason


BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "a.b"}


@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        ({}, b"{}", "ce-specversion"),
        ({**BINARY, "ce-id": ""}, b"", "ce-id"),
        ({**BINARY, "ce-id": "%0d%0aX-Injected: 1"}, b"", "ce-id"),
        ({**BINARY, "ce-id": "%c0%a0"}, b"", "ce-id"),
        ({**BINARY, "ce-id": "x" * 257}, b"", "events[0].id"),
        ({**BINARY, "ce-type": "no topic"}, b"", "events[0].type"),
        ({**BINARY, "ce-partitionkey": ""}, b"", "events[0].attributes[partitionkey]"),
        ({**BINARY, "ce-my_own": "x"}, b"", "ce-my_own"),
        (STRUCTURED, b"", "body"),
        (STRUCTURED, b"{", "body"),
        (STRUCTURED, b"\xff", "body"),
        (STRUCTURED, GOOD.encode("utf-16"), "body"),
        (STRUCTURED, f"[{GOOD}]".encode(), "body"),
        (STRUCTURED, f'{GOOD[:-1]}, "id": "2"}}'.encode(), "events[0].id"),
        (STRUCTURED, GOOD.replace("good", "\\ud800").encode(), "events[0].id"),
        (BATCHED, GOOD.encode(), "body"),
        (BATCHED, f"[{GOOD}, {{}}]".encode(), "events[1].specversion"),
        (BATCHED, f"[{','.join([GOOD] * 10_001)}]".encode(), "events"),
        (BATCHED, b"[" * 1_000_000, "body"),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_what_is_wrong_is_named(server: Server, headers: dict[str, str], body: bytes, field: str) -> None:
    status, told = await post(url(server, "wrong"), headers, body)
    assert (status, reason_of(told)) == (400, "INVALID_ARGUMENT")
    [violation] = told["details"][1]["fieldViolations"]
    assert violation["field"] == field
    assert violation["rule"]
    assert violation["value"]
    assert violation["description"] == f"{violation['rule']}, got {violation['value']}"


async def test_nothing_of_a_refused_batch_is_kept(server: Server) -> None:
    status, _ = await post(url(server, "whole"), BATCHED, f"[{GOOD}, {GOOD.replace('order.placed', 'no topic')}]")
    assert status == 400
    async with grpc.aio.insecure_channel(server.address) as channel:
        assert await stored(events_pb2_grpc.EventServiceStub(channel), "whole") == []


@pytest.mark.parametrize(
    ("place", "headers", "status", "reason"),
    [
        ("namespaces/x/streams/nowhere", STRUCTURED, 404, "STREAM_NOT_FOUND"),
        ("namespaces/x/streams/changes", STRUCTURED, 501, "NOT_SUPPORTED"),
        ("namespaces/No!/streams/events", STRUCTURED, 400, "INVALID_ARGUMENT"),
        ("namespaces/%ED%A0%80/streams/events", STRUCTURED, 400, "INVALID_ARGUMENT"),
        ("namespaces/x/streams/a%2Fb", STRUCTURED, 400, "INVALID_ARGUMENT"),
        ("namespaces/x/streams/..", STRUCTURED, 404, ""),
        ("namespaces/x/streams/events", {"content-type": "application/cloudevents+avro"}, 415, "INVALID_ARGUMENT"),
        ("namespaces/x/streams/events", {**STRUCTURED, "content-encoding": "gzip"}, 415, "INVALID_ARGUMENT"),
        ("namespaces/x/streams/events", {**STRUCTURED, "origin": "http://x.example"}, 403, "PERMISSION_DENIED"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_statuses(server: Server, place: str, headers: dict[str, str], status: int, reason: str) -> None:
    body = gzip.compress(GOOD.encode()) if "content-encoding" in headers else GOOD.encode()
    given = [argument for item in headers.items() for argument in ("--header", ": ".join(item))]
    target = f"http://{server.http_address()}/v1/{place}/events"
    if not reason:
        async with aiohttp.ClientSession() as session, session.post(target, headers=headers, data=body) as answer:
            assert answer.status == status
        return
    got, told = await asyncio.to_thread(curl, target, *given, "--data-binary", "@-", input=body)
    assert (got, reason_of(told)) == (status, reason)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_there_is_nothing_but_publishing(server: Server, method: str) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, url(server, "x")) as answer:
        assert answer.status == 405


@pytest.mark.parametrize(
    ("headers", "size", "limit"),
    [(BINARY, 1_048_577, "event_bytes_max"), (BATCHED, 3_000_001, "http.body_bytes_max")],
)
async def test_oversize(server: Server, headers: dict[str, str], size: int, limit: str) -> None:
    """With its length said beforehand and without."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 65_536):
            yield b" " * min(65_536, size - at)

    for body in (b" " * size, pieces()):
        status, told = await post(url(server, "large"), headers, body)
        assert (status, told["details"][0]["metadata"]["limit"]) == (413, limit)


async def test_the_largest_event_and_one_byte_more(server: Server) -> None:
    headers = {**BINARY, "content-type": "application/octet-stream"}
    around = len(http_events_bytes(headers, b"x" * 1_000_000)) - 1_000_000
    for size, expected in ((1_048_576 - around, 200), (1_048_576 - around + 1, 400)):
        status, told = await post(url(server, "largest"), {**headers, "ce-id": f"{size % 10}"}, b"x" * size)
        assert status == expected, told


def http_events_bytes(headers: dict[str, str], body: bytes) -> bytes:
    made = event("1")
    made.ClearField("attributes")
    made.source, made.type, made.binary_data = headers["ce-source"], headers["ce-type"], body
    made.attributes["datacontenttype"].ce_string = headers["content-type"]
    return made.SerializeToString()


async def test_who_asks_first_is_refused_before_the_body_is_sent(server: Server) -> None:
    head = request_head(server, content_length=3_000_001, Expect="100-continue", **BATCHED)
    async with connected(server, head) as (reader, _):
        assert (await reader.readline()).split()[1] == b"413"
    good = GOOD.encode()
    async with connected(server, request_head(server, len(good), Expect="100-continue", **STRUCTURED)) as (
        reader,
        writer,
    ):
        assert (await reader.readline()).split()[1] == b"100"
        await reader.readline()
        writer.write(good)
        assert (await reader.readline()).split()[1] == b"200"


# Raw bytes.


def request_head(server: Server, content_length: int | None = None, /, **headers: Any) -> bytes:
    length = headers.pop("content_length", content_length)
    lines = ["POST /v1/namespaces/raw/streams/events/events HTTP/1.1", f"Host: {server.http_address()}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def connected(server: Server, sent: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = server.http_address().rpartition(":")
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(sent)
            yield reader, writer
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_body_that_comes_slowly_is_given_up(server: Server) -> None:
    async with connected(server, request_head(server, len(GOOD), **STRUCTURED)) as (reader, writer):

        async def drip() -> None:
            for byte in GOOD.encode():
                writer.write(bytes([byte]))
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        answer = await reader.readuntil(b"\r\n\r\n")
        dripping.cancel()
        await asyncio.wait([dripping])
        assert answer.split()[1] == b"408"
        assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/namespaces/x HTTP/1.1\r\nHost: x\r\nce-id: 1"], ids=["nothing", "half a head"]
)
async def test_a_connection_on_which_no_request_comes_is_closed(server: Server, sent: bytes) -> None:
    begun = asyncio.get_running_loop().time()
    async with connected(server, sent) as (reader, _):
        assert await reader.read() == b""
    assert asyncio.get_running_loop().time() - begun < 5


async def test_a_client_that_goes_in_the_middle_is_nobodys_error(server: Server) -> None:
    async with connected(server, request_head(server, 1_000, **STRUCTURED) + b"{"):
        await asyncio.sleep(0.1)
    assert "Traceback" not in server.output.read_text()


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nce-id: 1\r\n folded\r\n\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nce-id: a\x00b\r\n\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nce-id: a\rce-id: b\r\n\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nce id: a\r\n\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nab",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\nHost: x\r\nce-id: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST /v1/namespaces/raw/streams/events/events HTTP/1.1\r\n" + b"ce-x: 1\r\n" * 200 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[55:110]),
)
async def test_what_is_no_http_is_refused(server: Server, sent: bytes) -> None:
    async with connected(server, sent) as (reader, _):
        answer = await reader.read()
        assert re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer
        assert answer.count(b"HTTP/1.") == 1


async def test_too_many_publishes_at_a_time(server: Server) -> None:
    """Those that are open hold their places until their bodies are given up."""
    head = request_head(server, 10, **STRUCTURED)
    async with connected(server, head), connected(server, head), connected(server, head), connected(server, head):
        await asyncio.sleep(0.2)
        async with connected(server, head + b"0123456789") as (reader, _):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.split()[1] == b"429"
            assert b"\r\nRetry-After: 1\r\n" in answer
    await asyncio.sleep(0.2)


async def test_bodies_that_are_too_much_together(server: Server) -> None:
    head = request_head(server, 2_500_000, **BATCHED)
    async with connected(server, head + b" " * 2_400_000):
        await asyncio.sleep(0.5)
        status, told = await post(url(server, "many"), BATCHED, b" " * 2_400_000)
        assert (status, told["details"][0]["metadata"]["limit"]) == (429, "http.body_bytes_in_flight_max")


async def test_too_many_connections(server: Server) -> None:
    opened = [await asyncio.open_connection(*server.http_address().split(":")) for _ in range(14)]
    try:
        async with asyncio.timeout(WITHIN_S):
            answers = [await reader.read() for reader, _ in opened]
        refused = [answer.startswith(b"HTTP/1.1 503 ") for answer in answers]
        assert refused[-2:] == [True, True]
        assert refused[:4] == [False] * 4, "a few of earlier tests may be about to be closed"
    finally:
        for _, writer in opened:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_an_answer_bears_nothing_of_the_request_in_its_headers(server: Server) -> None:
    given = [*as_headers(http_events.binary(event("1"))[0]), ("ce-extra", "%0d%0aSet-Cookie: a")]
    async with aiohttp.ClientSession() as session, session.post(url(server, "x"), headers=given) as answer:
        assert answer.status == 400
        assert "Set-Cookie" not in answer.headers
        assert "Set-Cookie" in json.dumps(await answer.json())


def test_a_stop_does_not_wait_for_bodies_that_do_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_STOP_GRACE_S", "0.5")
    with serving(tmp_path, "--http-listen", "127.0.0.1:0") as own:
        host, _, port = own.http_address().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WITHIN_S) as peer:
            peer.sendall(request_head(own, 1_000, **STRUCTURED) + b"{")
            time.sleep(0.2)
            begun = time.monotonic()
            assert own.stop() == 0
            assert time.monotonic() - begun < 8
            assert peer.recv(1_000).startswith(b"HTTP/1.1 503 ")
        assert "Traceback" not in own.output.read_text()
