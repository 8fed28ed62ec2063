"""Where settings come from, which of them wins, and what is said of those that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trunkline.core.errors import InvalidArgument, Violation
from trunkline.server.config import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    lapses_min: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    listen: str = "127.0.0.1:7400"
    guard: Guard = field(default_factory=Guard)


def written(folder: Path, text: str) -> Path:
    file = folder / "trunkline.toml"
    file.write_text(text)
    return file


def refused(file: Path | None, environment: dict[str, str]) -> list[Violation]:
    with pytest.raises(InvalidArgument) as caught:
        load(Config, file=file, environment=environment)
    return list(caught.value.violations)


def test_what_is_said_later_wins(tmp_path: Path) -> None:
    file = written(tmp_path, 'listen = "a:1"\n[guard]\nlapses_min = 6\n')
    assert load(Config, file=file, environment={}) == Config(listen="a:1", guard=Guard(lapses_min=6))
    variables = {"TRUNKLINE_LISTEN": "b:2", "TRUNKLINE_GUARD__LAPSES_MIN": "7", "PATH": "/bin"}
    assert load(Config, file=file, environment=variables) == Config(listen="b:2", guard=Guard(lapses_min=7))
    said = load(Config, file=file, environment=variables, overrides={"listen": "c:3", "guard": None})
    assert said == Config(listen="c:3", guard=Guard(lapses_min=7))


def test_variables_of_the_command_line_are_no_settings() -> None:
    assert load(Config, file=None, environment={"TRUNKLINE_TOKEN": "t", "TRUNKLINE_ADDRESS": "x:1"}) == Config()


def test_an_unknown_key_of_the_file_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    [violation] = refused(written(tmp_path, "[guard]\nlapses_mni = 6\n"), {})
    assert violation == Violation("guard.lapses_mni", "is not a setting; did you mean guard.lapses_min?", "6")


def test_an_unknown_variable_is_named_as_it_stands_in_the_environment() -> None:
    [violation] = refused(None, {"TRUNKLINE_GUARD__LAPSES_MNI": "6"})
    rule = "is not a setting; did you mean TRUNKLINE_GUARD__LAPSES_MIN?"
    assert violation == Violation("TRUNKLINE_GUARD__LAPSES_MNI", rule, "'6'")


def test_a_variable_cannot_be_both_a_value_and_a_section() -> None:
    [violation] = refused(None, {"TRUNKLINE_LISTEN": "a:1", "TRUNKLINE_LISTEN__HOST": "a"})
    assert violation.field == "TRUNKLINE_LISTEN__HOST"


def test_a_value_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    [violation] = refused(written(tmp_path, '[guard]\nlapses_min = "many"\n'), {})
    assert (violation.field, violation.value) == ("guard.lapses_min", "'many'")


@pytest.mark.parametrize("text", ["listen = ", "= 1", "[guard\n"])
def test_what_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    [violation] = refused(written(tmp_path, text), {})
    assert violation.rule.startswith("is not TOML")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    [violation] = refused(tmp_path / "none.toml", {})
    assert violation.rule == "No such file or directory"
