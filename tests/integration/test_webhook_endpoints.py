"""Webhooks of a real server process against a real HTTP endpoint: outages, signals, order, addresses, secrets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from integration.processes import Server, serving, trunkline
from integration.waiting import until
from standardwebhooks import Webhook as Verifier
from yarl import URL

from trunkline.api.v1 import events_pb2, events_pb2_grpc
from trunkline.client import BackoffOptions, ClientOptions, Event, connect
from trunkline.server.events.webhook_outcome import Answer, Silence
from trunkline.server.events.webhook_request import Request
from trunkline.server.events.webhook_sender import HttpSender
from trunkline.server.events.webhook_settings import WebhooksConfig
from trunkline.server.security.authority import make_authority, make_server_certificate

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.05, max_backoff_s=0.5))
SECRET = b"a secret that nobody is shown"
KEYS = 10
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Endpoint:
    """An HTTP server on loopback that remembers what it was sent."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.port = 0
        self._context = context
        self.taken: Counter[str] = Counter()
        """Ids that were answered with 200."""
        self.order: list[str] = []
        self.attempts: Counter[int] = Counter()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.methods: Counter[str] = Counter()
        self.behaves: Handler | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/hooks"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hooks", self._handle)
        app.router.add_post("/elsewhere", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.Response:
        self.methods[f"{request.method} {request.path}"] += 1
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, body))
        self.attempts[int(headers["trunkline-attempt"])] += 1
        answer = web.Response() if self.behaves is None else await self.behaves(request)
        if answer.status == 200:
            self.taken[headers["ce-id"]] += 1
            self.order.append(headers["ce-id"])
        return answer


@asynccontextmanager
async def answering(context: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(context)
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("webhooks"), "--log-level", "debug") as running:
        yield running


@asynccontextmanager
async def calling(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield events_pb2_grpc.EventServiceStub(channel)


async def create(server: Server, namespace: str, url: str, *, ordering: Any = 0, **webhook: Any) -> None:
    timeout_s = webhook.pop("timeout_s", None)
    made = events_pb2.Webhook(url=url, **webhook)
    if timeout_s is not None:
        made.timeout.FromMilliseconds(round(timeout_s * 1_000))
    start = events_pb2.StartPosition(earliest=True)
    config = events_pb2.SubscriptionConfig(start=start, webhook=made, ordering=ordering)
    async with calling(server) as stub:
        request = events_pb2.CreateSubscriptionRequest(namespace=namespace, name="billing", config=config)
        await stub.CreateSubscription(request, timeout=10)


async def state(server: Server, namespace: str) -> events_pb2.SubscriptionState:
    async with calling(server) as stub:
        request = events_pb2.ListSubscriptionsRequest(namespace=namespace)
        [found] = (await stub.ListSubscriptions(request, timeout=10)).subscriptions
        assert isinstance(found, events_pb2.SubscriptionState)
        return found


async def publish(server: Server, namespace: str, count: int, *, first: int = 0) -> set[str]:
    ids = [str(n) for n in range(first, first + count)]
    async with connect(server.address, namespace=namespace, options=OPTIONS) as plane:
        for at in range(0, count, 100):
            await plane.publish(
                [
                    Event.json(type="order.placed", id=one, source="/test", key=f"k{int(one) % KEYS}", data={"n": one})
                    for one in ids[at : at + 100]
                ]
            )
    return set(ids)


async def failing(server: Server, namespace: str, word: str) -> events_pb2.WebhookState:
    """Its state when the last error says so."""
    async with asyncio.timeout(20):
        while True:
            found = (await state(server, namespace)).webhook
            if word in found.last_error:
                return found
            await asyncio.sleep(0.05)


async def test_events_arrive_signed_and_once(server: Server) -> None:
    async with answering() as endpoint:
        await create(server, "happy", endpoint.url, secret=SECRET)
        ids = await publish(server, "happy", 300)
        await until(lambda: endpoint.taken.keys() == ids)
        assert set(endpoint.taken.values()) == {1}
        for headers, body in endpoint.requests:
            Verifier(SECRET).verify(body, headers)
            assert headers["content-type"] == "application/json"
            assert json.loads(body) == {"n": headers["ce-id"]}
        assert headers["trunkline-subscription"] == "happy/events/billing"
        assert headers["ce-partitionkey"].startswith("k")


async def test_an_endpoint_that_is_down_loses_nothing_and_costs_no_attempt(server: Server) -> None:
    async with answering() as endpoint:
        await create(server, "down", endpoint.url)
        first = await publish(server, "down", 20)
        await until(lambda: endpoint.taken.keys() == first)
        await endpoint.stop()
        ids = first | await publish(server, "down", 200, first=20)
        found = await failing(server, "down", "Cannot connect")
        assert found.last_status == 0
        await asyncio.sleep(4)
        await endpoint.start()
        await until(lambda: endpoint.taken.keys() == ids)
        assert (await state(server, "down")).set_aside == 0
        assert set(endpoint.attempts) <= {1, 2}, "what was on its way when it went down may have been counted"
        assert endpoint.attempts[1] >= 200


async def test_keys_keep_their_order_through_refusals_and_a_server_that_is_killed(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    async def behaves(request: web.Request) -> web.Response:
        event = request.headers["ce-id"]
        seen[event] += 1
        await asyncio.sleep(0.01)
        return web.Response(status=503 if int(event) % 29 == 0 and seen[event] == 1 else 200)

    async with answering() as endpoint:
        endpoint.behaves = behaves
        with serving(tmp_path) as server:
            await create(server, "keyed", endpoint.url, ordering=events_pb2.SubscriptionConfig.ORDERING_KEYED)
            ids = await publish(server, "keyed", 400)
            await until(lambda: len(endpoint.taken) >= 120)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await until(lambda: endpoint.taken.keys() == ids)
            assert (await state(server, "keyed")).set_aside == 0
        first_time = list(dict.fromkeys(endpoint.order))
        for key in range(KEYS):
            lane = [int(event) for event in first_time if int(event) % KEYS == key]
            assert lane == sorted(lane)
        assert sum(endpoint.taken.values()) < 2 * len(ids), "what was acknowledged in a checkpoint does not come again"


async def test_a_stop_lets_open_requests_end(tmp_path: Path) -> None:
    async def behaves(_request: web.Request) -> web.Response:
        await asyncio.sleep(1.0)
        return web.Response()

    async with answering() as endpoint:
        endpoint.behaves = behaves
        with serving(tmp_path) as server:
            await create(server, "stop", endpoint.url)
            ids = await publish(server, "stop", 25)
            await until(lambda: sum(endpoint.methods.values()) == 10)
            assert await asyncio.to_thread(server.stop) == 0
            assert len(endpoint.taken) == 10
            endpoint.behaves = None
            await asyncio.to_thread(server.start)
            await until(lambda: endpoint.taken.keys() == ids)
            assert set(endpoint.taken.values()) == {1}
            assert set(endpoint.attempts) == {1}


async def test_a_slow_endpoint_is_not_waited_for(server: Server) -> None:
    slow = {"3"}

    async def behaves(request: web.Request) -> web.Response:
        if request.headers["ce-id"] in slow and request.headers["trunkline-attempt"] == "1":
            await asyncio.sleep(10)
        return web.Response()

    async with answering() as endpoint:
        endpoint.behaves = behaves
        await create(server, "slow", endpoint.url, timeout_s=0.3)
        ids = await publish(server, "slow", 10)
        await until(lambda: endpoint.taken.keys() == ids, within_s=10)
        assert endpoint.attempts == {1: 10, 2: 1}


async def test_retry_after_is_kept_to(server: Server) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def behaves(_request: web.Request) -> web.Response:
        times.append(loop.time())
        return web.Response(status=429, headers={"Retry-After": "3"}) if len(times) <= 10 else web.Response()

    async with answering() as endpoint:
        endpoint.behaves = behaves
        await create(server, "busy", endpoint.url)
        ids = await publish(server, "busy", 40)
        found = await failing(server, "busy", "429")
        assert found.HasField("paused_until")
        await until(lambda: endpoint.taken.keys() == ids)
        assert 2.5 < times[10] - times[9] < 6


async def test_redirects_are_not_followed(server: Server) -> None:
    async def behaves(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with answering() as endpoint:
        endpoint.behaves = behaves
        await create(server, "moved", endpoint.url)
        await publish(server, "moved", 1)
        found = await failing(server, "moved", "redirects are not followed")
        assert found.last_status == 307
        assert endpoint.methods["POST /elsewhere"] == 0


async def test_large_answers_and_large_events_pass(server: Server) -> None:
    sizes: list[int] = []
    connections: set[Any] = set()

    async def behaves(request: web.Request) -> web.Response:
        assert request.transport is not None
        connections.add(request.transport.get_extra_info("peername"))
        sizes.append(request.content_length or 0)
        return web.Response(body=b"x" * 300_000)

    async with answering() as endpoint:
        endpoint.behaves = behaves
        await create(server, "large", endpoint.url)
        async with connect(server.address, namespace="large") as plane:
            for n in range(3):
                await plane.publish(Event(type="t", id=str(n), data=b"y" * 900_000))
        await until(lambda: len(endpoint.taken) == 3)
        assert sizes == [900_000] * 3
        assert len(connections) == 3, "a connection whose answer is not read to its end is not used again"


async def test_a_kept_connection_that_the_endpoint_closed_says_so() -> None:
    """It answers once, and breaks the connection off when another request comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    endpoint = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{endpoint.sockets[0].getsockname()[1]}/")
    sender = HttpSender(WebhooksConfig())
    try:
        results = [await sender.post(url, Request({}, b""), timeout_s=2) for _ in range(4)]
    finally:
        await sender.close()
        endpoint.close()
        await endpoint.wait_closed()
    assert [isinstance(result, Silence) for result in results] == [False, True, False, True]
    assert isinstance(results[1], Silence)
    assert (results[1].was_sent, results[1].was_stale) == (True, True)


async def test_a_certificate_has_to_be_of_an_authority_that_is_trusted(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = make_authority("tests", now=now)
    own = make_server_certificate(authority, ["127.0.0.1"], now=now)
    for name, data in (("ca", authority.certificate), ("crt", own.certificate), ("key", own.key)):
        (tmp_path / name).write_bytes(data)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    async with answering(context) as endpoint:
        results = []
        for config in (WebhooksConfig(), WebhooksConfig(ca=str(tmp_path / "ca"))):
            sender = HttpSender(config)
            request = Request({"trunkline-attempt": "1", "ce-id": "1"}, b"")
            results.append(await sender.post(URL(endpoint.url), request, timeout_s=5))
            await sender.close()
    doubted, trusted = results
    assert isinstance(doubted, Silence)
    assert "CERTIFICATE_VERIFY_FAILED" in doubted.reason
    assert not doubted.was_sent
    assert trusted == Answer(200)
    with pytest.raises(ValueError, match="holds no certificates"):
        WebhooksConfig(ca=str(tmp_path / "key"))


def refused(done: Any) -> str:
    assert done.returncode == 2, done.stderr
    return str(done.stderr)


def test_what_can_be_seen_to_be_wrong_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    def make(url: str, *options: str) -> Any:
        return trunkline("-n", "wrong", "webhooks", "create", "w", url, *options, address=server.address)

    assert "is never called" in refused(make("https://169.254.169.254/latest"))
    assert "must be https" in refused(make("http://hooks.example/"))
    assert "must not hold a user" in refused(make("https://me:s3cret@hooks.example/"))
    (tmp_path / "secret").write_bytes(b"tooshort")
    said = refused(make("https://hooks.example/", "--secret-file", str(tmp_path / "secret")))
    assert "8 bytes" in said
    assert "tooshort" not in said
    listed = trunkline("-n", "wrong", "webhooks", "list", address=server.address)
    assert listed.stdout == "no webhooks\n"


NAMES = {
    "innocent.example": [("169.254.169.254", 80)],
    "half.example": [("8.8.8.8", 443), ("169.254.169.254", 443)],
    "private.example": [("10.11.12.13", 80)],
}


@pytest.mark.parametrize(
    ("name", "scheme", "reason"),
    [
        ("innocent.example", "https", "169.254.169.254 is never called"),
        ("half.example", "https", "169.254.169.254 is never called"),
        ("169.254.169.254", "https", "169.254.169.254 is never called"),
        ("[::ffff:169.254.169.254]", "https", "is never called"),
        ("10.11.12.13", "http", "10.11.12.13 is called with https:// only"),
        ("private.example", "http", "10.11.12.13 is called with https:// only"),
        ("2852039166", "https", "is not a canonical IPv4 address"),
    ],
)
async def test_a_name_that_leads_to_forbidden_addresses_is_not_called(
    name: str, scheme: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    lookup, open_socket = socket.getaddrinfo, socket.socket

    def lie(host: str, port: int, *more: Any, **options: Any) -> Any:
        if host not in NAMES:
            return lookup(host, port, *more, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in NAMES[host]]

    def count_and_open(*given: Any) -> Any:
        opened.append(given)
        return open_socket(*given)

    monkeypatch.setattr(socket, "getaddrinfo", lie)
    monkeypatch.setattr(socket, "socket", count_and_open)
    sender = HttpSender(WebhooksConfig())
    try:
        result = await sender.post(URL(f"{scheme}://{name}/"), Request({}, b"x"), timeout_s=2)
    finally:
        await sender.close()
    assert isinstance(result, Silence)
    assert reason in result.reason
    assert not result.was_sent
    assert opened == []


async def test_a_name_that_resolves_to_metadata_pauses_its_webhook_and_says_why(tmp_path: Path) -> None:
    """A whole server whose resolver lies (uvloop has its own): the endpoint is held like one that is away."""
    (tmp_path / "lying").mkdir()
    (tmp_path / "lying" / "sitecustomize.py").write_text(
        "import socket\n"
        "lookup = socket.getaddrinfo\n"
        "def lie(host, port, *more, **options):\n"
        "    if host == 'innocent.example':\n"
        "        return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('169.254.169.254', port))]\n"
        "    return lookup(host, port, *more, **options)\n"
        "socket.getaddrinfo = lie\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "lying"))
        with serving(tmp_path, "--transport", "grpcio") as server:
            await create(server, "ssrf", "https://innocent.example/latest")
            await publish(server, "ssrf", 5)
            found = await failing(server, "ssrf", "169.254.169.254 is never called")
            assert found.HasField("paused_until")
            assert (await state(server, "ssrf")).set_aside == 0


async def test_a_secret_is_shown_nowhere(server: Server, tmp_path: Path) -> None:
    async with answering() as endpoint:
        file = tmp_path / "secret"
        file.write_bytes(SECRET)
        arguments = ("-n", "silent", "--json", "webhooks", "create", "w", endpoint.url, "--secret-file", str(file))
        made = await asyncio.to_thread(trunkline, *arguments, "--from-start", address=server.address)
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["signed"] is True
        again = await asyncio.to_thread(trunkline, *arguments, "--from-start", address=server.address)
        assert json.loads(again.stdout)["created"] is False
        other = await asyncio.to_thread(trunkline, *arguments, "--concurrency", "3", address=server.address)
        assert "with another configuration" in other.stderr
        ids = await publish(server, "silent", 3)
        await until(lambda: endpoint.taken.keys() == ids)
        listed = await asyncio.to_thread(
            trunkline, "-n", "silent", "--json", "webhooks", "list", address=server.address
        )
        shown = [made.stdout, again.stdout, other.stderr, listed.stdout, server.output.read_text()]
        async with (
            connect(server.address, namespace="silent") as plane,
            plane.subscribe(stream="changes", start="earliest") as changes,
        ):
            async for change in changes:
                shown.append(str(change.event))
                if change.event.type == "trunkline.subscription.created":
                    break
        found = await state(server, "silent")
        shown.append(str(found))
        assert found.config.webhook.signed
        for text in shown:
            assert SECRET.decode() not in text
            assert SECRET.hex() not in text
        deleted = await asyncio.to_thread(
            trunkline, "-n", "silent", "webhooks", "delete", "w", "--yes", address=server.address
        )
        assert deleted.returncode == 0, deleted.stderr
