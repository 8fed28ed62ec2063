"""Where deliveries go: all that the event bus wants of a stream to a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class Outlet(Protocol):
    """A transport's Sink, from here."""

    ready: bool
    """False from an offer above the high-water mark until most of it is gone."""

    def offer(self, data: bytes | Iterable[bytes]) -> bool:
        """Queue whole fields of the response; returns `ready`. What was offered is taken anyway."""

    def flush(self) -> None:
        """Let what was offered go out now, if it can, and not when this turn of the loop is over."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call back each time it becomes ready again."""
