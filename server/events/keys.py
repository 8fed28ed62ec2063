"""Attributes that mean something to a subscription: their names, the hash of a key, the time that one says."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from trunkline.core.hashing import xxh64

from .order import NO_KEY

EXPIRY_ATTRIBUTE: Final = "expirytime"
"""CloudEvents' extension: behind this time an event is worth nothing and is not delivered."""
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def time_ns_of(text: str) -> int | None:
    """Nanoseconds since the epoch of a time in RFC 3339, to the microsecond; None if it is none."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1_000
    except (ValueError, TypeError):  # TypeError: a time without its zone
        return None


def key_hash(text: str | None) -> int:
    """XXH64 of an attribute's text; NO_KEY if the event has none."""
    return (xxh64(text.encode()) or 1) if text else NO_KEY
