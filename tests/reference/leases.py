"""The oracle of core/leases.pyx: the same, written plainly."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from trunkline.core.clock import Rng
from trunkline.core.leases import BUCKET_NS, JITTER_MS_MAX, SLICE_LEASES
from trunkline.core.model import TTL_MS_MAX


class _Timed:
    """A lease's time: how long it lives after a renewal, and until when. Listed in exactly one bucket."""

    __slots__ = ("deadline_ns", "group", "lease_id", "span_ns", "ttl_ms")

    def __init__(self, lease_id: int, ttl_ms: int, group: str, span_ns: int, deadline_ns: int) -> None:
        self.lease_id = lease_id
        self.ttl_ms = ttl_ms
        self.group = group
        self.span_ns = span_ns
        self.deadline_ns = deadline_ns


class Renewal(NamedTuple):
    """What a keep-alive did."""

    renewed: int
    missing: list[int]
    """Leases that are not in the table."""
    ttl_ms_shortest: int
    """Of those renewed; the longest there is when none was."""


class LeaseTable:
    """Deadlines of the leases that this node keeps and that have not lapsed.

    Times are monotonic nanoseconds and do not go back. After each renewal a lease lives for its TTL and a jitter that
    was drawn when it was granted.
    """

    def __init__(self, rng: Rng, *, jitter_ms_max: int = JITTER_MS_MAX) -> None:
        assert 0 < jitter_ms_max < 1_000
        self._rng = rng
        self._jitter_ns = jitter_ms_max * 1_000_000
        self._leases: dict[int, _Timed] = {}
        self._buckets: dict[int, list[_Timed]] = {}
        self._shifted_ns = 0  # how long the server has stood still: deadlines count time without it

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[int]:
        return iter(self._leases)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def grant_many(self, leases: Iterable[tuple[int, int, str]], *, now_ns: int) -> None:
        """Time leases from now on: id, TTL and group of each."""
        base_ns = now_ns - self._shifted_ns
        known, buckets, below, jitter_ns = self._leases, self._buckets, self._rng.below, self._jitter_ns
        for lease_id, ttl_ms, group in leases:
            span_ns = ttl_ms * 1_000_000 + 1 + below(jitter_ns)
            deadline_ns = base_ns + span_ns
            timed = _Timed(lease_id, ttl_ms, group, span_ns, deadline_ns)
            known[lease_id] = timed  # the bucket that lists an older one finds out
            bucket = deadline_ns // BUCKET_NS
            if bucket in buckets:
                buckets[bucket].append(timed)
            else:
                buckets[bucket] = [timed]

    def drop(self, lease_id: int) -> None:
        """Time it no longer; nothing happens if it is not there."""
        self._leases.pop(lease_id, None)

    def renew(self, lease_ids: Iterable[int], now_ns: int) -> Renewal:
        """Give leases their full time from now."""
        base_ns = now_ns - self._shifted_ns
        get = self._leases.get
        renewed = 0
        shortest_ms = TTL_MS_MAX
        missing = []
        for lease_id in lease_ids:
            timed = get(lease_id)
            if timed is None:
                missing.append(lease_id)
                continue
            timed.deadline_ns = base_ns + timed.span_ns
            renewed += 1
            if timed.ttl_ms < shortest_ms:
                shortest_ms = timed.ttl_ms
        return Renewal(renewed, missing, shortest_ms)

    def deadline_ns(self, lease_id: int) -> int | None:
        """When a lease runs out as things stand; None if it is not in the table."""
        timed = self._leases.get(lease_id)
        return None if timed is None else timed.deadline_ns + self._shifted_ns

    def silent_ns(self, lease_id: int, now_ns: int) -> int | None:
        """How long ago a lease was renewed, less the server's own stalls; None if it is not in the table."""
        timed = self._leases.get(lease_id)
        return None if timed is None else now_ns - self._shifted_ns - (timed.deadline_ns - timed.span_ns)

    def count_silent(self, counts: dict[str, int], now_ns: int, *, percent: int) -> Iterator[None]:
        """How many leases of each group were not renewed for at least this part of their TTL, into `counts`.

        Looks at every lease, SLICE_LEASES of them at a step.
        """
        at_ns = now_ns - self._shifted_ns
        per_ms = percent * 10_000
        leases = iter(list(self._leases.values()))
        while part := list(islice(leases, SLICE_LEASES)):
            for timed in part:
                if at_ns - timed.deadline_ns + timed.span_ns >= timed.ttl_ms * per_ms:
                    counts[timed.group] = counts.get(timed.group, 0) + 1
            yield

    def shift(self, by_ns: int) -> None:
        """The server stood still for so long: every deadline moves by that."""
        assert by_ns >= 0
        self._shifted_ns += by_ns

    def due(self, now_ns: int, *, limit: int = sys.maxsize) -> list[int]:
        """Leases that have run out, at most `limit` of them. They stay due until they are renewed or dropped."""
        at_ns = now_ns - self._shifted_ns
        last = at_ns // BUCKET_NS
        due: list[int] = []
        again: list[_Timed] = []
        for bucket in sorted(bucket for bucket in self._buckets if bucket <= last):
            listed = self._buckets.pop(bucket)
            for place, timed in enumerate(listed):
                if len(due) >= limit:
                    self._buckets[bucket] = listed[place:]
                    break
                if self._leases.get(timed.lease_id) is not timed:
                    continue  # dropped or granted anew
                if timed.deadline_ns <= at_ns:
                    due.append(timed.lease_id)
                again.append(timed)
            if bucket in self._buckets:
                break
        # Listed again when all are taken out: what is still due goes into the last of these buckets.
        for timed in again:
            self._list(timed, max(timed.deadline_ns // BUCKET_NS, last))
        return due

    def _list(self, timed: _Timed, bucket: int) -> None:
        self._buckets.setdefault(bucket, []).append(timed)
