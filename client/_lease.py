"""Keeps all leases of a connection alive over one stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from trunkline.api import convert
from trunkline.api.v1.registry_pb2 import KeepAliveRequest, KeepAliveResponse, LostLease
from trunkline.core.clock import Rng
from trunkline.core.errors import TrunklineError

from ._backoff import Backoff
from ._duplex import Duplex
from ._link import Link

log = logging.getLogger("trunkline.client")

LEASES_PER_REQUEST_MAX = 10_000
EARLY_AT_MOST = 0.1
"""A keep-alive goes out up to this part of its interval early, so that clients that started together drift apart."""


class Lease(Protocol):
    """What is kept alive."""

    @property
    def ttl_ms(self) -> int: ...

    def lease_lost(self, reason: LostLease.Reason.ValueType) -> None:
        """The control plane does not know it (any more)."""


class LeaseKeeper:
    """Renews every lease each third of the shortest TTL; finds a silent control plane within two thirds of it."""

    silent_after_s: float | None = None

    def __init__(self, link: Link, rng: Rng, backoff: Backoff) -> None:
        self._link = link
        self._rng = rng
        self._leases: dict[int, Lease] = {}
        self._unsaid: set[int] = set()
        self._rhythm_changed = asyncio.Event()
        self._interval_s = 0.0
        self._stream: Duplex[KeepAliveRequest, KeepAliveResponse] = Duplex(
            link, lambda stubs: stubs.registry.KeepAlive, self, backoff
        )

    def keep(self, lease_id: int, lease: Lease) -> None:
        """Renew it from now on."""
        self._leases[lease_id] = lease
        self._unsaid.add(lease_id)
        self._set_rhythm()
        self._stream.wake()

    def forget(self, lease_id: int) -> None:
        """Renew it no more."""
        if self._leases.pop(lease_id, None) is not None:
            self._unsaid.discard(lease_id)
            self._set_rhythm()
            if not self._leases:
                self._stream.rest()

    def _set_rhythm(self) -> None:
        ttl_s = min((lease.ttl_ms for lease in self._leases.values()), default=0) / 1_000
        self._interval_s = ttl_s / 3
        self.silent_after_s = 2 * self._interval_s or None
        self._link.backoff_limit_s = self._interval_s or None
        self._rhythm_changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stream.run())
            tasks.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            interval_s = self._interval_s * (1 - EARLY_AT_MOST * self._rng.random()) or None
            self._rhythm_changed.clear()
            try:
                async with asyncio.timeout(interval_s):
                    await self._rhythm_changed.wait()
            except TimeoutError:
                self._unsaid.update(self._leases)
                self._stream.wake()

    def opening(self) -> Sequence[KeepAliveRequest]:
        self._unsaid.clear()
        return list(_requests(self._leases))

    def outgoing(self) -> Sequence[KeepAliveRequest]:
        due = [lease_id for lease_id in self._leases if lease_id in self._unsaid]
        self._unsaid.clear()
        return list(_requests(due))

    def received(self, response: KeepAliveResponse) -> None:
        for lost in response.lost:
            lease = self._leases.get(lost.lease_id)
            if lease is not None:
                self.forget(lost.lease_id)
                lease.lease_lost(lost.reason)
        within_s = convert.ms_from(response, "next_within", 0) / 1_000
        if 0 < within_s < self._interval_s:
            self._interval_s = within_s
            self._rhythm_changed.set()

    def lost(self, error: TrunklineError) -> None:
        log.debug("keep-alive stream lost", extra={"leases": len(self._leases), "error": str(error)})


def _requests(lease_ids: Iterable[int]) -> Iterable[KeepAliveRequest]:
    ids = list(lease_ids)
    for start in range(0, len(ids), LEASES_PER_REQUEST_MAX):
        yield KeepAliveRequest(lease_ids=ids[start : start + LEASES_PER_REQUEST_MAX])
