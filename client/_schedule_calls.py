"""What a connection does with schedules."""

from __future__ import annotations

from datetime import datetime, timedelta

from . import _schedules
from ._connected import Connected
from ._event import Event
from ._schedules import Schedule, When


class ScheduleCalls(Connected):
    """See Trunkline."""

    async def schedule(
        self, name: str, event: Event, *, at: datetime | None = None, every: timedelta | float | None = None,
        cron: str = "", time_zone: str = "", start: datetime | None = None, until: datetime | None = None,
        max_count: int = 0, skip_missed: bool = False, stream: str = "events", namespace: str | None = None,
    ) -> Schedule:  # fmt: skip
        """Have the control plane publish an event later: `at` a time, `every` so often (a number: seconds), or by a `cron`
        expression of five fields in a `time_zone` ("UTC" if empty).

        `every` counts from `start`, or from now. It ends with `until` or after `max_count` events. Times that went by
        while nothing could be published are made good by one event, or not at all with `skip_missed`. A schedule of this
        name with other settings is ScheduleExists. One that has nothing left to publish is gone.
        """
        self._check_open()
        when = When(
            at=at, every=every, cron=cron, time_zone=time_zone, start=start, until=until, max_count=max_count,
            skip_missed=skip_missed,
        )  # fmt: skip
        named = event.named(source=self._name, entropy=self._edge.entropy)
        where = namespace or self._namespace
        return await _schedules.create(self._link, self._edge, named, when, namespace=where, stream=stream, name=name)

    async def schedules(self, *, namespace: str | None = None) -> tuple[Schedule, ...]:
        """Every schedule of the namespace, by name."""
        self._check_open()
        return await _schedules.list_all(self._link, namespace=namespace or self._namespace)

    async def unschedule(self, name: str, *, namespace: str | None = None) -> None:
        """Delete a schedule. ScheduleNotFound."""
        self._check_open()
        await _schedules.delete(self._link, self._edge, namespace=namespace or self._namespace, name=name)
