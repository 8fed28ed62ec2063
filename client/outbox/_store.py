"""What a relay asks of a database; `open_store` finds the one that a URL names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from trunkline.core.errors import InvalidArgument

from ._plan import Failed, Row
from ._table import Table


class StoreAway(Exception):
    """The database could not be reached, or did not do what it was asked to. Nothing is known of the last statement."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that stays in the table because the bus takes it never."""

    id: int
    """Of the row."""
    source: str
    event_id: str
    event_type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Counts of the table's rows by state."""

    waiting: int
    published: int
    """Published and kept."""
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How much one read may bring."""

    rows: int
    bytes: int
    """The first row is read however long it is."""


class Store(Protocol):
    """A connection to a database with the table in it. Everything raises StoreAway, after which only `close` is left."""

    poll_interval_s: float
    """How often to look where nothing tells."""

    async def lead(self) -> bool:
        """Become the table's only relay, until the connection ends. False while another one is."""

    async def read(self, most: Reading) -> list[Row]:
        """The first rows that wait, by id, all seen at one moment."""

    async def settle(self, published: Sequence[Row], failed: Sequence[Failed], *, keep: bool) -> None:
        """Delete the published rows, or with `keep` mark them; mark the failed ones. All in one transaction."""

    async def purge(self, *, older_than_s: float, rows: int) -> int:
        """Delete up to `rows` that were published longer ago; how many these were."""

    async def wait(self, bell: asyncio.Event, *, within_s: float) -> None:
        """Return when rows may have been committed, the bell rings, or the time is over."""

    async def counts(self) -> RowCounts:
        """How many rows there are."""

    async def refusals(self, *, most: int) -> list[Refusal]:
        """The failed rows, oldest first."""

    async def retry(self, ids: Sequence[int]) -> int:
        """Let failed rows wait again, all of them where no ids are given; how many these were."""

    async def close(self) -> None:
        """Let go of everything. Never raises StoreAway."""


async def open_store(url: str, table: Table, *, timeout_s: float) -> Store:
    """Connect to "sqlite:///file.db" or "postgresql://user@host/database".

    StoreAway when the database is not reached; InvalidArgument for a URL of another kind, and for a database without the table.
    `timeout_s` is the deadline of every statement.
    """
    scheme = urlsplit(url).scheme.partition("+")[0]
    if scheme == "sqlite":
        from ._sqlite import SqliteStore

        return await SqliteStore.open(url, table, timeout_s=timeout_s)
    if scheme in ("postgresql", "postgres"):
        from ._postgres import PostgresStore

        return await PostgresStore.open(url, table, timeout_s=timeout_s)
    # The URL itself is not shown: there may be a password in it.
    raise InvalidArgument.of("database", "sqlite:///file.db or postgresql://user@host/database", f"{scheme}:...")


async def rung(bell: asyncio.Event, *, within_s: float) -> None:
    """Wait for the bell, or until the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await bell.wait()


def without_table(table: Table) -> InvalidArgument:
    """What to say where the table is missing."""
    return InvalidArgument.of("table", "made before (Outbox.create_table, `trunkline outbox sql`)", table.name)
