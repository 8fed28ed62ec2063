"""What the diaries say at the end: was anything lost, and how long did it take?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Diaries:
    """Every line of every diary, oldest first."""

    lines: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Diaries:
        lines = []
        for path in folder.glob("*.jsonl"):
            for line in path.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    continue  # cut by a SIGKILL
        return cls(sorted(lines, key=lambda line: line["at"]))

    def of(self, what: str) -> Iterator[dict[str, Any]]:
        return (line for line in self.lines if line["what"] == what)

    def events(self, what: str) -> Counter[str]:
        """How often each event was published, billed or mailed."""
        return Counter(line["event"] for line in self.of(what))

    def calls(self) -> Counter[str]:
        """Answered calls per inventory instance."""
        return Counter(line["instance"] for line in self.of("called"))

    def attempts_at(self, instance: str, since: float) -> list[dict[str, Any]]:
        """Calls that were sent to an instance after a moment, answered or not."""
        return [line for line in self.of("attempt") if line["instance"] == instance and line["sent"] > since]

    def in_flight(self, instance: str, moment: float = inf) -> int:
        """Reservations that an inventory instance had begun and not ended at a moment; at the end, if none is given."""
        begun, ended = (
            sum(1 for line in self.of(what) if line["who"] == instance and line["at"] <= moment)
            for what in ("reserving", "reserved")
        )
        return begun - ended

    def unacknowledged_at(self, moment: float) -> int:
        """Events that were published before a moment and not yet billed then."""
        published = {line["event"] for line in self.of("published") if line["at"] <= moment}
        return len(published - {line["event"] for line in self.of("billed") if line["at"] <= moment})

    def traffic_between(self, begin: float, end: float) -> int:
        """Orders whose reservation was answered between two moments."""
        return sum(1 for line in self.of("called") if begin <= line["at"] < end)
