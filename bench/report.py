"""Rows as one HTML page that needs nothing else: plots of the ratios and tables of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import plotly.graph_objects as plots
from plotly.io import to_html

from bench.row import Row, judged
from bench.tables import number

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
td, th { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #eee; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.met { color: #17752b; } .missed { color: #b3261e; font-weight: 600; } .dim { color: #666; }
"""
COLOURS = {True: "#17752b", False: "#b3261e", None: "#4a6fa5"}
BAR_PX = 34


def page(given: Sequence[Any], conditions: Mapping[str, Any]) -> str:
    """The page. ValueError when a row is none."""
    rows = [judged(row) for row in given]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Trunkline: benchmarks</title>",
        f"<style>{STYLE}</style><h1>Benchmarks</h1>",
        _note(conditions),
        _verdict(rows),
    ]
    script = True
    for name, some in groupby(rows, key=lambda row: row["benchmark"]):
        of_one = list(some)
        parts.append(f"<h2>{escape(name)}</h2>{_facts(conditions.get('benchmarks', {}).get(name, {}))}")
        if any(row["ratio"] is not None for row in of_one):
            parts.append(to_html(_ratios(of_one), include_plotlyjs=script, full_html=False))
            script = False
        parts.append(_table(of_one))
    parts.append(f"<h2>machine</h2>{_facts(conditions.get('machine', {}))}</html>")
    return "\n".join(parts)


def _note(conditions: Mapping[str, Any]) -> str:
    failed = "".join(
        f"<p class=missed>{escape(name)} gave no rows: {escape(why)}</p>"
        for name, why in conditions.get("failed", {}).items()
    )
    quick = "<p class=missed>A quick run: small sizes, few repetitions.</p>" if conditions.get("quick") else ""
    return failed + quick


def _verdict(rows: Sequence[Row]) -> str:
    gated = [row for row in rows if row["met"] is not None]
    short = [row for row in gated if not row["met"]]
    if not short:
        return f"<p class=met>All {len(gated)} gates hold.</p>"
    lines = "".join(f"<li>{escape(row['benchmark'])}: {escape(row['metric'])}: {row['gate']}" for row in short)
    return f"<p class=missed>{len(short)} of {len(gated)} gates are missed:</p><ul>{lines}</ul>"


def _ratios(rows: Sequence[Row]) -> Any:
    """Bars of our value by the peer's, on a logarithmic axis: the line at 1 is the peer."""
    compared = [row for row in rows if row["ratio"]]
    figure = plots.Figure(
        plots.Bar(
            orientation="h",
            y=[f"{row['metric']}<br><i>{row['peer']}</i>" for row in compared],
            x=[row["ratio"] for row in compared],
            marker_color=[COLOURS[row["met"]] for row in compared],
            text=[f"{number(row['ratio'])}x" for row in compared],
            hovertext=[
                f"{number(row['value'])} {row['unit']} ± {number(row['spread'])}; peer {number(row['peer_value'])}"
                for row in compared
            ],
        )
    )
    figure.add_vline(x=1, line_dash="dot")
    figure.update_layout(
        height=110 + BAR_PX * len(compared),
        margin={"l": 10, "r": 10, "t": 10, "b": 40},
        xaxis={"type": "log", "title": "ours by the peer's"},
        yaxis={"autorange": "reversed", "automargin": True},
        template="plotly_white",
    )
    return figure


def _facts(given: Mapping[str, str | list[str]]) -> str:
    cells = "".join(f"<tr><th class=dim>{escape(name)}<td>{_fact(value)}" for name, value in given.items())
    return f"<table>{cells}</table>"


def _fact(value: str | list[str]) -> str:
    return escape(value) if isinstance(value, str) else "<br>".join(map(escape, value))


def _table(rows: Sequence[Row]) -> str:
    names = ("metric", "value", "spread", "unit", "repetitions", "peer", "its value", "ratio", "gate", "met", "goal")
    lines = "".join(_line(row) for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}' for name in names)}{lines}</table>"


def _line(row: Row) -> str:
    met = "" if row["met"] is None else ("met" if row["met"] else "missed")
    return (
        f"<tr><td>{escape(row['metric'])}<td class=n>{number(row['value'])}<td class=n>± {number(row['spread'])}"
        f"<td>{escape(row['unit'])}<td class=n>{row['repetitions']}<td>{escape(row['peer'] or '')}"
        f"<td class=n>{number(row['peer_value'])}<td class=n>{number(row['ratio'])}"
        f"<td>{escape(row['gate'] or '')}<td class={met or 'dim'}>{met}<td>{escape(row['goal'] or '')}"
    )
