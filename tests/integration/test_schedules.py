"""Schedules of a real server process: both faces of the SDK, plain gRPC, the command line, tokens, and SIGKILL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from integration.faces import threaded
from integration.processes import Server, serving, trunkline
from integration.test_client_security import init

from trunkline.api.status import DETAILS_KEY, error_from
from trunkline.api.v1 import events_pb2, schedules_pb2, schedules_pb2_grpc
from trunkline.client import BackoffOptions, ClientOptions, Event, Tls, Trunkline, connect, connect_sync
from trunkline.core.errors import InvalidArgument, PermissionDenied, ScheduleExists, ScheduleNotFound, StreamNotFound

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.1, max_backoff_s=1))
FAST = "[schedules]\ninterval_s_min = 0.1\n"


def fast(folder: Path) -> tuple[str, str]:
    """Options of a server whose schedules may be faster than is good for one."""
    path = folder / "fast.toml"
    path.write_text(FAST)
    return "--config", str(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, *fast(folder)) as running:
        yield running


@pytest.fixture(params=["async", "blocking"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    given: dict[str, Any] = {"namespace": f"sdk-{request.param}", "options": OPTIONS}
    dialled = connect(server.address, **given)
    if request.param == "blocking":
        dialled = threaded(connect_sync(server.address, **given))
    async with dialled as connected:
        yield connected


async def received(client: Any, count: int, *, filters: tuple[str, ...] = (), stream: str = "events") -> list[Any]:
    """The first so many deliveries of a stream."""
    found: list[Any] = []
    async with client.subscribe(filters=filters, stream=stream, start="earliest", acknowledge=False) as deliveries:
        async with asyncio.timeout(20):
            while len(found) < count:
                found.append(await deliveries.next())
    return found


async def test_once_and_often(client: Any) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=0.7)).replace(microsecond=250_000)
    once = await client.schedule("once", Event.json(type="due.once", data={"n": 1}, key="k"), at=at)
    assert (once.at, once.next_time, once.fired_count, once.event.json_data()) == (at, at, 0, {"n": 1})
    [delivery] = await received(client, 1, filters=("due.once",))
    assert delivery.event.attributes["scheduledtime"] == at
    assert (delivery.event.json_data(), delivery.event.key) == ({"n": 1}, "k")
    assert delivery.event.id.startswith("once/")
    assert delivery.time_ns >= at.timestamp() * 1e9

    begin = datetime(2026, 1, 1, tzinfo=UTC)
    await client.schedule("often", Event(type="due.often"), every=0.2, start=begin)
    times = [one.event.attributes["scheduledtime"] for one in await received(client, 5, filters=("due.often",))]
    assert [later - earlier for earlier, later in pairwise(times)] == [timedelta(seconds=0.2)] * 4
    assert (times[0] - begin) % timedelta(seconds=0.2) == timedelta(0)
    [often] = await client.schedules()
    assert often.fired_count >= 5
    assert often.last_error == ""
    with pytest.raises(ScheduleExists):
        await client.schedule("often", Event(type="due.often"), every=60)
    await client.unschedule("often")
    assert await client.schedules() == ()
    with pytest.raises(ScheduleNotFound):
        await client.unschedule("often")


async def test_a_calendar_rule_tells_when_it_comes_next(client: Any) -> None:
    wanted: dict[str, Any] = {"cron": "30 9 * * MON", "time_zone": "Europe/Berlin", "skip_missed": True, "max_count": 9}
    made = await client.schedule("weekly", Event(type="due.weekly"), **wanted)
    assert made == await client.schedule("weekly", Event(type="due.weekly"), **wanted)
    assert made.next_time is not None
    assert made.next_time > datetime.now(UTC)
    assert (made.next_time.weekday(), made.next_time.hour in (7, 8)) == (0, True)
    assert (made.cron, made.time_zone, made.skip_missed, made.max_count) == ("30 9 * * MON", "Europe/Berlin", True, 9)
    await client.unschedule("weekly")


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({}, InvalidArgument),
        ({"cron": "* * * * *", "every": 1}, InvalidArgument),
        ({"at": datetime(2030, 1, 1)}, InvalidArgument),
        ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidArgument),
        ({"every": 60, "time_zone": "UTC"}, InvalidArgument),
        ({"every": 0.05}, InvalidArgument),
        ({"cron": "0 0 30 2 *"}, InvalidArgument),
        ({"cron": "* * * * *", "time_zone": "Nowhere"}, InvalidArgument),
        ({"every": 60, "stream": "none"}, StreamNotFound),
    ],
)
async def test_what_is_refused_changes_nothing(client: Any, rule: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        await client.schedule("refused", Event(type="due.refused"), **rule)
    assert await client.schedules() == ()


async def test_pages_over_plain_grpc(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = schedules_pb2_grpc.ScheduleServiceStub(channel)
        for n in range(25):
            schedule = schedules_pb2.Schedule(
                namespace="pages", name=f"s-{n:02}",
                event=events_pb2.CloudEvent(id="x", source="/a", spec_version="1.0", type="t", binary_data=bytes(60_000)),
            )  # fmt: skip
            schedule.cron.expression = "0 0 1 1 *"
            answer = await stub.CreateSchedule(schedules_pb2.CreateScheduleRequest(schedule=schedule))
            assert answer.created
        names: list[str] = []
        sizes: list[int] = []
        token = ""
        while not names or token:
            request = schedules_pb2.ListSchedulesRequest(namespace="pages", page_size=20, page_token=token)
            page = await stub.ListSchedules(request)
            names += [state.schedule.name for state in page.schedules]
            sizes.append(len(page.schedules))
            token = page.next_page_token
        assert names == [f"s-{n:02}" for n in range(25)]
        assert sizes == [18, 7], "a page ends with a mebibyte"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.ListSchedules(schedules_pb2.ListSchedulesRequest(page_token="?"))
        details = next(value for key, value in failed.value.trailing_metadata() or () if key == DETAILS_KEY)
        assert isinstance(details, bytes)
        error = error_from(failed.value.code().name, failed.value.details() or "", details)
        assert isinstance(error, InvalidArgument)
        assert error.violations[0].field == "page_token"


async def test_that_schedules_come_and_go_is_seen_in_changes(server: Server) -> None:
    async with connect(server.address, namespace="seen") as client:
        await client.schedule("s", Event(type="due.s"), at=datetime.now(UTC))
        [created, deleted] = await received(client, 2, filters=("trunkline.schedule.*",), stream="changes")
        assert (created.event.type, created.event.subject) == ("trunkline.schedule.created", "s")
        assert (deleted.event.type, deleted.event.subject) == ("trunkline.schedule.deleted", "s")
        assert deleted.event.json_data()["author"] == "trunkline"


def test_the_command_line_makes_lists_and_deletes(server: Server) -> None:
    def run(*arguments: str) -> Any:
        done = trunkline("--json", "-n", "cli", "schedules", *arguments, address=server.address)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    [made] = run(
        "create", "report", "report.wanted", '{"day": 1}', "--cron", "0 6 * * MON-FRI", "--time-zone", "Asia/Tokyo"
    )
    assert (made["when"], made["type"], made["fired_count"]) == ("cron 0 6 * * MON-FRI Asia/Tokyo", "report.wanted", 0)
    run("create", "tick", "clock.ticked", "--every", "60", "--until", "2090-01-01T00:00:00Z", "--key", "k")
    assert [row["name"] for row in run("list")] == ["report", "tick"]
    table = trunkline("-n", "cli", "schedules", "list", address=server.address).stdout
    assert "NEXT TIME" in table
    assert "every 60 s" in table
    run("delete", "report")
    assert [row["name"] for row in run("list")] == ["tick"]
    wrong = trunkline("-n", "cli", "schedules", "create", "x", "t", "--at", "noon", address=server.address)
    assert (wrong.returncode, "--at" in wrong.stderr) == (2, True)


# Crashes.


async def test_sigkill_between_publishing_and_remembering_publishes_nothing_twice(tmp_path: Path) -> None:
    """Control is told of a fast schedule once a minute: all that it publishes in this test, but the first after each start,
    lies between publishing and remembering. The stream recognises no repeats."""
    with serving(tmp_path, *fast(tmp_path)) as server:
        async with connect(server.address, namespace="kill", options=OPTIONS) as client:
            await _make_stream(client, "jobs")
            begin = datetime.now(UTC).replace(microsecond=0)
            await client.schedule("fast", Event(type="due.fast"), every=0.1, start=begin, stream="jobs")
            for _ in range(4):
                before = len(await received(client, 1, stream="jobs"))
                await asyncio.sleep(0.7)
                server.kill()
                server.start()
                assert before
            await asyncio.sleep(1)
            [state] = await client.schedules()
            await client.unschedule("fast")
            await asyncio.sleep(0.3)
            ids = [one.event.id for one in await _everything(client, "jobs")]
            assert len(ids) == len(set(ids))
            assert len(ids) - state.fired_count in range(10), "what was fired while this was asked"
            assert len(ids) > 20


async def test_what_was_due_at_a_sigkill_is_published_once(tmp_path: Path) -> None:
    with serving(tmp_path, *fast(tmp_path)) as server:
        async with connect(server.address, namespace="kill", options=OPTIONS) as client:
            await _make_stream(client, "jobs")
            for n in range(4):
                async with client.subscribe(stream="jobs", acknowledge=False) as deliveries:
                    await deliveries.opened()
                    at = datetime.now(UTC) + timedelta(seconds=0.2)
                    await client.schedule(f"once-{n}", Event(type="due.once"), at=at, stream="jobs")
                    await asyncio.wait_for(deliveries.next(), 10)
                    server.kill()
                server.start()
            await asyncio.sleep(0.5)
            assert await client.schedules() == ()
            names = [one.event.id.split("/")[0] for one in await _everything(client, "jobs")]
            assert names == [f"once-{n}" for n in range(4)]


async def test_what_was_missed_while_the_server_was_down_comes_once(tmp_path: Path) -> None:
    with serving(tmp_path, *fast(tmp_path)) as server:
        async with connect(server.address, namespace="down", options=OPTIONS) as client:
            now = datetime.now(UTC)
            await client.schedule("once", Event(type="due.once"), at=now + timedelta(seconds=2))
            await client.schedule("often", Event(type="due.often"), every=1, start=now + timedelta(seconds=1.5))
            assert server.stop() == 0
            await asyncio.sleep(3.5)
            server.start()
            [late] = await received(client, 1, filters=("due.once",))
            assert late.time_ns / 1e9 - late.event.attributes["scheduledtime"].timestamp() > 1
            often = await received(client, 2, filters=("due.often",))
            first = often[0].event.attributes["scheduledtime"]
            assert first >= now + timedelta(seconds=2.4), "those before the last were made good for by it"
            assert often[1].event.attributes["scheduledtime"] - first == timedelta(seconds=1)
            assert [one.name for one in await client.schedules()] == ["often"]


async def _make_stream(client: Trunkline, name: str) -> None:
    """One that recognises no repeats."""
    config = events_pb2.StreamConfig(namespace=client.namespace, name=name)
    config.dedupe_window.FromMilliseconds(0)
    request = events_pb2.CreateStreamRequest(stream=config)
    await client.call(lambda stubs: stubs.events.CreateStream, request, events_pb2.CreateStreamResponse)


async def _everything(client: Trunkline, stream: str) -> list[Any]:
    """All that a stream holds now."""
    listed = await client.call(
        lambda stubs: stubs.events.ListStreams,
        events_pb2.ListStreamsRequest(namespace=client.namespace),
        events_pb2.ListStreamsResponse,
    )
    count = next(state.next_offset for state in listed.streams if state.config.name == stream)
    return await received(client, count, stream=stream)


# Who may.


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Connects with a new token of a role."""
    base = tmp_path_factory.mktemp("secured")
    admin = init(base / "control")
    ca = base / "control" / "ca.pem"
    with serving(base, "--config", str(base / "control" / "trunkline.toml")) as server:

        def dial(role: str, *options: str) -> Any:
            as_admin = ("--ca", str(ca), "--token", admin, "--json", "token", "create", "--role", role)
            made = json.loads(trunkline(*as_admin, *options, address=server.address).stdout)
            return connect(server.address, tls=Tls.from_files(ca=ca), token=made["secret"], namespace="shop")

        yield dial


async def test_who_may_publish_may_schedule_and_who_may_read_sees(token: Callable[..., Any]) -> None:
    placed, paid = Event(type="order.placed"), Event(type="mail.sent", topic="order.paid")
    async with (
        token("service", "--topic", "order.>") as orders,
        token("service", "--topic", "mail.>") as mails,
        token("reader") as reader,
        token("service", "--for-namespace", "other") as other,
    ):
        await orders.schedule("placed", placed, every=60)
        await orders.schedule("paid", paid, every=60)
        for who, event in ((reader, placed), (mails, placed), (mails, paid), (other, placed)):
            with pytest.raises(PermissionDenied):
                await who.schedule("more", event, every=60)
        for who in (reader, mails, other):
            with pytest.raises(PermissionDenied):
                await who.unschedule("placed")
        with pytest.raises(PermissionDenied):
            await other.schedules()
        assert [one.name for one in await reader.schedules()] == ["paid", "placed"]
        assert await mails.schedules() == ()
        await orders.unschedule("placed")
        assert [one.name for one in await orders.schedules()] == ["paid"]
