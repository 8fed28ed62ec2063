"""The drivers whose connections an application may hold: how each writes parameters, and tells of its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from trunkline.core.errors import InvalidArgument

Dialect: TypeAlias = Literal["sqlite", "postgresql"]

SQLITE_LEGACY = -1
"""sqlite3.LEGACY_TRANSACTION_CONTROL: the isolation level says what `autocommit` says otherwise, from Python 3.12 on."""
PQTRANS_IDLE = 0
"""libpq's PGTransactionStatusType: connected, and in no transaction."""


@dataclass(frozen=True, slots=True)
class Driver:
    """How to speak to one driver's connections."""

    dialect: Dialect
    mark: Callable[[int], str]
    """The n-th parameter of a statement, counted from 1."""
    commits_at_once: Callable[[Any], bool]
    """Whether a statement that was executed now would be committed by itself."""


def _question(_: int) -> str:
    return "?"


def _percent(_: int) -> str:
    return "%s"


def _dollar(number: int) -> str:
    return f"${number}"


def _sqlite(connection: sqlite3.Connection) -> bool:
    said = getattr(connection, "autocommit", SQLITE_LEGACY)
    by_itself = connection.isolation_level is None if said == SQLITE_LEGACY else bool(said)
    return by_itself and not connection.in_transaction


def _libpq(connection: Any) -> bool:
    return bool(connection.autocommit) and connection.info.transaction_status == PQTRANS_IDLE


def _asyncpg(connection: Any) -> bool:
    return not connection.is_in_transaction()


BLOCKING = {
    "sqlite3": Driver("sqlite", _question, _sqlite),
    "psycopg": Driver("postgresql", _percent, _libpq),
    "psycopg2": Driver("postgresql", _percent, _libpq),
}
ASYNC = {
    "aiosqlite": Driver("sqlite", _question, _sqlite),
    "psycopg": Driver("postgresql", _percent, _libpq),
    "asyncpg": Driver("postgresql", _dollar, _asyncpg),
}
"""By the package that a connection's class, or one that it stands on, comes from."""


def driver_of(connection: object) -> Driver:
    """Of a blocking connection. InvalidArgument for anything else."""
    return _known(connection, BLOCKING, is_async=False)


def async_driver_of(connection: object) -> Driver:
    """Of an async connection. InvalidArgument for anything else."""
    return _known(connection, ASYNC, is_async=True)


def _known(connection: object, drivers: dict[str, Driver], *, is_async: bool) -> Driver:
    if ("psycopg", "AsyncConnection") in set(_origins(connection)) and not is_async:
        raise InvalidArgument.of(
            "connection", "a blocking one; add_async and create_table_async take others", connection
        )
    if ("psycopg", "Connection") in set(_origins(connection)) and is_async:
        raise InvalidArgument.of("connection", "an async one; add and create_table take others", connection)
    for package, _ in _origins(connection):
        if package in drivers:
            return drivers[package]
    raise InvalidArgument.of("connection", f"one of {', '.join(drivers)}", type(connection).__qualname__)


def _origins(connection: object) -> Iterator[tuple[str, str]]:
    for base in type(connection).__mro__:
        yield base.__module__.partition(".")[0], base.__name__
