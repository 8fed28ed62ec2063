"""Deliveries as bytes, written down plainly."""

from __future__ import annotations

from collections.abc import Sequence


def varint(value: int) -> bytes:
    """An unsigned protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def subscription_prefix(subscription_id: int) -> bytes:
    return b"\x08" + varint(subscription_id) if subscription_id else b""


def delivery_suffix(offset: int, time_ns: int, frame: bytes) -> bytes:
    return b"\x20" + varint(offset) + b"\x29" + time_ns.to_bytes(8, "little") + frame


def delivery(prefix: bytes, credit: int, attempt: int, suffix: bytes) -> bytes:
    inner = prefix + b"\x10" + varint(credit) + b"\x18" + varint(attempt) + suffix
    return b"\x12" + varint(len(inner)) + inner


def first_deliveries(
    payload: bytes,
    ends: Sequence[int],
    offsets: Sequence[int],
    time_ns: int,
    indexes: Sequence[int],
    first: int,
    prefix: bytes,
    credit: int,
    bytes_limit: int,
) -> tuple[bytes, int]:
    out, count = b"", 0
    for index in indexes[first:]:
        if not credit or len(out) >= max(1, bytes_limit):
            break
        frame = payload[ends[index - 1] if index else 0 : ends[index]]
        credit -= 1
        out += delivery(prefix, credit, 1, delivery_suffix(offsets[index], time_ns, frame))
        count += 1
        if len(out) >= bytes_limit:
            break
    return out, count
