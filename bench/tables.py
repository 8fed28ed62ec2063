"""Rows and facts as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.row import Row, holds

MET = {True: "[green]met[/]", False: "[red]MISSED[/]", None: ""}


def number(value: float | None) -> str:
    """With so many digits as matter."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def facts(given: Mapping[str, str]) -> Table:
    """Names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in given.items():
        table.add_row(name, value, style="dim")
    return table


def results(rows: Sequence[Row]) -> Table:
    """One line a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", overflow="fold")
    for name in ("value", "spread", "unit"):
        table.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    table.add_column("peer", overflow="fold")
    for name in ("its value", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("gate", "", "goal"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        reached = row["goal"] is not None and holds(row["goal"], row)
        table.add_row(
            row["metric"],
            number(row["value"]),
            f"± {number(row['spread'])} ({row['repetitions']}x)",
            row["unit"],
            row["peer"] or "",
            number(row["peer_value"]),
            number(row["ratio"]),
            row["gate"] or "",
            MET[row["met"]],
            (row["goal"] or "") + (" [green]✓[/]" if reached else ""),
        )
    return table


def console() -> Console:
    """Standard output; wide enough for a row when it is no terminal."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made = Console(highlight=False, width=200)
    return made
