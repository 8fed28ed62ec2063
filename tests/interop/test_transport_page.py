"""docs/transport-conformance.md lists the cases that the tests run, and none of them failed when it was written."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from interop.conformance import results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "transport-conformance.md"
REMEDY = "run: .venv/bin/pytest tests/interop; .venv/bin/python tools/conformance_page.py"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "conformance_page.py"))


def test_the_page_lists_the_cases_of_the_tests(tool: dict[str, Any]) -> None:
    text = PAGE.read_text()
    assert text == tool["page"](tool["said"](text)), REMEDY


def test_every_case_on_the_page_passed(tool: dict[str, Any]) -> None:
    outcome = tool["said"](PAGE.read_text())
    ends = {
        (suite.name, transport, case): tool["cell"](suite, transport, case, outcome)
        for part in tool["PARTS"]
        for suite, transport in part.columns
        for case in suite.cases
    }
    assert len(ends) > 200
    assert not {key: end for key, end in ends.items() if end not in (results.PASSED, tool["NOT_MEANT"])}, REMEDY


def test_a_case_that_the_page_lacks_is_seen(tool: dict[str, Any]) -> None:
    lines = PAGE.read_text().splitlines(keepends=True)
    shorter = "".join(line for line in lines if not line.startswith("| `ping_pong` |"))
    assert shorter != tool["page"](tool["said"](shorter))
