"""schedules: events that are published later."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from trunkline.client import Schedule, Trunkline
from trunkline.core.errors import InvalidArgument

from ._context import Settings, settings
from ._events import event_of

COLUMNS = ("name", "stream", "type", "when", "next_time", "last_time", "fired_count", "last_error")


@click.group(short_help="List, make and delete schedules.")
def schedules() -> None:
    """Events that the control plane publishes later: once, at an interval, or by the calendar.

    \b
    trunkline schedules create remind-7 order.reminder '{"id": 7}' --at 2027-01-31T09:00:00+01:00
    trunkline schedules create tick clock.ticked --every 60
    trunkline schedules create report report.wanted --cron '0 6 * * MON-FRI' --time-zone Europe/Berlin
    trunkline schedules list
    """


@schedules.command("list")
@settings
def list_schedules(setting: Settings) -> None:
    """List the namespace's schedules."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        return [_row(schedule) for schedule in await trunkline.schedules()]

    setting.show(setting.run(work), COLUMNS, empty="no schedules")


@schedules.command("create")
@click.argument("name")
@click.argument("event_type", metavar="TYPE")
@click.argument("data", default="")
@click.option("--at", metavar="TIME", help="Once: ISO 8601 with its zone, such as 2027-01-31T09:00:00Z.")
@click.option("--every", type=click.FloatRange(min=0, min_open=True), help="Seconds from one to the next.")
@click.option("--cron", default="", help="Minute, hour, day of the month, month, day of the week.")
@click.option("--time-zone", default="", help="Of --cron, such as Europe/Berlin; UTC if it is not given.")
@click.option("--start", metavar="TIME", help="Of --every: counts from here, not from now.")
@click.option("--until", metavar="TIME", help="The last time.")
@click.option("--max-count", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--skip-missed", is_flag=True, help="Do not make good for what was missed while the server was down.")
@click.option("--stream", default="events", show_default=True)
@click.option("--source", default="/trunkline/cli", show_default=True)
@click.option("--subject", default="")
@click.option("--key", default="", help="Events of one key belong together.")
@click.option("--topic", default="", help="Instead of the type.")
@settings
def create_schedule(
    setting: Settings, /, name: str, event_type: str, data: str, every: float | None, cron: str, time_zone: str,
    max_count: int | None, skip_missed: bool, stream: str, at: str | None, start: str | None, until: str | None,
    **fields: str,
) -> None:  # fmt: skip
    """Make the schedule NAME, which publishes events of TYPE with DATA, or say that it is there."""
    event = event_of(event_type, data, "", fields)
    begin, end, once = _time("--start", start), _time("--until", until), _time("--at", at)

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        made = await trunkline.schedule(
            name, event, at=once, every=every, cron=cron, time_zone=time_zone, start=begin, until=end,
            max_count=max_count or 0, skip_missed=skip_missed, stream=stream,
        )  # fmt: skip
        return _row(made)

    setting.show_one(setting.run(work))


@schedules.command("delete")
@click.argument("name")
@settings
def delete_schedule(setting: Settings, name: str) -> None:
    """Delete the schedule NAME."""

    async def work(trunkline: Trunkline) -> None:
        await trunkline.unschedule(name)

    setting.run(work)
    setting.show_one({"deleted": name})


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument.of(option, "a time such as 2027-01-31T09:00:00+01:00", text) from error


def _row(schedule: Schedule) -> dict[str, Any]:
    """Times as people read them."""
    return {
        "name": schedule.name,
        "stream": schedule.stream,
        "type": schedule.event.type,
        "source": schedule.event.source,
        "when": _when(schedule),
        "until": _shown(schedule.until),
        "max_count": schedule.max_count or None,
        "skip_missed": schedule.skip_missed,
        "next_time": _shown(schedule.next_time),
        "last_time": _shown(schedule.last_time),
        "last_offset": schedule.last_offset,
        "fired_count": schedule.fired_count,
        "last_error": schedule.last_error,
    }


def _when(schedule: Schedule) -> str:
    if schedule.at is not None:
        return f"at {_shown(schedule.at)}"
    if schedule.every is not None:
        return f"every {schedule.every.total_seconds():g} s"
    return f"cron {schedule.cron} {schedule.time_zone}"


def _shown(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds")
