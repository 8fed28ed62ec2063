"""SIGKILL of writers, relays, control plane and database, all in the middle of everything: each committed event is published,
once, in the order of its key; none that was rolled back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from integration.outbox_writer import connected, ledger, prepare
from integration.postgres import postgres
from integration.processes import TRUNKLINE, Server, serving
from integration.waiting import until

from trunkline.api.v1 import events_pb2
from trunkline.client import Event, connect

ROUNDS = 8
WRITER = Path(__file__).with_name("outbox_writer.py")
TESTS = Path(__file__).parents[1]


class Part:
    """A process that is killed and begun again."""

    def __init__(self, name: str, log: Path, *command: str) -> None:
        self.name = name
        self._log = log
        self._command = command
        self._log_begins = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def has_spoken(self) -> bool:
        """Since it was begun: it has come further than its imports."""
        return self._log.stat().st_size > self._log_begins

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        with self._log.open("ab") as log:
            self._log_begins = log.tell()
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def kill(self) -> None:
        if self.process is not None:
            assert self.process.poll() is None, f"{self.name} ended by itself:\n{self._log.read_text()}"
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, answered with an orderly end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self._log.read_text()
        self.process = None


@asynccontextmanager
async def running(parts: list[Part]) -> AsyncIterator[None]:
    try:
        for part in parts:
            part.start()
        yield
    finally:
        for part in parts:
            if part.process is not None:
                part.process.kill()
                part.process.wait()


async def storm(
    parts: list[Part], server: Server, crash: Callable[[], None], rng: random.Random, committed: Callable[[], int]
) -> None:
    """Kill one after the other under load, the control plane and the database once."""
    for number in range(ROUNDS):
        before = committed()
        await until(lambda: committed() > before + 40)  # noqa: B023
        await asyncio.sleep(rng.random())
        if number == ROUNDS // 2:
            server.kill()
            await asyncio.to_thread(server.start)
        if number == ROUNDS // 2 + 2:
            await asyncio.to_thread(crash)
        victim = rng.choice(parts)
        victim.kill()
        victim.start()


async def published(address: str) -> list[Event]:
    """Everything that the stream holds."""
    async with connect(address) as trunkline:
        answer = await trunkline.call(
            lambda stubs: stubs.events.ListStreams,
            events_pb2.ListStreamsRequest(namespace="default"),
            events_pb2.ListStreamsResponse,
        )
        (count,) = [stream.next_offset for stream in answer.streams if stream.config.name == "events"]
        async with trunkline.subscribe(start="earliest", acknowledge=False, credit=10_000) as subscription:
            found = []
            for _ in range(count):
                delivery = await subscription.next()
                assert delivery is not None
                found.append(delivery.event)
            return found


async def story(tmp_path: Path, url: str, crash: Callable[[], None], seed: int) -> None:
    with closing(connected(url)) as connection:
        prepare(connection)
        connection.commit()

    def count(statement: str) -> int:
        with closing(connected(url)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement)
            return int(cursor.fetchone()[0])

    with serving(tmp_path) as server:
        relay = str(TRUNKLINE), "--address", server.address, "outbox", "relay", "--database", url, "--batch", "20"
        relays = [Part(f"relay {n}", tmp_path / f"relay-{n}.log", *relay) for n in range(2)]
        writers = [
            Part(f"writer {n}", tmp_path / f"writer-{n}.log", sys.executable, str(WRITER), url, f"{seed}{n}")
            for n in range(2)
        ]
        async with running(relays + writers):
            rng = random.Random(seed)
            await storm(relays + writers, server, crash, rng, lambda: count("SELECT count(*) FROM ledger"))
            for writer in writers:
                writer.kill()
            await until(lambda: count("SELECT count(*) FROM trunkline_outbox") == 0, within_s=60)
            await until(lambda: all(one.has_spoken for one in relays))
            for one in relays:
                one.stop()
        events = await published(server.address)
    with closing(connected(url)) as connection:
        expected = ledger(connection)
    assert sum(map(len, expected.values())) > 40 * ROUNDS
    for key, ids in expected.items():
        assert [event.id for event in events if event.key == key] == ids, f"seed {seed}, {key}"
    assert len(events) == sum(map(len, expected.values()))


@pytest.mark.timeout(180)
async def test_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    with closing(connected(url)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    await story(tmp_path, url, lambda: None, random.randrange(1000))


@pytest.mark.timeout(180)
async def test_postgresql(tmp_path: Path) -> None:
    with postgres() as database:

        def crash() -> None:
            database.stop(how=signal.SIGQUIT)
            database.start()

        await story(tmp_path, database.url, crash, random.randrange(1000))
