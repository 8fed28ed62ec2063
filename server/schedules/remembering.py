"""Telling control how far schedules have come, and which are over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from trunkline.api.journal.v1 import control_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import TrunklineError
from trunkline.core.records import Change
from trunkline.server.events.streams import Writer
from trunkline.server.journal.control.fold import View
from trunkline.server.journal.control.sequencer import Origin

from .fold import SCHEDULE_DELETED, SCHEDULE_FIRED, Fired, fired_to
from .planner import Live

log = logging.getLogger(__name__)

WRITE_SCHEDULES_MAX = 200
"""Told of in one write; the others go with the next."""
RETRY_S_MIN = 0.1
RETRY_S_MAX = 5.0
BY = Origin(author="trunkline", reason="schedule")


class Remembering:
    """Writes what schedules owe to control, until it is written."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self.failures = 0
        self._writer = writer
        self._clock = clock
        self._owing: dict[Live, None] = {}
        self._work = asyncio.Event()

    def add(self, live: Live) -> None:
        """A schedule owes something."""
        self._owing[live] = None
        self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = RETRY_S_MIN
        while True:
            await self._work.wait()
            some = list(self._owing)[:WRITE_SCHEDULES_MAX]
            try:
                await self._write({live: live.fired for live in some})
                pause_s = RETRY_S_MIN
            except TrunklineError as error:
                self.failures += 1
                log.warning("schedules not remembered", extra={"reason": error.code, "schedules": len(some)})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S_MAX)
            if not self._owing:
                self._work.clear()

    async def _write(self, told: dict[Live, Fired]) -> None:
        """`told`: how far each has come; what it does meanwhile is told later."""

        def decide(view: View) -> Sequence[Change]:
            return [_change(live, fired) for live, fired in told.items() if _is_there(view, live)]

        await self._writer.write(decide, BY)
        now_ms = self._clock.time_ns() // 1_000_000
        for live, fired in told.items():
            if live.fired is fired or not live.is_finished:
                del self._owing[live]
                live.remembered(fired, now_ms)


def _is_there(view: View, live: Live) -> bool:
    """It was not deleted meanwhile, and is not another one of its name."""
    found = view.get(live.entity.key)
    return found is not None and found.created_revision == live.entity.created_revision


def _change(live: Live, fired: Fired) -> Change:
    spec = live.entity.spec
    if live.is_finished:
        topic, body = SCHEDULE_DELETED, control_pb2.ScheduleDeleted().SerializeToString()
    else:
        topic, body = SCHEDULE_FIRED, fired_to(fired).SerializeToString()
    return Change(topic=topic, key=spec.key, body=body, namespace=spec.namespace)
