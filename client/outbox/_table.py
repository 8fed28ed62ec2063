"""The table that events wait in: its SQL in both dialects, and every statement about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trunkline.core.errors import InvalidArgument

from ._drivers import Dialect, Driver

TABLE_DEFAULT = "trunkline_outbox"
IDENTIFIER_CHARS_MAX = 55
"""PostgreSQL cuts names behind 63 bytes, and the index's is longer than the table's."""
_NAME = re.compile(r"(?:[a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*")

SQLITE = """\
CREATE TABLE IF NOT EXISTS {table} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    event BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'published', 'failed')),
    reason TEXT,
    settled_at INTEGER
);
CREATE INDEX IF NOT EXISTS {table}_state ON {last} (state, id);
"""

POSTGRESQL = """\
CREATE TABLE IF NOT EXISTS {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    event bytea NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'published', 'failed')),
    reason text,
    settled_at timestamptz
);
CREATE INDEX IF NOT EXISTS {last}_state ON {table} (state, id);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's name, checked, and what is said to it."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > IDENTIFIER_CHARS_MAX:
            rule = f"lower-case letters, digits and _, a schema before a dot, at most {IDENTIFIER_CHARS_MAX} characters"
            raise InvalidArgument.of("table", rule, self.name)

    def creation(self, dialect: Dialect) -> str:
        """Two statements, which do nothing where the table is."""
        text = SQLITE if dialect == "sqlite" else POSTGRESQL
        return text.format(table=self.name, last=self.name.rpartition(".")[2])

    def insertion(self, driver: Driver, *, notify: bool) -> str:
        """Takes source, id, type and bytes. With `notify` PostgreSQL tells the relay at the commit."""
        marks = ", ".join(driver.mark(number) for number in range(1, 5))
        insert = f"INSERT INTO {self.name} (source, event_id, event_type, event) VALUES ({marks})"
        if driver.dialect == "sqlite" or not notify:
            return insert
        return f"WITH added AS ({insert} RETURNING id) SELECT pg_notify('{self.name}', '') FROM added"
