"""outbox: events that wait in an application's database."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from trunkline.client import Trunkline
from trunkline.client.outbox import Relay, RelayOptions, Store, StoreAway, open_store
from trunkline.client.outbox._table import TABLE_DEFAULT, Table

from ._context import Settings, settings

T = TypeVar("T")

FAILED_SHOWN = 100
DEFAULTS = RelayOptions()

database = click.option(
    "--database",
    envvar="TRUNKLINE_OUTBOX_DATABASE",
    required=True,
    metavar="URL",
    help="sqlite:///file.db or postgresql://user@host/database.",
)
table = click.option("--table", default=TABLE_DEFAULT, show_default=True)


@click.group(short_help="Publish events that wait in a database.")
def outbox() -> None:
    """Events that an application wrote in its own database transactions.

    \b
    trunkline outbox sql postgresql                              what makes the table
    trunkline outbox relay --database postgresql://shop@db/shop  publish what is committed
    trunkline outbox status --database postgresql://shop@db/shop
    """


@outbox.command()
@database
@table
@click.option("--stream", default="events", show_default=True)
@click.option(
    "--batch", "batch_events", default=DEFAULTS.batch_events, show_default=True, help="Events in one request."
)
@click.option("--poll", "poll_interval_s", type=float, help="Seconds. Default: 0.2 with SQLite, 5 with PostgreSQL.")
@click.option("--keep", "keep_s", default=DEFAULTS.keep_s, show_default=True, help="Seconds that published rows stay.")
@settings
def relay(setting: Settings, /, database: str, table: str, stream: str, **numbers: Any) -> None:
    """Publish committed events, once each and in order, until SIGTERM or Ctrl-C.

    Of several relays on one table one works; the others wait, and take over when it ends. While the database or the control
    plane is away it waits, too. What was asked for wrongly (a stream that is not there, a token without the right) ends it.
    """
    options = RelayOptions(publish_timeout_s=setting.timeout_s, **numbers)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("trunkline.outbox").setLevel(logging.INFO)

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        running = Relay(trunkline, database, table=table, stream=stream, options=options)
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, running.stop)
        await running.run()
        return asdict(running.counts)

    setting.show_one(setting.run(work))


@outbox.command()
@database
@table
@settings
def status(setting: Settings, /, database: str, table: str) -> None:
    """Count the rows that wait, that are kept, and that failed."""
    setting.show_one(asdict(_asked(setting, database, table, lambda store: store.counts())))


@outbox.command()
@database
@table
@click.option("--count", default=FAILED_SHOWN, show_default=True, help="At most so many, the oldest first.")
@settings
def failed(setting: Settings, /, database: str, table: str, count: int) -> None:
    """List the rows whose events no control plane takes, and why."""
    refused = _asked(setting, database, table, lambda store: store.refusals(most=count))
    columns = ("id", "source", "event_id", "event_type", "reason")
    setting.show([asdict(one) for one in refused], columns, empty="nothing failed")


@outbox.command()
@database
@table
@click.argument("ids", nargs=-1, type=int)
@settings
def retry(setting: Settings, /, database: str, table: str, ids: tuple[int, ...]) -> None:
    """Let failed rows wait again: those with IDS, or all. They stand before what was added later."""
    setting.show_one({"waiting_again": _asked(setting, database, table, lambda store: store.retry(ids))})


@outbox.command()
@click.argument("dialect", type=click.Choice(["sqlite", "postgresql"]))
@table
def sql(dialect: Any, table: str) -> None:
    """Print the statements that make the table in DIALECT, for those who run migrations."""
    click.echo(Table(table).creation(dialect), nl=False)


def _asked(setting: Settings, url: str, table: str, question: Callable[[Store], Awaitable[T]]) -> T:
    async def ask() -> T:
        store = await open_store(url, Table(table), timeout_s=setting.timeout_s)
        try:
            return await question(store)
        finally:
            await store.close()

    try:
        return asyncio.run(ask())
    except StoreAway as error:
        raise click.ClickException(f"the database is away: {error}") from error
