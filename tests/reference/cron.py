"""Cron by looking at every day, hour and minute of UTC: fields of `*`, numbers, ranges, steps and lists (crontab(5))."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def values(text: str, first: int, last: int) -> set[int]:
    """What a field takes."""
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        begin, dash, end = span.partition("-")
        low, high = (first, last) if span == "*" else (int(begin), int(end) if dash else last if step else int(begin))
        found.update(range(low, high + 1, int(step or 1)))
    return found


def times(expression: str, after_ms: int, until_ms: int) -> list[int]:
    """Every time in UTC behind the one and not behind the other; milliseconds since the epoch."""
    texts = expression.split()
    minutes, hours, days, months, weekdays = (values(text, *bounds) for text, bounds in zip(texts, RANGES, strict=True))
    both = texts[2].startswith("*") or texts[4].startswith("*")
    found = []
    day = datetime.fromtimestamp(after_ms / 1_000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while (day_ms := int(day.timestamp()) * 1_000) <= until_ms:
        is_day, is_weekday = day.day in days, bool({day.isoweekday(), day.isoweekday() % 7} & weekdays)
        if day.month in months and (is_day and is_weekday if both else is_day or is_weekday):
            found += [day_ms + (60 * hour + minute) * 60_000 for hour in sorted(hours) for minute in sorted(minutes)]
        day += timedelta(days=1)
    return [time_ms for time_ms in found if after_ms < time_ms <= until_ms]
