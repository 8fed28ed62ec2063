"""Latencies as callers report them: counts in buckets whose bounds grow by the fourth root of two.

Bucket i has the calls that took longer than 2^((i - 1) / 4) and at most 2^(i / 4) tenths of a millisecond; the first has
the faster ones, too, and the last all that took longer. A bound is at most 19 % above what it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

LAST: Final = 80
"""The bucket without an upper bound."""
_UNIT_NS = 100_000
_PER_DOUBLING = 4

Buckets = Mapping[int, int]
"""Calls by bucket; one that is not there has none."""


def bound_ns(bucket: int) -> int:
    """The longest latency in a bucket; of the last one, the longest that is not in it."""
    return round(_UNIT_NS * 2 ** (min(bucket, LAST - 1) / _PER_DOUBLING))


def bucket_of(latency_ns: int) -> int:
    """The bucket of a latency."""
    if latency_ns <= _UNIT_NS:
        return 0
    return min(LAST, math.ceil(round(_PER_DOUBLING * math.log2(latency_ns / _UNIT_NS), 6)))


def over(buckets: Buckets, bucket: int) -> int:
    """Calls that took longer than a bucket's bound."""
    return sum(count for index, count in buckets.items() if index > bucket)


def percentile(buckets: Buckets, share: float) -> int:
    """The first bucket such that at most 1 - `share` of the calls took longer than its bound; `share` is below 1."""
    left = sum(buckets.values()) * (1 - share) + 1e-9
    for index in range(LAST, 0, -1):
        left -= buckets.get(index, 0)
        if left < 0:
            return index
    return 0


def raised(bucket: int, by: float) -> int:
    """The first bucket whose bound is at least (1 + `by`) times as long."""
    return min(LAST, bucket + math.ceil(round(_PER_DOUBLING * math.log2(1 + by), 6)))
