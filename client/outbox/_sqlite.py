"""The table in an SQLite file. There is one writer at a time, so ids stand in the order of the commits."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit

from trunkline.core.errors import InvalidArgument

from ._plan import READ_BYTES_MAX, Failed, Row
from ._store import Reading, Refusal, RowCounts, StoreAway, rung, without_table
from ._table import Table

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

POLL_INTERVAL_S = 0.2
"""SQLite tells nobody of a commit."""
NOW = "CAST(strftime('%s', 'now') AS INTEGER)"
"""Seconds since the epoch; unixepoch() came later (3.38)."""


class SqliteStore:
    """A connection of its own, used by one thread of its own.

    Who leads holds a lock on the file `<database>-<table>.relay`: the system lets go of it when the process ends, however it
    ends.
    """

    poll_interval_s = POLL_INTERVAL_S

    def __init__(self, table: Table, thread: ThreadPoolExecutor, connection: sqlite3.Connection, path: Path) -> None:
        self._table = table.name
        self._thread = thread
        self._connection = connection
        self._lock_path = path.with_name(f"{path.name}-{table.name}.relay")
        self._lock: int | None = None

    @classmethod
    async def open(cls, url: str, table: Table, *, timeout_s: float) -> Self:
        """See open_store. A file that is not there is refused, not made."""
        path = path_of(url)
        if not path.exists():
            raise InvalidArgument.of("database", "a file that is there", path)
        thread = ThreadPoolExecutor(1, thread_name_prefix="trunkline-outbox")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _connect, path, table, timeout_s)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(table, thread, connection, path)

    async def lead(self) -> bool:
        return await self._call(self._try_lock)

    async def read(self, most: Reading) -> list[Row]:
        return await self._call(self._read, most)

    async def settle(self, published: Sequence[Row], failed: Sequence[Failed], *, keep: bool) -> None:
        await self._call(self._settle, published, failed, keep)

    async def purge(self, *, older_than_s: float, rows: int) -> int:
        return await self._call(self._purge, older_than_s, rows)

    async def wait(self, bell: asyncio.Event, *, within_s: float) -> None:
        await rung(bell, within_s=within_s)

    async def counts(self) -> RowCounts:
        return await self._call(self._counts)

    async def refusals(self, *, most: int) -> list[Refusal]:
        return await self._call(self._refusals, most)

    async def retry(self, ids: Sequence[int]) -> int:
        return await self._call(self._retry, ids)

    async def close(self) -> None:
        # Behind whatever the thread is still at: a cancelled call may be.
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        def on_thread() -> Answer:
            with _understood(self._table):
                return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, on_thread)

    # On the thread.

    def _try_lock(self) -> bool:
        if self._lock is None:
            self._lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self, most: Reading) -> list[Row]:
        found: list[Row] = []
        room = most.bytes
        event = f"substr(CAST(event AS BLOB), 1, {READ_BYTES_MAX})"
        select = f"SELECT id, {event} FROM {self._table} WHERE state = 'waiting' ORDER BY id LIMIT ?"
        rows = self._connection.execute(select, (most.rows,))
        try:
            for id, body in rows:
                room -= len(body)
                if found and room < 0:
                    break
                found.append(Row(id, bytes(body)))
        finally:
            rows.close()  # else it would hold its view of the database open
        return found

    def _settle(self, published: Sequence[Row], failed: Sequence[Failed], keep: bool) -> None:
        done = f"DELETE FROM {self._table} WHERE id = ?"
        if keep:
            done = f"UPDATE {self._table} SET state = 'published', settled_at = {NOW} WHERE id = ?"
        with self._writing() as connection:
            connection.executemany(done, [(row.id,) for row in published])
            connection.executemany(
                f"UPDATE {self._table} SET state = 'failed', reason = ?, settled_at = {NOW} WHERE id = ?",
                [(reason, row.id) for row, reason in failed],
            )

    def _purge(self, older_than_s: float, rows: int) -> int:
        oldest = f"SELECT id, settled_at FROM {self._table} WHERE state = 'published' ORDER BY id LIMIT ?"
        with self._writing() as connection:
            return connection.execute(
                f"DELETE FROM {self._table} WHERE id IN (SELECT id FROM ({oldest}) WHERE settled_at <= {NOW} - ?)",
                (rows, older_than_s),
            ).rowcount

    def _counts(self) -> RowCounts:
        by_state = dict(
            self._connection.execute(f"SELECT state, count(*) FROM {self._table} GROUP BY state").fetchall()
        )
        return RowCounts(**{state: by_state.get(state, 0) for state in ("waiting", "published", "failed")})

    def _refusals(self, most: int) -> list[Refusal]:
        columns = "id, source, event_id, event_type, reason"
        select = f"SELECT {columns} FROM {self._table} WHERE state = 'failed' ORDER BY id LIMIT ?"
        return [Refusal(*row) for row in self._connection.execute(select, (most,)).fetchall()]

    def _retry(self, ids: Sequence[int]) -> int:
        update = f"UPDATE {self._table} SET state = 'waiting', reason = NULL, settled_at = NULL WHERE state = 'failed'"
        with self._writing() as connection:
            if not ids:
                return connection.execute(update).rowcount
            return connection.executemany(f"{update} AND id = ?", [(id,) for id in ids]).rowcount

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: the wait for other writers is at the beginning, where the busy timeout holds.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def _close(self) -> None:
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)


def path_of(url: str) -> Path:
    """Of "sqlite:///relative.db" and "sqlite:////absolute.db". InvalidArgument for others."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or len(parts.path) < 2 or parts.query or parts.fragment:
        raise InvalidArgument.of("database", "sqlite:/// and the file's path", url)
    return Path(unquote(parts.path[1:]))


def _connect(path: Path, table: Table, timeout_s: float) -> sqlite3.Connection:
    with _understood(table.name):
        # isolation_level None: transactions begin where they are begun here. mode=rw: no file is made.
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=timeout_s, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        try:
            connection.execute(f"SELECT id FROM {table.name} LIMIT 1").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def _understood(table: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such table"):
            raise without_table(Table(table)) from None
        raise StoreAway(str(error)) from error
    except (sqlite3.Error, OSError) as error:
        raise StoreAway(str(error)) from error
