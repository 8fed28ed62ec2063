"""Finding the members of an event in JSON, beside the standard library's parser, which builds what it passes."""

from __future__ import annotations

import json
from typing import Any

from bench.micro.timing import FULL, QUICK, each, row
from trunkline.core.jsontext import JsonText

PEER = "json.loads"

Row = dict[str, Any]


def event(items: int) -> bytes:
    """A structured event whose data is a list of so many small objects."""
    data = [{"sku": f"item-{number}", "count": number, "price": 9.5} for number in range(items)]
    return json.dumps(
        {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "data": data}
    ).encode()


def members(text: bytes) -> None:
    """What ingestion asks for."""
    JsonText(text, "body").members(0, 70, len(text))


def rows(quick: bool) -> list[Row]:
    """All results, in nanoseconds an event."""
    plan = QUICK if quick else FULL
    return [
        row(
            "jsontext",
            f"members of an event of {len(text):,} B",
            plan,
            each(lambda text=text: members(text)),  # type: ignore[misc]
            PEER,
            each(lambda text=text: json.loads(text)),  # type: ignore[misc]
        )
        for text in map(event, (1, 20, 2_000))
    ]
