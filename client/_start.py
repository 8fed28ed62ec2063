"""How a subscription that is new begins, as users write it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal, TypeAlias

from trunkline.api import convert
from trunkline.api.v1.events_pb2 import StartPosition, SubscriptionConfig
from trunkline.core.errors import InvalidArgument

Start: TypeAlias = Literal["earliest", "latest"] | int | datetime
"""The first event that is kept, only what comes from now on, an offset, or a time (with its zone)."""


def start_position(start: Start) -> StartPosition:
    """The message. InvalidArgument for anything else."""
    match start:
        case "earliest":
            return StartPosition(earliest=True)
        case "latest":
            return StartPosition(latest=True)
        case int() if start >= 0 and not isinstance(start, bool):
            return StartPosition(offset=start)
        case datetime() if start.tzinfo is not None:
            position = StartPosition()
            position.time.FromDatetime(start)
            return position
    raise InvalidArgument.of("start", "'earliest', 'latest', an offset, or a time with its zone", start)


Ordering = Literal["parallel", "keyed", "sequential"]
"""How much order a subscription keeps: none, one event at a time of each key, one event at a time."""
_ORDERINGS: Final = {
    "parallel": SubscriptionConfig.ORDERING_PARALLEL,
    "keyed": SubscriptionConfig.ORDERING_KEYED,
    "sequential": SubscriptionConfig.ORDERING_SEQUENTIAL,
}


def subscription_config(
    filters: Iterable[str],
    start: Start,
    ordering: Ordering,
    key_attribute: str,
    ack_deadline_s: float | None,
    max_deliveries: int,
    max_in_flight: int,
) -> SubscriptionConfig:
    """The message; zeros, nothing and None leave the server's defaults."""
    if ordering not in _ORDERINGS:
        raise InvalidArgument.of("ordering", f"one of {', '.join(_ORDERINGS)}", ordering)
    if isinstance(filters, str):
        raise InvalidArgument.of("filters", "a list of filters, not one text", filters)
    return SubscriptionConfig(
        filters=list(filters),
        ack_deadline=None if ack_deadline_s is None else convert.ms_to(int(ack_deadline_s * 1_000)),
        max_deliveries=max_deliveries,
        start=start_position(start),
        max_in_flight=max_in_flight,
        ordering=_ORDERINGS[ordering],
        key_attribute=key_attribute,
    )
