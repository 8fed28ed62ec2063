"""Of a command that is not there, the nearest of all commands is named, also of those that are not loaded yet."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from trunkline.cli._main import group


@pytest.mark.parametrize(
    ("written", "meant"), [("serv", "serve"), ("sched", "schedules"), ("redrve", "redrive"), ("xyzzy", None)]
)
def test_the_nearest_command_is_named(written: str, meant: str | None) -> None:
    said = CliRunner().invoke(group, [written])
    assert said.exit_code == 2
    assert f"No such command '{written}'." in said.output
    assert ("Did you mean" in said.output) == (meant is not None)
    assert meant is None or f"'{meant}'" in said.output
