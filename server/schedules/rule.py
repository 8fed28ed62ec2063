"""When a schedule publishes: rules as values, and the times that they stand for.

Times are milliseconds since the epoch. A rule stands for one growing sequence of times, whatever is asked of it first, so
that a clock that is set back changes nothing about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from trunkline.core.errors import InvalidArgument

TIME_MS_MAX = 4_102_444_800_000
"""2100-01-01T00:00:00Z: no schedule has a time at or behind it."""
CRON_FIELDS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_MINUTE_MS = 60_000
_LOOK_BACK_MS = (3_600_000, 86_400_000, 40 * 86_400_000, 2 * 366 * 86_400_000)
"""How far back the last time of a calendar rule is looked for, one after the other: each holds few times when the one
before holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """Once."""

    at_ms: int

    def after(self, time_ms: int) -> int | None:
        """The first time behind `time_ms`; None when there is none."""
        return self.at_ms if time_ms < self.at_ms < TIME_MS_MAX else None

    def latest(self, after_ms: int, until_ms: int) -> int | None:
        """The last time behind `after_ms` and not behind `until_ms`; None when there is none."""
        return self.at_ms if after_ms < self.at_ms <= until_ms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """`start_ms` and every `interval_ms` from there on."""

    interval_ms: int
    start_ms: int

    def after(self, time_ms: int) -> int | None:
        """See At."""
        steps = max(0, (time_ms - self.start_ms) // self.interval_ms + 1)
        found = self.start_ms + steps * self.interval_ms
        return found if found < TIME_MS_MAX else None

    def latest(self, after_ms: int, until_ms: int) -> int | None:
        """See At."""
        until_ms = min(until_ms, TIME_MS_MAX - 1)
        found = self.start_ms + (until_ms - self.start_ms) // self.interval_ms * self.interval_ms
        return found if found >= self.start_ms and found > after_ms else None


@dataclass(frozen=True, slots=True)
class Cron:
    """By the calendar of a zone, with the meaning that Debian's cron gives to an expression (crontab(5)).

    When clocks are set forward, a job of a fixed time that would have run in the hour that is left out runs right behind
    it; when they are set back, it does not run again. A job of each hour or minute goes by the hours that pass.
    """

    expression: str
    zone: str
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """InvalidArgument, naming `expression` or `time_zone`."""
        object.__setattr__(self, "_zone", _zone_of(self.zone))
        if len(self.expression.split()) != CRON_FIELDS:
            raise InvalidArgument.of("expression", "must have five fields", self.expression)
        try:
            CronSim(self.expression, _EPOCH)
        except CronSimError as error:
            raise InvalidArgument.of("expression", f"must be a cron expression: {error}", self.expression) from error

    def after(self, time_ms: int) -> int | None:
        """See At."""
        return next(self._from(time_ms), None)

    def latest(self, after_ms: int, until_ms: int) -> int | None:
        """See At."""
        for back_ms in _LOOK_BACK_MS:
            from_ms = max(after_ms, until_ms - back_ms)
            found = self._last(from_ms, until_ms)
            if found is not None or from_ms == after_ms:
                return found
        return self._last(after_ms, until_ms)

    def _last(self, after_ms: int, until_ms: int) -> int | None:
        found = None
        for found in takewhile(lambda time_ms: time_ms <= until_ms, self._from(after_ms)):  # noqa: B007
            pass
        return found

    def _from(self, time_ms: int) -> Iterator[int]:
        """The times behind `time_ms`. In the second of two equal hours the library begins with the first again."""
        for moment in CronSim(self.expression, (_EPOCH + time_ms * _MS).astimezone(self._zone)):
            found = (moment.astimezone(UTC) - _EPOCH) // _MS
            if found >= TIME_MS_MAX:
                return
            if found > time_ms:
                yield found


Rule = At | Every | Cron


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a rule up to an end."""

    rule: Rule
    until_ms: int | None = None
    """The last time that counts; None: no end."""

    def after(self, time_ms: int) -> int | None:
        """The first time behind `time_ms`; None when there is none."""
        found = self.rule.after(time_ms)
        return None if found is None or self._is_over(found) else found

    def latest(self, after_ms: int, until_ms: int) -> int | None:
        """The last time behind `after_ms` and not behind `until_ms`; None when there is none."""
        return self.rule.latest(after_ms, until_ms if self.until_ms is None else min(until_ms, self.until_ms))

    def between(self, after_ms: int, until_ms: int, *, limit: int) -> list[int]:
        """The last `limit` times behind `after_ms` and not behind `until_ms`."""
        if isinstance(self.rule, Every):
            return self._between(max(after_ms, until_ms - limit * self.rule.interval_ms), until_ms)
        back_ms = limit * _MINUTE_MS
        while True:  # no calendar rule has more than one in a minute, and most have fewer
            from_ms = max(after_ms, until_ms - back_ms)
            found = self._between(from_ms, until_ms)
            if len(found) >= limit or from_ms == after_ms:
                return found[-limit:]
            back_ms *= 8

    def _between(self, after_ms: int, until_ms: int) -> list[int]:
        found = []
        while (time_ms := self.after(after_ms)) is not None and time_ms <= until_ms:
            found.append(time_ms)
            after_ms = time_ms
        return found

    def _is_over(self, time_ms: int) -> bool:
        return self.until_ms is not None and time_ms > self.until_ms


@cache
def _zone_names() -> frozenset[str]:
    """The database's own. A system's folder has others, such as "localtime", which mean something on that machine alone."""
    return frozenset(files("tzdata").joinpath("zones").read_text().split())


def _zone_of(name: str) -> ZoneInfo:
    if name not in _zone_names():
        raise InvalidArgument.of("time_zone", "must be a name of the IANA time zone database", name)
    return ZoneInfo(name)
