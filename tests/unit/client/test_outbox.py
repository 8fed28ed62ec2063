"""The outbox on SQLite: what becomes part of a transaction, what is refused, and the relay against a fake control plane."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from trunkline.client import BackoffOptions, ClientOptions, Event
from trunkline.client.outbox import Outbox, Relay, RelayOptions, StoreAway, open_store
from trunkline.client.outbox._plan import READ_BYTES_MAX, fault_of
from trunkline.client.outbox._sqlite import path_of
from trunkline.client.outbox._store import Reading
from trunkline.client.outbox._table import Table
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import InvalidArgument, NotSupported, StreamNotFound

OUTBOX = Outbox(source="/shop")
QUICK = RelayOptions(
    poll_interval_s=0.01, take_over_interval_s=0.02, publish_timeout_s=0.2,
    backoff=BackoffOptions(initial_backoff_s=0.01, max_backoff_s=0.05),
)  # fmt: skip
IMPATIENT = ClientOptions(backoff=BackoffOptions(initial_backoff_s=0.01, max_backoff_s=0.05))
WITHIN_S = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with connected(path) as connection:
        OUTBOX.create_table(connection)
        OUTBOX.create_table(connection)
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    return path


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that commits and closes."""
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def add(path: Path, *texts: str) -> None:
    with connected(path) as connection:
        for text in texts:
            OUTBOX.add(connection, Event(type="order.placed", data=text))


def rows(path: Path) -> list[Any]:
    with connected(path) as connection:
        return connection.execute("SELECT id, state, reason FROM trunkline_outbox ORDER BY id").fetchall()


def told(plane: FakeControlPlane) -> list[str]:
    return [record.event.text_data for record in plane.stream().records]


@asynccontextmanager
async def relaying(plane: FakeControlPlane, path: Path, **arguments: Any) -> AsyncIterator[Relay]:
    """A relay, stopped at the end; what it raised is raised."""
    async with plane.connect(options=IMPATIENT) as trunkline:
        relay = Relay(trunkline, f"sqlite:///{path}", **{"options": QUICK, **arguments})
        running = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            relay.stop()
            async with asyncio.timeout(WITHIN_S):
                await running


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 (what no event tells can only be asked for)
            await asyncio.sleep(0.005)


# The application.


def test_an_event_is_part_of_the_transaction(path: Path) -> None:
    with connected(path) as connection:
        OUTBOX.add(connection, Event(type="order.placed"))
        connection.rollback()
        connection.execute("INSERT INTO orders VALUES (7)")
        added = OUTBOX.add(connection, Event.json(type="order.placed", data={"id": 7}, key="7"))
    assert added.source == "/shop"
    assert len(added.id) == 32
    with connected(path) as connection:
        (row,) = connection.execute("SELECT source, event_id, event_type, state FROM trunkline_outbox").fetchall()
    assert row == ("/shop", added.id, "order.placed", "waiting")


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Event(type="not a topic"), "event.type"),
        (Event(type="a", data=b"x" * (1 << 20)), "event"),
        (Event(type="a", attributes={"No": 1}), "event.attributes"),
        (Event(type="a", attributes={"n": 1 << 40}), "event.attributes[n]"),
    ],
)
def test_what_the_bus_would_refuse_is_refused_at_once(path: Path, event: Event, field: str) -> None:
    with connected(path) as connection:
        with pytest.raises(InvalidArgument) as caught:
            OUTBOX.add(connection, event)
        assert not connection.in_transaction
    assert caught.value.violations[0].field == field
    assert rows(path) == []


def test_a_connection_that_commits_by_itself_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(InvalidArgument, match="in a transaction"):
        OUTBOX.add(connection, Event(type="a"))
    connection.execute("BEGIN")
    OUTBOX.add(connection, Event(type="a"))
    connection.execute("ROLLBACK")
    connection.close()
    assert rows(path) == []


@pytest.mark.parametrize("wrong", ["", "Orders", "a b", "a;drop", "a.b.c", "x" * 56, "1a"])
def test_a_table_has_a_plain_name(wrong: str) -> None:
    with pytest.raises(InvalidArgument, match="table"):
        Outbox(source="/shop", table=wrong)


def test_a_source_is_required() -> None:
    with pytest.raises(InvalidArgument, match="source"):
        Outbox(source="")


def test_connections_of_other_packages_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="connection"):
        OUTBOX.add(object(), Event(type="a"))


async def test_an_async_connection(path: Path) -> None:
    async with aiosqlite.connect(path) as connection:
        await OUTBOX.create_table_async(connection)
        await OUTBOX.add_async(connection, Event(type="a", id="gone"))
        await connection.rollback()
        await OUTBOX.add_async(connection, Event(type="a", id="kept"))
        await connection.commit()
        with pytest.raises(InvalidArgument, match="connection"):
            OUTBOX.add(connection, Event(type="a"))
    with connected(path) as blocking:
        assert blocking.execute("SELECT event_id FROM trunkline_outbox").fetchall() == [("kept",)]
        with pytest.raises(InvalidArgument, match="connection"):
            await OUTBOX.add_async(blocking, Event(type="a"))


# The relay.


async def test_committed_events_are_published_and_deleted(path: Path) -> None:
    plane = FakeControlPlane()
    add(path, "0", "1")
    async with relaying(plane, path) as relay:
        await until(lambda: rows(path) == [])
        add(path, "2")
        await until(lambda: rows(path) == [])
        assert relay.leads
    assert told(plane) == ["0", "1", "2"]
    assert (relay.counts.published, relay.counts.duplicates, relay.counts.failed) == (3, 0, 0)
    assert not relay.leads


async def test_what_is_no_event_is_marked_and_holds_nobody_up(path: Path) -> None:
    plane = FakeControlPlane()
    add(path, "0")
    with connected(path) as connection:
        connection.execute(
            "INSERT INTO trunkline_outbox (source, event_id, event_type, event) VALUES ('s', 'i', 't', 'text')"
        )
    add(path, "1")
    async with relaying(plane, path) as relay:
        await until(lambda: relay.counts.published == 2)
        await until(lambda: relay.counts.failed)
    ((id, state, reason),) = rows(path)
    assert (id, state) == (2, "failed")
    assert "well-formed" in reason
    assert told(plane) == ["0", "1"]


async def test_what_the_bus_refuses_is_marked_listed_and_may_wait_again(path: Path) -> None:
    plane = FakeControlPlane()
    plane.refuse_next_publish(InvalidArgument.of("events[0].type", "a known one", "order.placed"))
    add(path, "0")
    async with relaying(plane, path) as relay:
        await until(lambda: relay.counts.failed)
        add(path, "1")
        await until(lambda: told(plane) == ["1"])
    store = await open_store(f"sqlite:///{path}", Table("trunkline_outbox"), timeout_s=5)
    (refused,) = await store.refusals(most=10)
    assert (refused.id, refused.source, refused.event_type) == (1, "/shop", "order.placed")
    assert "a known one" in refused.reason
    assert await store.counts() == await store.counts()
    assert (await store.counts()).failed == 1
    assert await store.retry([99]) == 0
    assert await store.retry([1]) == 1
    await store.close()
    async with relaying(plane, path):
        await until(lambda: told(plane) == ["1", "0"])


async def test_a_refusal_of_the_relay_ends_it_and_loses_nothing(path: Path) -> None:
    add(path, "0")
    with pytest.raises(StreamNotFound):
        async with relaying(FakeControlPlane(), path, stream="elsewhere"):
            await asyncio.sleep(0.2)
    assert rows(path) == [(1, "waiting", None)]


async def test_it_waits_for_a_bus_that_is_away(path: Path) -> None:
    plane = FakeControlPlane()
    plane.go_away()
    add(path, "0", "1")
    async with relaying(plane, path) as relay:
        await until(lambda: relay.counts.bus_away > 1)
        assert [state for _, state, _ in rows(path)] == ["waiting", "waiting"]
        plane.come_back()
        await until(lambda: rows(path) == [])
    assert told(plane) == ["0", "1"]


async def test_it_waits_for_a_database_that_is_locked(path: Path) -> None:
    plane = FakeControlPlane()
    add(path, "0")
    options = RelayOptions(database_timeout_s=0.05, poll_interval_s=0.01, backoff=QUICK.backoff)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    async with relaying(plane, path, options=options) as relay:
        await until(lambda: relay.counts.database_away > 1)
        writer.execute("COMMIT")
        await until(lambda: rows(path) == [])
    writer.close()
    assert told(plane) == ["0"], "published again and again, kept once"
    assert relay.counts.duplicates == relay.counts.published - 1 > 0


async def test_a_second_relay_waits_and_takes_over(path: Path) -> None:
    plane = FakeControlPlane()
    async with relaying(plane, path) as first:
        await until(lambda: first.leads)
        async with relaying(plane, path) as second:
            add(path, "0")
            await until(lambda: rows(path) == [])
            assert not second.leads
            first.stop()
            await until(lambda: second.leads)
            add(path, "1")
            await until(lambda: rows(path) == [])
    assert (first.counts.published, second.counts.published) == (1, 1)


async def test_tables_of_one_database_have_relays_of_their_own(path: Path) -> None:
    plane, other = FakeControlPlane(), Outbox(source="/shop", table="audit_outbox")
    with connected(path) as connection:
        other.create_table(connection)
        other.add(connection, Event(type="a", data="audit"))
    async with relaying(plane, path) as first, relaying(plane, path, table="audit_outbox") as second:
        await until(lambda: first.leads and second.leads)
        await until(lambda: told(plane) == ["audit"])


async def test_published_rows_may_be_kept_for_a_while(path: Path) -> None:
    plane = FakeControlPlane()
    add(path, "0")
    async with relaying(plane, path, options=RelayOptions(keep_s=3600, poll_interval_s=0.01)):
        await until(lambda: rows(path) == [(1, "published", None)])
    with connected(path) as connection:
        connection.execute("UPDATE trunkline_outbox SET settled_at = settled_at - 3601")
    add(path, "1")
    async with relaying(plane, path, options=RelayOptions(keep_s=3600, poll_interval_s=0.01)):
        await until(lambda: rows(path) == [(2, "published", None)])
    assert told(plane) == ["0", "1"], "what is kept is not published again"


async def test_a_read_is_bounded_by_rows_and_by_bytes(path: Path) -> None:
    add(path, "x" * 1_000, "y" * 1_000, "z")
    store = await open_store(f"sqlite:///{path}", Table("trunkline_outbox"), timeout_s=5)
    assert [row.id for row in await store.read(Reading(rows=2, bytes=1 << 20))] == [1, 2]
    assert [row.id for row in await store.read(Reading(rows=9, bytes=2_500))] == [1, 2, 3]
    assert [row.id for row in await store.read(Reading(rows=9, bytes=2_000))] == [1]
    assert [row.id for row in await store.read(Reading(rows=9, bytes=1))] == [1], "one is always read"
    await store.close()


async def test_what_is_far_too_long_is_not_read_whole(path: Path) -> None:
    with connected(path) as connection:
        connection.execute(
            "INSERT INTO trunkline_outbox (source, event_id, event_type, event) VALUES ('s', 'i', 't', zeroblob(?))",
            (50 << 20,),
        )
    store = await open_store(f"sqlite:///{path}", Table("trunkline_outbox"), timeout_s=5)
    (row,) = await store.read(Reading(rows=9, bytes=1 << 20))
    assert len(row.event) == READ_BYTES_MAX
    assert "at most" in fault_of(row)
    await store.close()


async def test_a_database_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    with pytest.raises(InvalidArgument, match="database"):
        async with relaying(FakeControlPlane(), path):
            await asyncio.sleep(0.2)
    assert not path.exists(), "none is made"
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(InvalidArgument, match="table"):
        async with relaying(FakeControlPlane(), path):
            await asyncio.sleep(0.2)
    path.write_bytes(b"no database at all, whatever it is called" * 100)
    with pytest.raises(StoreAway, match="not a database"):
        await open_store(f"sqlite:///{path}", Table("trunkline_outbox"), timeout_s=5)


@pytest.mark.parametrize(
    "url", ["mysql://root:secret@db/shop", "sqlite://", "sqlite:///", "shop.db", "sqlite://host/a.db"]
)
async def test_urls_of_other_databases_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidArgument, match="database") as caught:
        await open_store(url, Table("trunkline_outbox"), timeout_s=5)
    assert "secret" not in str(caught.value)


async def test_without_its_driver_postgresql_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "trunkline.client.outbox._postgres", raising=False)
    with pytest.raises(NotSupported, match=r"trunkline\[postgres\]"):
        await open_store("postgresql://localhost/shop", Table("trunkline_outbox"), timeout_s=5)


def test_paths_are_written_as_sqlalchemy_does() -> None:
    assert path_of("sqlite:///shop.db") == Path("shop.db")
    assert path_of("sqlite:////var/lib/a%20b.db") == Path("/var/lib/a b.db")


@pytest.mark.parametrize(
    "wrong",
    [{"batch_events": 0}, {"batch_events": 10_001}, {"batch_bytes": 16 << 20}, {"publish_timeout_s": 0}, {"keep_s": -1},
     {"poll_interval_s": 0}],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="options"):
        RelayOptions(**wrong)
