"""journal: look at one offline, back it up while it runs, restore it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click

from trunkline.core.clock import Rng, SystemClock
from trunkline.core.records import Record

from ..journal.files import backup as backups
from ..journal.files import inspect
from ..journal.files.real_disk import RealDisk
from .output import output

T = TypeVar("T")
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
COLUMNS = (
    "stream",
    "sync",
    "first_offset",
    "next_offset",
    "records",
    "segments",
    "bytes",
    "torn_bytes",
    "clean",
    "problems",
)


@click.group(short_help="Check, show, back up and restore a journal.")
def journal() -> None:
    """A journal's folder, read or copied without its server.

    \b
    trunkline journal check ./trunkline-data
    trunkline journal show ./trunkline-data trunkline.control --from 100 --count 20
    trunkline journal backup ./trunkline-data /backups/monday     # while the server runs
    trunkline journal restore /backups/monday ./trunkline-data
    """


@journal.command()
@click.argument("folder", type=FOLDER)
def check(folder: Path) -> None:
    """Read everything in FOLDER and verify it; exit code 1 when something synced is damaged. Writes nothing."""
    report = _on_disk(lambda disk: inspect.check(disk, str(folder)))
    rows = [{**asdict(stream), "stream": stream.name} for stream in report.streams]
    output().show(rows, COLUMNS, empty="no streams")
    problems = [*report.problems, *chain.from_iterable(stream.problems for stream in report.streams)]
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(bool(problems))


@journal.command()
@click.argument("folder", type=FOLDER)
@click.argument("stream")
@click.option("--from", "from_offset", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--count", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
def show(folder: Path, stream: str, from_offset: int, count: int) -> None:
    """Print records of STREAM in FOLDER: `trunkline.control`, `trunkline.subscriptions`, or NAMESPACE/NAME."""

    async def read(disk: RealDisk) -> list[dict[str, Any]]:
        found = inspect.show(disk, str(folder), stream, from_offset=from_offset, count=count)
        return [_row(record) async for record in found]

    columns = ("offset", "time", "topic", "key", "id", "version", "author", "reason", "bytes")
    output().show(_on_disk(read), columns, empty=f"no records from {from_offset} on")


def _row(record: Record) -> dict[str, Any]:
    version = record.version
    return {
        "offset": record.offset,
        "time": datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        "topic": record.topic,
        "key": record.key,
        "id": record.id,
        "version": f"{version.writer:016x}.{version.epoch}.{version.sequence}" if version.writer else "",
        "author": record.author,
        "reason": record.reason,
        "bytes": len(record.body),
    }


@journal.command()
@click.argument("folder", type=FOLDER)
@click.argument("target", type=click.Path(path_type=Path))
def backup(folder: Path, target: Path) -> None:
    """Copy the journal in FOLDER to TARGET, a new or empty folder, while its server runs."""
    summary = _on_disk(lambda disk: backups.backup(disk, str(folder), str(target), SystemClock()))
    output().show_one({"backup": summary.folder, "journal": summary.journal_id, "streams": summary.streams})


@journal.command()
@click.argument("source", type=FOLDER)
@click.argument("folder", type=click.Path(path_type=Path))
def restore(source: Path, folder: Path) -> None:
    """Make a journal in FOLDER, new or empty, from the backup SOURCE.

    Every stream gets a new incarnation: clients of the lost journal notice, start over, and are told of the gap.
    """
    rng = Rng(int.from_bytes(os.urandom(8), "little"))
    summary = _on_disk(lambda disk: backups.restore(disk, str(source), str(folder), rng))
    output().show_one({"restored": summary.folder, "journal": summary.journal_id, "streams": summary.streams})


def _on_disk(work: Callable[[RealDisk], Awaitable[T]]) -> T:
    async def run() -> T:
        disk = RealDisk()
        try:
            return await work(disk)
        finally:
            await disk.shutdown()

    return asyncio.run(run())
