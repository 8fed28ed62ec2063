"""What every command needs: the connection's settings, a way to run, and the two ways to print.

SDK and printing are imported when a command uses them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from trunkline.client import Trunkline

T = TypeVar("T")

PIPED_WIDTH = 500
"""Columns of a table that no terminal limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options before the command."""

    address: str
    namespace: str
    token: str | None
    ca: str | None
    timeout_s: float
    as_json: bool

    def run(self, work: Callable[[Trunkline], Coroutine[Any, Any, T]]) -> T:
        """Connect, do the work, close. Ctrl-C ends it with exit code 130."""
        from trunkline.client import ClientOptions, Tls, connect

        async def connected() -> T:
            tls = Tls.from_files(ca=self.ca) if self.ca else None
            options = ClientOptions(timeout_s=self.timeout_s)
            async with connect(
                self.address, namespace=self.namespace, token=self.token, tls=tls, options=options
            ) as trunkline:
                return await work(trunkline)

        try:
            return asyncio.run(connected())
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None

    def show(self, rows: Iterable[dict[str, Any]], columns: Sequence[str], *, empty: str) -> None:
        """A table for people, a JSON object a line for programs."""
        if self.as_json:
            for row in rows:
                click.echo(json.dumps(row, default=str))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " ").upper(), overflow="fold")
        for row in rows:
            # As plain text: what people wrote in brackets is no markup of ours.
            table.add_row(*(Text(_cell(row.get(column)), overflow="fold") for column in columns))
        if table.row_count:
            console = Console()
            if not console.is_terminal:
                console.width = PIPED_WIDTH
            console.print(table)
        else:
            click.echo(empty)

    def show_one(self, row: dict[str, Any]) -> None:
        """One value: its fields under one another, or a JSON object."""
        if self.as_json:
            click.echo(json.dumps(row, default=str))
            return
        width = max(map(len, row), default=0)
        for name, value in row.items():
            click.echo(f"{name.replace('_', ' '):<{width}}  {_cell(value)}")


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON's values, with the contract's field names."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return " ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value)


settings = click.make_pass_decorator(Settings)
