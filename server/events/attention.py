"""Time as far as the server listened: it stands still while the server does.

Consumers' acknowledgements wait in the network during a stall, as keep-alives do. Were deadlines kept by the clock alone,
everything in flight would be delivered again, to consumers that have long been done with it.
"""

from __future__ import annotations

import asyncio
import logging

from trunkline.core.clock import Clock
from trunkline.server.registry.stall import StallDetector

log = logging.getLogger(__name__)

TICK_MS = 250
TOLERANCE_MS = 500
"""A shorter pause is part of every program's life."""


class Attention(Clock):
    """A clock without the stalls; `run` it. Whoever reads it first after a stall finds all of it."""

    def __init__(self, clock: Clock) -> None:
        self.stood_still_ns = 0
        """In all."""
        self._clock = clock
        self._stalls = StallDetector(tick_ms=TICK_MS, tolerance_ms=TOLERANCE_MS)

    def now_ns(self) -> int:
        now_ns = self._clock.now_ns()
        late_ns = self._stalls.observe(now_ns)
        if late_ns:
            self.stood_still_ns += late_ns
            log.warning("the server stood still: deliveries in flight get that much longer", extra={"ns": late_ns})
        return now_ns - self.stood_still_ns

    def time_ns(self) -> int:
        return self._clock.time_ns()

    async def run(self) -> None:
        """Tick, until cancelled."""
        while True:
            self.now_ns()
            self._stalls.ticked(self._clock.now_ns())
            await asyncio.sleep(TICK_MS / 1_000)
