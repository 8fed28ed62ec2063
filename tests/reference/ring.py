"""The ring as its documentation tells it: a sorted list, searched with bisect."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

import xxhash

from reference.weights import check_hosts

RING_SIZE_MAX = 8_388_608


class Ring:
    """See trunkline.core.ring.Ring."""

    def __init__(
        self,
        hosts: Sequence[str],
        weights: Sequence[int],
        *,
        minimum_ring_size: int = 1024,
        maximum_ring_size: int = RING_SIZE_MAX,
    ) -> None:
        check_hosts(hosts, weights)
        if not 1 <= minimum_ring_size <= maximum_ring_size <= RING_SIZE_MAX:
            raise ValueError("size")
        shares = [weight / sum(weights) for weight in weights]
        least = min(share for share in shares if share > 0)
        scale = min(ceil(least * minimum_ring_size) / least, float(maximum_ring_size))
        ring: list[tuple[int, int]] = []
        target = 0.0
        for index, (host, share) in enumerate(zip(hosts, shares, strict=True)):
            target += scale * share
            number = 0
            while share > 0 and len(ring) < target:
                ring.append((xxhash.xxh64_intdigest(f"{host}_{number}".encode()), index))
                number += 1
        self._points = sorted(ring)

    def locate(self, hash: int) -> int:
        """The owner of the first point that is not below `hash`."""
        if not 0 <= hash < 2**64:
            raise OverflowError(hash)
        return self._points[bisect_left(self._points, (hash, 0)) % len(self._points)][1]

    def locate_key(self, key: bytes) -> int:
        """The owner of the key's hash."""
        return self.locate(xxhash.xxh64_intdigest(key))

    def points(self) -> list[tuple[int, int]]:
        """All points."""
        return self._points

    @property
    def size(self) -> int:
        """How many points there are."""
        return len(self._points)
