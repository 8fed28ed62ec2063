"""What callers say became of their calls: counted per service, version and status code. In memory, bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

OUTCOMES_MAX = 10_000
"""Rows that are kept."""
IDLE_NS = 600_000_000_000
"""A row that nobody reported to for so long makes way for a new one."""


class OutcomeKey(NamedTuple):
    """Which calls. `version` is the instance's, as the caller saw it."""

    namespace: str
    service: str
    version: str
    status_code: int
    """gRPC's."""


class Reported(NamedTuple):
    """Calls of one kind since the caller's last report."""

    service: str
    version: str
    status_code: int
    calls: int
    latency_ns: int
    """Of all of them together."""


@dataclass(slots=True)
class OutcomeCount:
    """Since the row was made."""

    calls: int = 0
    latency_ns: int = 0
    reported_ns: int = 0
    """Monotonic time of the last report."""


class Outcomes:
    """Rows in the order of their last report."""

    def __init__(self, *, outcomes_max: int = OUTCOMES_MAX, idle_ns: int = IDLE_NS) -> None:
        self._max = outcomes_max
        self._idle_ns = idle_ns
        self._rows: dict[OutcomeKey, OutcomeCount] = {}
        self.dropped = 0
        """Reports that were not kept, since the start."""

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, namespace: str) -> Iterator[tuple[OutcomeKey, OutcomeCount]]:
        """What is known of a namespace's calls."""
        return ((key, row) for key, row in self._rows.items() if key.namespace == namespace)

    def report(self, namespace: str, reports: Iterable[Reported], now_ns: int) -> int:
        """Count what a caller reports; returns how many reports were not kept because the table is full."""
        dropped = sum(not self._count(namespace, reported, now_ns) for reported in reports)
        self.dropped += dropped
        return dropped

    def _count(self, namespace: str, reported: Reported, now_ns: int) -> bool:
        key = OutcomeKey(namespace, reported.service, reported.version, reported.status_code)
        row = self._rows.pop(key, None)
        if row is None:
            if not self._room(now_ns):
                return False
            row = OutcomeCount()
        row.calls += reported.calls
        row.latency_ns += reported.latency_ns
        row.reported_ns = now_ns
        self._rows[key] = row
        return True

    def _room(self, now_ns: int) -> bool:
        if len(self._rows) < self._max:
            return True
        oldest = next(iter(self._rows))
        if now_ns - self._rows[oldest].reported_ns < self._idle_ns:
            return False
        del self._rows[oldest]
        return True
