"""Deliveries as bytes: a short prefix of the subscription's own, then a suffix that all who get the event share.

The layout is that of trunkline.api.v1.SubscribeResponse; FetchResponse has its deliveries under the same field number.
"""

from __future__ import annotations

from functools import lru_cache

_DELIVERY = b"\x12"  # SubscribeResponse.deliveries = 2, FetchResponse.deliveries = 2
_SUBSCRIPTION_ID = b"\x08"
_CREDIT = b"\x10"
_ATTEMPT = b"\x18"
OFFSET = b"\x20"
TIME_NS = b"\x29"


def varint(value: int) -> bytes:
    """An unsigned protobuf varint."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


small_varint = lru_cache(maxsize=1 << 14)(varint)
"""The same for lengths, credits and attempts, of which there are few."""


def subscription_prefix(subscription_id: int) -> bytes:
    """The first field of each of its deliveries."""
    return _SUBSCRIPTION_ID + varint(subscription_id) if subscription_id else b""


def delivery_head(prefix: bytes, credit: int, attempt: int, suffix_bytes: int) -> bytes:
    """What stands before the shared suffix: the delivery's tag and length, then `prefix`, credit and attempt."""
    own = prefix + _CREDIT + small_varint(credit) + _ATTEMPT + small_varint(attempt)
    return _DELIVERY + small_varint(len(own) + suffix_bytes) + own
