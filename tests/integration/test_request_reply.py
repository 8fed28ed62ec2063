"""Requests over events against a real server: both faces, a server that dies, a service that dies with a request in hand."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from integration.processes import Server, serving, trunkline
from integration.waiting import until

from trunkline.client import BackoffOptions, ClientOptions, Event, Trunkline, connect, connect_sync
from trunkline.core.errors import DeadlineExceeded, RequestFailed, TrunklineError

OPTIONS = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.1, max_backoff_s=0.5))
SERVICE = """
import asyncio, sys
from trunkline.client import Event, connect

async def handle(request):
    print("has", request.data, flush=True)
    if request.data == "slow":
        await asyncio.sleep(60)
    return Event(type="told", data="by the process")

async def main():
    async with connect(sys.argv[1]) as trunkline:
        await trunkline.serve_requests(["slow.*"], handle, name="slow")

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


async def double(request: Event) -> Event:
    return Event(type="told", data=str(2 * int(str(request.data))))


def ask(number: int, topic: str = "price.wanted") -> Event:
    return Event(type=topic, data=str(number))


@asynccontextmanager
async def answering(connection: Trunkline, name: str = "prices", stream: str = "events") -> AsyncIterator[None]:
    async with connection.subscribe(name, filters=["price.*"], stream=stream) as made:
        await made.opened()
    task = asyncio.create_task(connection.serve_requests(["price.*"], double, name=name, stream=stream))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_requests_and_replies(server: Server) -> None:
    made = trunkline("streams", "create", "requests", "--sync", "memory", "--max-age", "60", address=server.address)
    assert made.returncode == 0, made.stderr
    async with connect(server.address, options=OPTIONS) as asking, connect(server.address, options=OPTIONS) as service:
        for stream in ("events", "requests"):
            async with answering(service, stream=stream):
                replies = await asyncio.gather(*(asking.request(ask(n), stream=stream) for n in range(200)))
            assert [reply.data for reply in replies] == [str(2 * n) for n in range(200)]
            with pytest.raises(DeadlineExceeded):
                await asking.request(ask(1, "nobody.serves"), stream=stream, timeout_s=0.2)
        assert asking.request_counts.dropped == 0


async def test_the_blocking_face(server: Server) -> None:
    def broken_or_double(request: Event) -> Event:
        number = int(str(request.data))
        return Event(type="told", data=str(100 // number))

    def in_threads() -> list[object]:
        with connect_sync(server.address, namespace="blocking") as service:
            with service.subscribe("prices", filters=["price.*"]) as made:
                made.opened()
            thread = threading.Thread(
                target=service.serve_requests, args=(["price.*"], broken_or_double), kwargs={"name": "prices"}
            )
            thread.start()
            with connect_sync(server.address, namespace="blocking") as asking:
                heard: list[object] = [asking.request(ask(n)).data for n in (1, 4)]
                with pytest.raises(RequestFailed, match="ZeroDivisionError"):
                    asking.request(ask(0))
                heard.append(asking.request_counts.replied)
        thread.join(10)
        assert not thread.is_alive(), "the end of the connection ends it"
        return heard

    assert await asyncio.to_thread(in_threads) == ["100", "25", 3]


async def test_requests_go_on_over_a_sigkill_of_the_server(tmp_path: Path) -> None:
    outcomes: list[str] = []

    async def keep_asking(connection: Trunkline) -> None:
        number = 0
        while True:
            number += 1
            try:
                reply = await connection.request(ask(number), timeout_s=3)
                outcomes.append("right" if reply.data == str(2 * number) else "wrong")
            except TrunklineError as error:
                outcomes.append(error.code)

    with serving(tmp_path) as server:
        async with (
            connect(server.address, options=OPTIONS) as asking,
            connect(server.address, options=OPTIONS) as service,
            answering(service),
        ):
            running = [asyncio.create_task(keep_asking(asking)) for _ in range(8)]
            for _ in range(2):
                before = outcomes.count("right")
                await until(lambda: outcomes.count("right") > before + 100)  # noqa: B023
                server.kill()
                await asyncio.to_thread(server.start)
            before = outcomes.count("right")
            await until(lambda: outcomes.count("right") > before + 100)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    assert "wrong" not in outcomes
    others = [outcome for outcome in outcomes if outcome != "right"]
    assert len(others) <= 3 * 8 * 2, f"a kill costs what was under way: {others}"


async def test_another_one_answers_when_a_service_dies_with_a_request_in_hand(server: Server) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, server.address, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with connect(server.address, options=OPTIONS) as connection:
            with suppress(DeadlineExceeded):
                await connection.request(Event(type="slow.start", data="quick"), timeout_s=0.1)
            while True:  # until it serves
                with suppress(DeadlineExceeded):
                    reply = await connection.request(Event(type="slow.start", data="quick"), timeout_s=1)
                    assert reply.data == "by the process"
                    break
            asking = asyncio.create_task(connection.request(Event(type="slow.start", data="slow"), timeout_s=20))
            while await process.stdout.readline() != b"has slow\n":
                pass
            process.kill()

            async def rescue(request: Event) -> Event:
                return Event(type="told", data="by another")

            task = asyncio.create_task(connection.serve_requests(["slow.*"], rescue, name="slow"))
            assert (await asking).data == "by another"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
