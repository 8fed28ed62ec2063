"""What is fuzzed holds for every input of the committed corpus. tools/fuzz.sh looks for further ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import targets

CORPUS = Path(__file__).parent / "corpus"
INPUTS = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_holds_holds_for_the_corpus(path: Path) -> None:
    getattr(targets, path.parent.name)(path.read_bytes())


def test_the_corpus_is_there() -> None:
    assert {path.parent.name for path in INPUTS} == {"session", "inbox", "headers"}
