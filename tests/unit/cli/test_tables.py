"""Tables of the command line show what there is, whatever people wrote."""

from __future__ import annotations

import pytest

from trunkline.cli._context import Settings
from trunkline.cli._policy import _flow


@pytest.mark.parametrize("said", ["[urgent] less", "[/]", "[bold]", "a [b", "{codes: [unavailable]}", r"\[x]"])
def test_brackets_are_text(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(address="", namespace="", token=None, ca=None, timeout_s=1, as_json=False)
    settings.show([{"reason": said}], ["reason"], empty="nothing")
    assert capsys.readouterr().out.split("\n")[1].rstrip() == said


def test_a_section_is_shown_as_it_is_written() -> None:
    assert _flow({"codes": ["unavailable"], "present": True, "weight": 5}) == (
        "{codes: [unavailable], present: true, weight: 5}"
    )
