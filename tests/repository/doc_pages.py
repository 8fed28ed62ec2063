"""The pages of docs/, the README, and what stands in their code fences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = DOCS.parent / "README.md"
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_MARK = re.compile(r"<!-- (?P<mark>runs|not run)(: .+)? -->\n$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """One code fence. `runs` None: no mark stands before it."""

    page: str
    line: int
    language: str
    text: str
    runs: bool | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    """Every fence of a page, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        mark = _MARK.search(text[: found.start()])
        yield Snippet(
            page=page.name,
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            text=found["text"],
            runs=None if mark is None else mark["mark"] == "runs",
        )
