"""The application's side: events that are written in its own transaction."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trunkline.core.cloudevent import scan_event
from trunkline.core.errors import InvalidArgument

from .._event import Event, event_to
from ._drivers import Dialect, Driver, async_driver_of, driver_of
from ._table import TABLE_DEFAULT, Table


@dataclass(frozen=True, slots=True)
class Outbox:
    """Writes events into a table of the application's database: what its transaction commits is published by a relay, what
    it rolls back is not.

    It holds no connection; keep one for the whole program.
    """

    source: str
    """Of events that name none. Stable over restarts: with the id it is what a repeated event is recognised by."""
    table: str = TABLE_DEFAULT
    """With a schema before a dot where that is not the search path's (PostgreSQL)."""
    notify: bool = True
    """PostgreSQL wakes the relay at each commit. Transactions that notify commit one after the other, and cannot be
    prepared for a two-phase commit; without, the relay looks every few seconds."""
    entropy: Callable[[int], bytes] = field(default=os.urandom, repr=False)
    """So many unpredictable bytes, for ids."""

    def __post_init__(self) -> None:
        if not self.source:
            raise InvalidArgument.of("source", "required: a relay publishes what a program wrote that may be gone", "")
        Table(self.table)

    def add(self, connection: Any, event: Event) -> Event:
        """Write the event in the connection's transaction; the event as it will be published, with its id and source.

        `connection` is one of sqlite3, psycopg or psycopg2. Write what the event tells of first: whoever changes the same row
        has to wait from then on, and so the events stand in the order of the changes. InvalidArgument for an event that the
        bus would refuse, and for a connection that would commit it by itself. Errors of the database are the driver's.
        """
        driver = driver_of(connection)
        named, row = self._row(driver, connection, event)
        cursor = connection.cursor()
        try:
            cursor.execute(Table(self.table).insertion(driver, notify=self.notify), row)
        finally:
            cursor.close()
        return named

    async def add_async(self, connection: Any, event: Event) -> Event:
        """`add` for a connection of asyncpg, aiosqlite or psycopg's AsyncConnection."""
        driver = async_driver_of(connection)
        named, row = self._row(driver, connection, event)
        statement = Table(self.table).insertion(driver, notify=self.notify)
        await (connection.execute(statement, *row) if _is_asyncpg(driver) else connection.execute(statement, row))
        return named

    def create_table(self, connection: Any) -> None:
        """Make the table where it is not there; commit it. `sql` is for those who run migrations."""
        cursor = connection.cursor()
        try:
            for statement in _statements(self.sql(driver_of(connection).dialect)):
                cursor.execute(statement)
        finally:
            cursor.close()

    async def create_table_async(self, connection: Any) -> None:
        """`create_table` for async connections."""
        for statement in _statements(self.sql(async_driver_of(connection).dialect)):
            await connection.execute(statement)

    def sql(self, dialect: Dialect) -> str:
        """The statements that make the table."""
        return Table(self.table).creation(dialect)

    def _row(self, driver: Driver, connection: Any, event: Event) -> tuple[Event, tuple[str, str, str, bytes]]:
        named = event.named(source=self.source, entropy=self.entropy)
        body = event_to(named).SerializeToString()
        scan_event(body)
        if driver.commits_at_once(connection):
            raise InvalidArgument.of("connection", "in a transaction, which the event becomes part of", "autocommit")
        return named, (named.source, named.id, named.type, body)


def _is_asyncpg(driver: Driver) -> bool:
    return driver.mark(1) == "$1"


def _statements(text: str) -> list[str]:
    return [statement for statement in text.split(";\n") if statement]
