"""Clients that have events published later, and take back what they asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from simulation.chance import between, choose, happens
from simulation.clients import JOBS, Client, Part
from simulation.handling.handlers import make_stream

from trunkline.client._event import Event
from trunkline.core.errors import ScheduleNotFound, TrunklineError

SCHEDULES_MAX = 6
"""Of one client at a time."""


def scheduler(wall_ns: Callable[[], int]) -> Part:
    """Makes schedules of every kind, deletes some, and at the end all. `wall_ns` is the server's clock."""

    async def part(client: Client) -> None:
        await make_stream(client, JOBS)
        names: list[str] = []
        number = 0
        while await client.rest(0.2, 1.2):
            number += 1
            with contextlib.suppress(TrunklineError):  # it may have been made nevertheless
                if len(names) < SCHEDULES_MAX:
                    names.append(f"{client.name}-{number}")
                    await _schedule(client, names[-1], wall_ns())
                else:
                    await _unschedule(client, names.pop(client.rng.below(len(names))))
        for schedule in await client.trunkline.schedules():
            await _unschedule(client, schedule.name)

    return part


async def _schedule(client: Client, name: str, now_ns: int) -> None:
    begins = datetime.fromtimestamp(now_ns // 1_000_000 / 1_000, UTC) + timedelta(
        seconds=between(client.rng, -2.0, 4.0)
    )
    event, skips = Event(type="job.due", source="/jobs"), happens(client.rng, 30)
    rule = choose(client.rng, ("at", "every", "every", "cron"))
    if rule == "at":
        await client.trunkline.schedule(name, event, stream=JOBS, at=begins)
    elif rule == "cron":
        await client.trunkline.schedule(name, event, stream=JOBS, cron="* * * * *", skip_missed=skips)
    else:
        interval, count = choose(client.rng, (0.3, 1.0, 2.5)), choose(client.rng, (0, 0, 3, 10))
        await client.trunkline.schedule(
            name, event, stream=JOBS, every=interval, start=begins, max_count=count, skip_missed=skips
        )


async def _unschedule(client: Client, name: str) -> None:
    client.history.unscheduled.setdefault(name, asyncio.get_running_loop().time())
    with contextlib.suppress(ScheduleNotFound):
        await client.trunkline.unschedule(name)
