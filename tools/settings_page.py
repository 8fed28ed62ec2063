"""Write docs/settings.md from the configuration's dataclasses: python tools/settings_page.py

Name, type, default and words are those of the code, so that the page cannot say something else; a test compares the two.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from trunkline.server.app import ServerConfig

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
REQUIRED = "required"
INTRODUCTION = """\
<!-- Written by tools/settings_page.py from the dataclasses of the code. Do not edit. -->
# Settings

A server reads its settings once, when it starts. Later wins: the defaults below; the TOML file of `--config`; environment
variables; options of `trunkline serve`.

A variable's name is `TRUNKLINE_`, then the setting in capitals, with two underscores between section and name:
`TRUNKLINE_LISTEN`, `TRUNKLINE_REGISTRY__GUARD__LAPSED_PERCENT_MAX`. Settings that are lists stand in the file only.

An unknown key, a value of a wrong type and a broken relation between two settings are refused at the start, in one line each
that names the setting. Nothing is read again while the server runs.

<!-- runs -->
```toml
listen = "127.0.0.1:7400"
data = "/var/lib/trunkline"

[registry.guard]
lapsed_percent_max = 20

[control]
history_retention_s = 1_209_600
```
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row."""

    name: str
    type: str
    default: str
    words: str


@dataclasses.dataclass(frozen=True)
class Section:
    """One table: the fields of a dataclass that are no dataclasses themselves."""

    path: str
    repeated: bool
    words: str
    settings: tuple[Setting, ...]

    @property
    def heading(self) -> str:
        if not self.path:
            return "Top level"
        return f"`[[{self.path}]]`" if self.repeated else f"`[{self.path}]`"


@cache
def field_words(kind: type) -> dict[str, str]:
    """What is said under each field of a dataclass or of those that it is made of, in one line."""
    words: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                said = after.value if isinstance(after, ast.Expr) else None
                text = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
                words[statement.target.id] = " ".join(text.split())
    return words


def section_of(hint: Any) -> tuple[type, bool] | None:
    """The dataclass that a field holds, and whether it holds several."""
    if dataclasses.is_dataclass(hint):
        return typing.cast("type", hint), False
    for argument in typing.get_args(hint):
        if dataclasses.is_dataclass(argument):
            return typing.cast("type", argument), typing.get_origin(hint) is tuple
    return None


def sections(kind: type, path: str = "", *, repeated: bool = False, note: str = "") -> Iterator[Section]:
    """The tables of a configuration, outer before inner."""
    hints = typing.get_type_hints(kind)
    words = field_words(kind)
    inner: list[Section] = []
    settings = []
    for field in dataclasses.fields(kind):
        found = section_of(hints[field.name])
        if found is None:
            settings.append(Setting(field.name, type_words(hints[field.name]), default_words(field), words[field.name]))
        else:
            optional = "Absent unless it is given." if field.default is None else ""
            where = f"{path}.{field.name}" if path else field.name
            said = " ".join(filter(None, (words[field.name], optional)))
            inner += sections(found[0], where, repeated=found[1], note=said)
    about = "" if not path else " ".join((inspect.getdoc(kind) or "").split())
    yield Section(path, repeated, " ".join(filter(None, (about, note))), tuple(settings))
    yield from inner


def type_words(hint: Any) -> str:
    """A type as people say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if type(None) in arguments:
        return " or ".join(type_words(argument) for argument in arguments if argument is not type(None))
    if origin is tuple:
        return f"list of {type_words(arguments[0])}"
    return {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path"}[hint]


def default_words(field: dataclasses.Field[Any]) -> str:
    """A default as TOML would have it."""
    if field.default is dataclasses.MISSING:
        return REQUIRED
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value:_}`"
    if isinstance(value, tuple):
        return "`[]`" if not value else f"`{list(value)}`"
    return f'`"{value}"`'


def page() -> str:
    """The whole text."""
    parts = [INTRODUCTION]
    for section in sections(ServerConfig):
        lines = [f"## {section.heading}", ""]
        if section.words:
            lines += [section.words, ""]
        if section.settings:
            lines += ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
            lines += [f"| `{s.name}` | {s.type} | {s.default} | {s.words} |" for s in section.settings]
            lines.append("")
        parts.append("\n".join(lines))
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
