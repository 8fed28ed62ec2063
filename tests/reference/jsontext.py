"""JSON by the standard library's parser, as strict as RFC 8259: the oracle of trunkline.core.jsontext."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is Python's, not JSON's")


def parsed(text: bytes) -> Any:
    """The one value of a text. ValueError."""
    return json.loads(text.decode(), parse_constant=_refuse, parse_int=str, parse_float=str)


def members(text: bytes) -> list[tuple[str, Any]]:
    """The members of the one object of a text, also those that stand twice. ValueError."""
    outermost: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = pairs  # the last object that ends is the outermost
        return dict(pairs)

    found = json.loads(text.decode(), parse_constant=_refuse, parse_int=str, parse_float=str, object_pairs_hook=keep)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return outermost
