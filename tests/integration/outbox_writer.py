"""An application with an outbox, until it is killed: `python outbox_writer.py URL SEED`.

Each transaction moves a key's counter, notes the event in a ledger and adds it to the outbox; some are rolled back.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from typing import Any

import psycopg

from trunkline.client import Event
from trunkline.client.outbox import Outbox

OUTBOX = Outbox(source="/shop")
KEYS = [f"key-{number}" for number in range(5)]
TABLES = (
    "CREATE TABLE counters (key TEXT PRIMARY KEY, n INTEGER NOT NULL)",
    "CREATE TABLE ledger (event_id TEXT PRIMARY KEY, key TEXT NOT NULL, n INTEGER NOT NULL)",
    "CREATE TABLE noise (n INTEGER)",
)


def prepare(connection: Any) -> None:
    """Make the tables, in a transaction that the caller commits."""
    OUTBOX.create_table(connection)
    cursor = connection.cursor()
    for table in TABLES:
        cursor.execute(table)
    for key in KEYS:
        cursor.execute(f"INSERT INTO counters VALUES ('{key}', 0)")
    cursor.close()


def ledger(connection: Any) -> dict[str, list[str]]:
    """The ids of all committed events, by key, in the order of the counter."""
    cursor = connection.cursor()
    cursor.execute("SELECT key, event_id FROM ledger ORDER BY n")
    found: dict[str, list[str]] = {key: [] for key in KEYS}
    for key, event_id in cursor.fetchall():
        found[key].append(event_id)
    cursor.close()
    return found


def change(connection: Any, rng: random.Random) -> None:
    """One transaction's work."""
    cursor = connection.cursor()
    if rng.random() < 0.5:
        cursor.execute("INSERT INTO noise VALUES (1)")  # it is a writer before it waits for a key
        time.sleep(rng.random() * 0.01)
    for key in rng.sample(KEYS, rng.choice([1, 1, 2])):
        cursor.execute(f"UPDATE counters SET n = n + 1 WHERE key = '{key}'")
        cursor.execute(f"SELECT n FROM counters WHERE key = '{key}'")
        (n,) = cursor.fetchone()
        added = OUTBOX.add(connection, Event(type="moved", key=key, data=str(n)))
        cursor.execute(f"INSERT INTO ledger VALUES ('{added.id}', '{key}', {n})")
    cursor.close()
    if rng.random() < 0.3:
        time.sleep(rng.random() * 0.02)


def main(url: str, seed: int) -> None:
    rng = random.Random(seed)
    connection = connected(url)
    while True:
        try:
            if url.startswith("sqlite"):
                connection.execute("BEGIN IMMEDIATE")
            change(connection, rng)
            connection.rollback() if rng.random() < 0.2 else connection.commit()
        except psycopg.OperationalError:  # a deadlock of two writers over two keys, or the server is gone
            connection.close()
            connection = connected(url)
        time.sleep(rng.random() * 0.004)


def connected(url: str) -> Any:
    """A connection, as soon as there is a server."""
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)
    while True:
        try:
            return psycopg.connect(url)
        except psycopg.OperationalError:
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
