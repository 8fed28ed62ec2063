"""The outbox on a real PostgreSQL: every driver, order over concurrent transactions, wake-up, restarts, take-over."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
from integration.postgres import Postgres, postgres
from integration.waiting import until

from trunkline.client import BackoffOptions, Event
from trunkline.client.outbox import Outbox, Relay, RelayOptions, open_store
from trunkline.client.outbox._plan import READ_BYTES_MAX
from trunkline.client.outbox._store import Reading
from trunkline.client.outbox._table import Table
from trunkline.client.testing import FakeControlPlane
from trunkline.core.errors import InvalidArgument

OUTBOX = Outbox(source="/shop")
PATIENT = RelayOptions(
    poll_interval_s=60, take_over_interval_s=0.05,
    backoff=BackoffOptions(initial_backoff_s=0.05, max_backoff_s=0.2),
)  # fmt: skip
"""It does not look unless it is told."""
TABLE = "trunkline_outbox"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def database(server: Postgres) -> Postgres:
    """With an empty outbox, and rows to quarrel about."""
    with server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS trunkline_outbox, orders, noise")
        OUTBOX.create_table(connection)
        OUTBOX.create_table(connection)
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, state text)")
        connection.execute("CREATE TABLE noise (id int)")
        connection.execute("INSERT INTO orders VALUES (7, 'new')")
    return server


def told(plane: FakeControlPlane) -> list[str]:
    return [record.event.text_data for record in plane.stream().records]


def rows(database: Postgres) -> list[Any]:
    with database.connect() as connection:
        return connection.execute("SELECT id, state, reason FROM trunkline_outbox ORDER BY id").fetchall()


def add(connection: Any, text: str, outbox: Outbox = OUTBOX) -> None:
    outbox.add(connection, Event(type="order.placed", data=text))


@asynccontextmanager
async def relaying(plane: FakeControlPlane, database: Postgres, **arguments: Any) -> AsyncIterator[Relay]:
    """A relay, stopped at the end; what it raised is raised."""
    async with plane.connect() as trunkline:
        relay = Relay(trunkline, database.url, **{"options": PATIENT, **arguments})
        running = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            relay.stop()
            async with asyncio.timeout(10):
                await running


# The application's connections.


@pytest.mark.parametrize("connect", [psycopg.connect, psycopg2.connect], ids=["psycopg", "psycopg2"])
async def test_blocking_connections(database: Postgres, connect: Callable[[str], Any]) -> None:
    plane, connection = FakeControlPlane(), connect(database.url)
    add(connection, "gone")
    connection.rollback()
    add(connection, "kept")
    assert rows(database) == []
    connection.commit()
    connection.autocommit = True
    with pytest.raises(InvalidArgument, match="in a transaction"):
        add(connection, "alone")
    connection.close()
    async with relaying(plane, database):
        await until(lambda: told(plane) == ["kept"])


async def test_asyncpg(database: Postgres) -> None:
    plane, pool = (
        FakeControlPlane(),
        await asyncpg.create_pool(host=database.url.partition("host=")[2], user="postgres"),
    )
    async with relaying(plane, database), pool.acquire() as connection:
        await OUTBOX.create_table_async(connection)
        transaction = connection.transaction()
        await transaction.start()
        await OUTBOX.add_async(connection, Event(type="a", data="gone"))
        await transaction.rollback()
        with pytest.raises(InvalidArgument, match="in a transaction"):
            await OUTBOX.add_async(connection, Event(type="a"))
        async with connection.transaction():
            await OUTBOX.add_async(connection, Event(type="a", data="kept"))
        await until(lambda: told(plane) == ["kept"])
    await pool.close()


async def test_psycopg_async(database: Postgres) -> None:
    plane = FakeControlPlane()
    async with relaying(plane, database), await psycopg.AsyncConnection.connect(database.url) as connection:
        await OUTBOX.add_async(connection, Event(type="a", data="gone"))
        await connection.rollback()
        await OUTBOX.add_async(connection, Event(type="a", data="kept"))
        await connection.commit()
        with pytest.raises(InvalidArgument, match="a blocking one"):
            OUTBOX.add(connection, Event(type="a"))
        await until(lambda: told(plane) == ["kept"])
    with database.connect() as blocking, pytest.raises(InvalidArgument, match="an async one"):
        await OUTBOX.add_async(blocking, Event(type="a"))


# Order.


async def test_a_transaction_that_commits_late_is_not_missed(database: Postgres) -> None:
    plane = FakeControlPlane()
    with database.connect() as slow, database.connect() as quick:
        async with relaying(plane, database):
            add(slow, "slow")  # the lower id
            add(quick, "quick")
            quick.commit()
            await until(lambda: told(plane) == ["quick"])
            slow.commit()
            await until(lambda: told(plane) == ["quick", "slow"])
    assert rows(database) == []


@pytest.mark.parametrize("is_held_up", [False, True], ids=["all ended", "an older one is open"])
async def test_events_stand_in_the_order_of_the_changes(database: Postgres, is_held_up: bool) -> None:
    """The later change is that of the transaction which began first: neither ids of transactions nor the oldest one that is
    still open says anything about that."""
    plane = FakeControlPlane()
    with database.connect() as first, database.connect() as second, database.connect() as other:
        first.execute("INSERT INTO noise VALUES (1)")  # from here on it has a transaction id
        if is_held_up:
            other.execute("INSERT INTO noise VALUES (2)")
        second.execute("UPDATE orders SET state = 'placed' WHERE id = 7")
        add(second, "placed")
        second.commit()
        first.execute("UPDATE orders SET state = 'paid' WHERE id = 7")
        add(first, "paid")
        first.commit()
        async with relaying(plane, database):
            await until(lambda: len(told(plane)) == 2)
        assert told(plane) == ["placed", "paid"]


async def test_who_waits_for_a_change_stands_behind_it(database: Postgres) -> None:
    """The one that waits has the lower transaction id; it adds when it goes on."""
    plane = FakeControlPlane()

    def pay() -> None:
        with database.connect() as waiting:
            waiting.execute("INSERT INTO noise VALUES (1)")
            began.set()
            waiting.execute("UPDATE orders SET state = 'paid' WHERE id = 7")
            add(waiting, "paid")

    began = asyncio.Event()
    async with relaying(plane, database):
        with database.connect() as placing:
            placing.execute("UPDATE orders SET state = 'placed' WHERE id = 7")
            paying = asyncio.create_task(asyncio.to_thread(pay))
            await asyncio.sleep(0.3)
            add(placing, "placed")
        await paying
        await until(lambda: len(told(plane)) == 2)
    assert told(plane) == ["placed", "paid"]


# Wake-up, trouble, take-over.


async def test_a_commit_wakes_the_relay(database: Postgres) -> None:
    plane = FakeControlPlane()
    async with relaying(plane, database) as relay:
        await until(lambda: relay.leads)
        for number in range(20):
            begun_s = time.monotonic()
            with database.connect() as connection:
                add(connection, str(number))
            await until(lambda: len(told(plane)) > number)  # noqa: B023
            assert time.monotonic() - begun_s < 5, "else only the look once a minute would find it"


async def test_rows_that_nobody_told_of_are_found(database: Postgres) -> None:
    plane, silent = FakeControlPlane(), Outbox(source="/shop", notify=False)
    async with relaying(plane, database, options=RelayOptions(poll_interval_s=0.1)) as relay:
        await until(lambda: relay.leads)
        await asyncio.sleep(0.2)
        with database.connect() as connection:
            add(connection, "prepared", silent)
            connection.execute("PREPARE TRANSACTION 'one'")
        await asyncio.sleep(0.3)
        assert told(plane) == []
        with database.connect(autocommit=True) as connection:
            connection.execute("COMMIT PREPARED 'one'")
        await until(lambda: told(plane) == ["prepared"])


async def test_it_outlives_a_crash_of_the_database(database: Postgres) -> None:
    plane = FakeControlPlane()
    async with relaying(plane, database) as relay:
        with database.connect() as connection:
            add(connection, "before")
        await until(lambda: told(plane) == ["before"])
        await asyncio.to_thread(database.stop, how=signal.SIGQUIT)
        await until(lambda: relay.counts.database_away > 1)
        assert not relay.leads
        await asyncio.to_thread(database.start)
        with database.connect() as connection:
            add(connection, "after")
        await until(lambda: told(plane) == ["before", "after"])
    assert rows(database) == []


async def test_a_session_that_ends_between_publish_and_deletion(database: Postgres) -> None:
    plane = FakeControlPlane()
    with database.connect() as connection:
        add(connection, "0")
    with database.connect() as blocker:
        blocker.execute("LOCK TABLE trunkline_outbox IN SHARE MODE")  # reads pass, deletions do not
        async with relaying(plane, database) as relay:
            await until(lambda: told(plane) == ["0"])
            blocker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'trunkline outbox'"
            )
            await until(lambda: relay.counts.database_away)
            blocker.rollback()
            await until(lambda: rows(database) == [])
    assert told(plane) == ["0"]
    assert relay.counts.duplicates == relay.counts.published - 1 > 0


async def test_a_second_relay_waits_without_a_statement_that_runs(database: Postgres) -> None:
    plane = FakeControlPlane()
    async with relaying(plane, database) as first:
        await until(lambda: first.leads)
        async with relaying(plane, database) as second:
            with database.connect() as connection:
                add(connection, "0")
            await until(lambda: rows(database) == [])
            assert not second.leads
            with database.connect() as connection:
                held = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trunkline outbox' AND state <> 'idle' "
                    "AND now() - query_start > interval '1 second'"
                ).fetchone()
            assert held == (0,), "it would hold up vacuuming"
            first.stop()
            await until(lambda: second.leads)
            with database.connect() as connection:
                add(connection, "1")
            await until(lambda: rows(database) == [])
    assert (first.counts.published, second.counts.published) == (1, 1)


# The table.


async def test_rows_are_marked_kept_and_retried(database: Postgres) -> None:
    plane = FakeControlPlane()
    with database.connect() as connection:
        add(connection, "0")
        connection.execute(
            "INSERT INTO trunkline_outbox (source, event_id, event_type, event) VALUES ('', '', '', '\\x00')"
        )
        add(connection, "1")
    keeping = RelayOptions(keep_s=3600, poll_interval_s=0.05)
    async with relaying(plane, database, options=keeping):
        await until(lambda: [state for _, state, _ in rows(database)] == ["published", "failed", "published"])
    store = await open_store(database.url, Table(TABLE), timeout_s=5)
    counts = await store.counts()
    assert (counts.waiting, counts.published, counts.failed) == (0, 2, 1)
    (refused,) = await store.refusals(most=5)
    assert "well-formed" in refused.reason
    assert await store.retry([refused.id]) == 1
    assert await store.retry([]) == 0
    with database.connect() as connection:
        connection.execute("UPDATE trunkline_outbox SET settled_at = settled_at - interval '2 hours' WHERE id = 1")
    assert await store.purge(older_than_s=3600, rows=10) == 1
    await store.close()
    assert [(id, state) for id, state, _ in rows(database)] == [(2, "waiting"), (3, "published")]


async def test_a_read_is_bounded_by_rows_and_by_bytes(database: Postgres) -> None:
    with database.connect() as connection:
        for text in ("x" * 1_000, "y" * 1_000, "z"):
            add(connection, text)
    store = await open_store(database.url, Table(TABLE), timeout_s=5)
    for most, expected in [((2, 1 << 20), [1, 2]), ((9, 2_500), [1, 2, 3]), ((9, 2_000), [1]), ((9, 1), [1])]:
        assert [row.id for row in await store.read(Reading(rows=most[0], bytes=most[1]))] == expected
    with database.connect() as connection:
        connection.execute("UPDATE trunkline_outbox SET event = decode(repeat('00', 5000000), 'hex') WHERE id = 1")
    (row,) = await store.read(Reading(rows=9, bytes=9))
    assert len(row.event) == READ_BYTES_MAX, "what can only be refused is not read whole"
    await store.close()


async def test_what_is_not_there_is_refused(database: Postgres) -> None:
    for table in ("elsewhere", "nowhere.trunkline_outbox"):
        with pytest.raises(InvalidArgument, match="table"):
            await open_store(database.url, Table(table), timeout_s=5)


async def test_a_table_of_a_schema(database: Postgres) -> None:
    plane, outbox = FakeControlPlane(), Outbox(source="/shop", table="app.events_out")
    with database.connect() as connection:
        connection.execute("DROP SCHEMA IF EXISTS app CASCADE")
        connection.execute("CREATE SCHEMA app")
        outbox.create_table(connection)
    url = database.url.replace("postgresql://", "postgresql+psycopg://")
    async with plane.connect() as trunkline:
        relay = Relay(trunkline, url, table="app.events_out", options=PATIENT)
        running = asyncio.create_task(relay.run())
        await until(lambda: relay.leads)
        with database.connect() as connection:
            add(connection, "0", outbox)
        await until(lambda: told(plane) == ["0"])
        relay.stop()
        await running
