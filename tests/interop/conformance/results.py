"""How each case ended last, a small file for each, so that test workers do not write to one."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parents[3] / "build" / "conformance" / "results"
PASSED = "passed"
FAILED = "failed"


def _file(suite: str, transport: str, case: str) -> Path:
    return RESULTS / transport / suite / f"{case.replace('/', ' ')}.json"


def record(suite: str, transport: str, case: str, outcome: str) -> None:
    """Keep the outcome, in place of that of an earlier run."""
    path = _file(suite, transport, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"suite": suite, "transport": transport, "case": case, "outcome": outcome}) + "\n")


def recorded(suite: str, transport: str, case: str) -> str | None:
    """The outcome of the last run; None when there was none."""
    path = _file(suite, transport, case)
    return str(json.loads(path.read_text())["outcome"]) if path.exists() else None
