"""The table in PostgreSQL, by psycopg 3.

Order. Ids are handed out when an event is added, not when it is committed, so a lower id may become visible after a higher one
was published. Rows go one by one, never "behind the last id", so none is missed; and one statement sees every row of each
transaction that had committed before any row it sees was added. So by ids: what was added when another transaction had
committed already is published behind what that one added. (Ids of transactions would not do: one that began early may have
waited for a row that a later one changed and committed.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from trunkline.core.errors import InvalidArgument, NotSupported

from ._plan import READ_BYTES_MAX, Failed, Row
from ._store import Reading, Refusal, RowCounts, StoreAway, rung, without_table
from ._table import Table

try:
    import psycopg
    from psycopg import errors
except ImportError as error:
    raise NotSupported("PostgreSQL needs psycopg: pip install 'trunkline[postgres]'") from error

POLL_INTERVAL_S = 5.0
"""NOTIFY wakes the relay; this is for rows that were added without."""
LOCK_CLASS = int.from_bytes(b"trun")
"""The first half of the advisory lock's key; the second one is the table's oid."""
APPLICATION_NAME = "trunkline outbox"

CONNECTION: dict[str, Any] = {
    "autocommit": True,
    "application_name": APPLICATION_NAME,
    # A server that vanished without a word is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class PostgresStore:
    """A connection of its own. Who leads holds an advisory lock, which the server frees with the session.

    It needs a session: a pooler that changes them between transactions does not do.
    """

    poll_interval_s = POLL_INTERVAL_S

    def __init__(self, table: Table, connection: psycopg.AsyncConnection[Any], timeout_s: float) -> None:
        self._table = table.name
        self._connection = connection
        self._timeout_s = timeout_s
        self._notified = asyncio.Event()
        connection.add_notify_handler(lambda _: self._notified.set())

    @classmethod
    async def open(cls, url: str, table: Table, *, timeout_s: float) -> Self:
        """See open_store."""
        with _understood(table.name):
            async with asyncio.timeout(timeout_s):
                connection = await psycopg.AsyncConnection.connect(_plain(url), **CONNECTION)
        store = cls(table, connection, timeout_s)
        try:
            await store._fetch("SELECT %s::regclass", table.name)
            await store._fetch(f'LISTEN "{table.name}"')
        except BaseException:
            await store.close()
            raise
        return store

    async def lead(self) -> bool:
        # Tried, not waited for: a statement that waits for days would keep the database from vacuuming what died since.
        ((leads,),) = await self._fetch(
            "SELECT pg_try_advisory_lock(%s, %s::regclass::oid::int)", LOCK_CLASS, self._table
        )
        return bool(leads)

    async def read(self, most: Reading) -> list[Row]:
        self._notified.clear()
        event = f"substr(event, 1, {READ_BYTES_MAX}) AS event"
        first = f"SELECT id, {event} FROM {self._table} WHERE state = 'waiting' ORDER BY id LIMIT %s"
        summed = f"SELECT id, event, sum(octet_length(event)) OVER (ORDER BY id) AS up_to FROM ({first}) AS first"
        rows = await self._fetch(
            f"SELECT id, event FROM ({summed}) AS summed WHERE up_to <= %s OR up_to = octet_length(event) ORDER BY id",
            most.rows,
            most.bytes,
        )
        return [Row(id, bytes(body)) for id, body in rows]

    async def settle(self, published: Sequence[Row], failed: Sequence[Failed], *, keep: bool) -> None:
        done = f"DELETE FROM {self._table} WHERE id = ANY(%s)"
        if keep:
            done = f"UPDATE {self._table} SET state = 'published', settled_at = now() WHERE id = ANY(%s)"
        mark = f"UPDATE {self._table} SET state = 'failed', reason = %s, settled_at = now() WHERE id = %s"
        async with self._asked() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(done, ([row.id for row in published],))
            await cursor.executemany(mark, [(reason.replace("\0", ""), row.id) for row, reason in failed])

    async def purge(self, *, older_than_s: float, rows: int) -> int:
        oldest = f"SELECT id, settled_at FROM {self._table} WHERE state = 'published' ORDER BY id LIMIT %s"
        old = f"SELECT id FROM ({oldest}) AS oldest WHERE settled_at <= now() - make_interval(secs => %s)"
        return await self._change(f"DELETE FROM {self._table} WHERE id IN ({old})", rows, older_than_s)

    async def wait(self, bell: asyncio.Event, *, within_s: float) -> None:
        # A notification makes the socket readable; one that came with an answer was given to the handler.
        loop, socket = asyncio.get_running_loop(), self._connection.fileno()
        if self._notified.is_set():
            return
        loop.add_reader(socket, bell.set)
        try:
            await rung(bell, within_s=within_s)
        finally:
            loop.remove_reader(socket)

    async def counts(self) -> RowCounts:
        by_state = dict(await self._fetch(f"SELECT state, count(*) FROM {self._table} GROUP BY state"))
        return RowCounts(**{state: by_state.get(state, 0) for state in ("waiting", "published", "failed")})

    async def refusals(self, *, most: int) -> list[Refusal]:
        columns = "id, source, event_id, event_type, reason"
        select = f"SELECT {columns} FROM {self._table} WHERE state = 'failed' ORDER BY id LIMIT %s"
        return [Refusal(*row) for row in await self._fetch(select, most)]

    async def retry(self, ids: Sequence[int]) -> int:
        update = f"UPDATE {self._table} SET state = 'waiting', reason = NULL, settled_at = NULL WHERE state = 'failed'"
        which = f"{update} AND id = ANY(%s)", list(ids)
        retried = await (self._change(*which) if ids else self._change(update))
        if retried:
            await self._fetch("SELECT pg_notify(%s, '')", self._table)
        return retried

    async def close(self) -> None:
        with suppress(psycopg.Error):
            await self._connection.close()

    async def _fetch(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        async with self._asked() as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def _change(self, statement: str, *parameters: object) -> int:
        async with self._asked() as connection:
            return (await connection.execute(statement, parameters)).rowcount

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        with _understood(self._table):
            async with asyncio.timeout(self._timeout_s):
                yield self._connection


@contextmanager
def _understood(table: str) -> Iterator[None]:
    try:
        yield
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        raise without_table(Table(table)) from None
    except errors.InsufficientPrivilege as error:
        raise InvalidArgument.of("table", "one that the relay's role may use", str(error)) from None
    except (psycopg.Error, TimeoutError, OSError) as error:
        raise StoreAway(" ".join(str(error).split()) or "no answer in time") from error


def _plain(url: str) -> str:
    """libpq's own: without the driver that others name behind a plus."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0]))
