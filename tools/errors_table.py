"""Write the table of errors into docs/clients.md: python tools/errors_table.py

Reasons, statuses and words are those of core/errors.py; a test compares the two.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from trunkline.core.errors import leaf_errors

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
BEGIN = "<!-- errors: written by tools/errors_table.py from core/errors.py -->\n"
END = "<!-- errors end -->\n"


def table() -> str:
    """One row a reason, sorted."""
    rows = ["| reason | status | meaning |", "| --- | --- | --- |"]
    for code, error in sorted(leaf_errors().items()):
        words = " ".join((inspect.getdoc(error) or "").split())
        rows.append(f"| `{code}` | `{error.status}` | {words} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """The page with today's table in it. ValueError when it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
