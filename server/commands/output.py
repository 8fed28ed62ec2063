"""How the command line prints: what its group hands to every command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import click


class Output(Protocol):
    """Tables for people, JSON for programs."""

    as_json: bool

    def show(self, rows: Iterable[dict[str, Any]], columns: Sequence[str], *, empty: str) -> None: ...
    def show_one(self, row: dict[str, Any]) -> None: ...


def output() -> Output:
    """The one of the running command."""
    return cast(Output, click.get_current_context().obj)
