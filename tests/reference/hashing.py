"""XXH64 step by step from its specification, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md."""

from __future__ import annotations

MASK = 2**64 - 1
PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def _rotated(x: int, by: int) -> int:
    return ((x << by) | (x >> (64 - by))) & MASK


def _round(lane: int, word: int) -> int:
    return _rotated((lane + word * PRIMES[1]) & MASK, 31) * PRIMES[0] & MASK


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def xxh64(data: bytes, seed: int = 0) -> int:
    """The hash, in [0, 2**64)."""
    if not 0 <= seed <= MASK:
        raise OverflowError(seed)
    rest = data
    if len(data) < 32:
        acc = seed + PRIMES[4]
    else:
        lanes = [seed + PRIMES[0] + PRIMES[1], seed + PRIMES[1], seed, seed - PRIMES[0]]
        while len(rest) >= 32:
            lanes = [_round(lane, _little(rest[8 * i : 8 * i + 8])) for i, lane in enumerate(lanes)]
            rest = rest[32:]
        acc = sum(_rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            acc = (acc ^ _round(0, lane)) * PRIMES[0] + PRIMES[3]
    acc = (acc + len(data)) & MASK
    while len(rest) >= 8:
        acc = _rotated(acc ^ _round(0, _little(rest[:8])), 27) * PRIMES[0] + PRIMES[3] & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        acc = _rotated(acc ^ _little(rest[:4]) * PRIMES[0] & MASK, 23) * PRIMES[1] + PRIMES[2] & MASK
        rest = rest[4:]
    for byte in rest:
        acc = _rotated(acc ^ byte * PRIMES[4] & MASK, 11) * PRIMES[0] & MASK
    acc = (acc ^ acc >> 33) * PRIMES[1] & MASK
    acc = (acc ^ acc >> 29) * PRIMES[2] & MASK
    return acc ^ acc >> 32
