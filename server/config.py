"""One server's configuration: a frozen dataclass a component, read once from TOML and the environment.

Order, later wins: defaults, the file, TRUNKLINE_* variables (TRUNKLINE_LISTEN, TRUNKLINE_REGISTRY__STALE_RETENTION_S: two
underscores go into a section), what the command line says. An unknown key is an error that names it.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trunkline.core.errors import InvalidArgument, Violation

ENVIRONMENT_PREFIX = "TRUNKLINE_"
CONFIG_VARIABLES_ELSEWHERE = frozenset(
    f"TRUNKLINE_{name}" for name in ("CONFIG", "ADDRESS", "TOKEN", "CLIENT_NAMESPACE", "SERVICE", "INSTANCE_ID")
)
"""Variables of the command line, and those that `register` gives to what it wraps, which are no settings of a server."""

Settings = dict[str, Any]
C = typing.TypeVar("C")


def load(
    kind: type[C], *, file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> C:
    """Make a configuration of type `kind` (a dataclass of dataclasses). InvalidArgument names what is wrong."""
    settings = read_file(file) if file is not None else {}
    variables = from_environment(environment)
    unknown = [*_unknown_keys(kind, settings, str), *_unknown_keys(kind, variables, variable_of)]
    if unknown:
        raise InvalidArgument(*unknown)
    _merge(settings, variables)
    _merge(settings, {key: value for key, value in (overrides or {}).items() if value is not None})
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        raise InvalidArgument(
            *(
                Violation(".".join(str(part) for part in problem["loc"]), problem["msg"], repr(problem["input"])[:80])
                for problem in error.errors()
            )
        ) from error


def read_file(path: Path) -> Settings:
    """Read a TOML file. InvalidArgument when it is not there or is no TOML."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidArgument.of("config", error.strerror or "cannot be read", str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument.of("config", f"is not TOML: {error}", str(path)) from error


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from TRUNKLINE_* variables. InvalidArgument when one is to be both a value and a section."""
    settings: Settings = {}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in CONFIG_VARIABLES_ELSEWHERE:
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = settings
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InvalidArgument.of(name, f"{section} is no section: another variable gives it a value", place)
        place[key] = environment[name]
    return settings


def variable_of(setting: str) -> str:
    """The environment variable of a setting ("registry.stale_retention_s")."""
    return ENVIRONMENT_PREFIX + setting.upper().replace(".", "__")


def _merge(into: Settings, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _unknown_keys(
    kind: Any, settings: Mapping[str, Any], name: Callable[[str], str], path: str = ""
) -> typing.Iterator[Violation]:
    """Keys that no field of the dataclass has, with the nearest that one has. `name` is what a setting is called there."""
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        where = f"{path}{key}"
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            rule = "is not a setting" + (f"; did you mean {name(path + near[0])}?" if near else "")
            yield Violation(name(where), rule, repr(value)[:80])
            continue
        section = next((t for t in (known[key], *typing.get_args(known[key])) if dataclasses.is_dataclass(t)), None)
        if section is not None and isinstance(value, Mapping):
            yield from _unknown_keys(section, value, name, f"{where}.")
