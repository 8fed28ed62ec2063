"""Places in a stream and filters on attributes, as they are written on the command line."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from trunkline.client import Start
from trunkline.core.errors import InvalidArgument

LAST_PER_KEY = "last-per-key"


def position_of(text: str, option: str) -> Start:
    """An offset, a time in ISO 8601 with its zone, "earliest", "latest" or "last-per-key". InvalidArgument."""
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if text == LAST_PER_KEY:
        return "last_per_key"
    if text.isdecimal():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidArgument.of(option, f"an offset, a time with its zone, earliest, latest or {LAST_PER_KEY}", text)
    return found


def filters_of(text: str | None) -> list[dict[str, Any]]:
    """One filter on attributes or a list of them, in JSON. InvalidArgument."""
    if text is None:
        return []
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    filters = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) for one in filters):
        raise InvalidArgument.of("--where", 'JSON such as {"exact": {"region": "eu"}}', text)
    return filters
