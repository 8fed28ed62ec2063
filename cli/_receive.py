"""subscribe, tail, replay: events as they come, as they came last, and as they came then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import click

from trunkline.api.v1 import events_pb2
from trunkline.client import Delivery, Subscription, Trunkline
from trunkline.core.errors import InvalidArgument, StreamNotFound

from ._context import Settings, settings
from ._positions import LAST_PER_KEY, filters_of, position_of

LOOK_S = 0.2
"""Between two looks at whether the end is reached."""


@click.command(short_help="Receive events.")
@click.argument("filters", nargs=-1)
@click.option("--stream", default="events", show_default=True, help='"changes" is what happened to the registry.')
@click.option("--name", help="A durable subscription: consumers share its work, and it goes on where it left off.")
@click.option("--from-start", is_flag=True, help="Begin with the first event that is kept, not with the next.")
@click.option("--where", metavar="JSON", help='Of attributes, as CloudEvents says it: {"exact": {"region": "eu"}}.')
@click.option("--last-per-key", is_flag=True, help="Begin with the last event of each key, then go on with what comes.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@settings
def subscribe(
    setting: Settings,
    filters: tuple[str, ...],
    stream: str,
    name: str | None,
    from_start: bool,
    where: str | None,
    last_per_key: bool,
    count: int | None,
) -> None:
    """Print events whose topic matches one of FILTERS (all, if none is given), acknowledging each, until Ctrl-C.

    \b
    trunkline subscribe 'order.>'
    trunkline subscribe 'order.*.paid' --name billing --from-start
    trunkline subscribe --stream changes
    """
    if from_start and last_per_key:
        raise InvalidArgument.of("--last-per-key", "not with --from-start", "both")

    async def work(trunkline: Trunkline) -> None:
        received = 0
        start: Any = "earliest" if from_start else "last_per_key" if last_per_key else "latest"
        async with trunkline.subscribe(
            name,
            filters=filters,
            attribute_filters=filters_of(where),
            stream=stream,
            start=start,
            acknowledge=name is not None,
            on_gap=_tell_gap,
        ) as subscription:
            async for delivery in subscription:
                _show(setting, delivery)
                if name is not None:
                    delivery.ack()
                received += 1
                if count is not None and received >= count:
                    return

    setting.run(work)


def _tell_gap(gap: object) -> None:
    click.echo(f"gap: {gap}", err=True)


def _show(setting: Settings, delivery: Delivery) -> None:
    row = _delivered(delivery)
    if setting.as_json:
        click.echo(json.dumps(row, default=str))
    else:
        click.echo(f"{row['time']}  {row['offset']:>8}  {row['type']}  {row['source']}  {row['data']}")


def _delivered(delivery: Delivery) -> dict[str, Any]:
    event = delivery.event
    data = event.data.decode(errors="backslashreplace") if isinstance(event.data, bytes) else event.data
    return {
        "offset": delivery.offset,
        "attempt": delivery.attempt,
        "time": datetime.fromtimestamp(delivery.time_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        "type": event.type,
        "source": event.source,
        "id": event.id,
        "subject": event.subject,
        "key": event.key,
        "attributes": dict(event.attributes),
        "data": data,
    }


@click.command(short_help="Show a stream's last events.")
@click.argument("filters", nargs=-1)
@click.option("--stream", default="events", show_default=True)
@click.option("--last", default=10, show_default=True, type=click.IntRange(min=0), help="So many positions back.")
@click.option(
    "--last-per-key", is_flag=True, help="Of all that is kept, the last event of each key, instead of --last."
)
@click.option("--follow/--no-follow", default=True, help="Go on with what comes, or end with what is there.")
@click.option("--where", metavar="JSON", help='Of attributes, as CloudEvents says it: {"exact": {"region": "eu"}}.')
@settings
def tail(
    setting: Settings,
    filters: tuple[str, ...],
    stream: str,
    last: int,
    last_per_key: bool,
    follow: bool,
    where: str | None,
) -> None:
    """Print the last events of a stream whose topic matches one of FILTERS (all, if none is given), and those that come."""

    async def work(trunkline: Trunkline) -> None:
        state = await state_of(trunkline, setting.namespace, stream)
        async with trunkline.subscribe(
            filters=filters,
            attribute_filters=filters_of(where),
            stream=stream,
            start="last_per_key" if last_per_key else max(state.first_offset, state.next_offset - last),
            acknowledge=False,
            on_gap=_tell_gap,
        ) as subscription:
            until = None if follow else state.next_offset
            async for delivery in below(subscription, until):
                _show(setting, delivery)

    setting.run(work)


async def state_of(trunkline: Trunkline, namespace: str, stream: str) -> events_pb2.StreamState:
    """What a stream holds. StreamNotFound."""
    answer = await trunkline.call(
        lambda stubs: stubs.events.ListStreams,
        events_pb2.ListStreamsRequest(namespace=namespace),
        events_pb2.ListStreamsResponse,
    )
    for state in answer.streams:
        if state.config.name == stream:
            return state
    raise StreamNotFound(f"no stream {stream} in {namespace}")


async def below(subscription: Subscription, end: int | None) -> AsyncIterator[Delivery]:
    """Deliveries below `end`, or all. That there are no more follows from the last one, or the control plane says so every
    few seconds."""
    while end is None or subscription.reached < end or subscription.in_hand:
        try:
            async with asyncio.timeout(LOOK_S):
                delivery = await subscription.next()
        except TimeoutError:
            continue
        if delivery is None or (end is not None and delivery.offset >= end):
            return
        yield delivery
        if delivery.offset + 1 == end:
            return


@click.command(short_help="Go through a part of a stream again.")
@click.argument("filters", nargs=-1)
@click.option("--stream", default="events", show_default=True)
@click.option("--from", "from_", default="earliest", show_default=True, help='An offset, a time, "earliest".')
@click.option("--to", default="latest", show_default=True, help="Up to this offset or time.")
@click.option("--into", help="Publish to this stream instead of printing: ids stay, so a repeat is recognised.")
@click.option("--speed", default="max", show_default=True, help='"max", or times the original: 1 is as it was.')
@click.option("--where", metavar="JSON", help='Of attributes, as CloudEvents says it: {"exact": {"region": "eu"}}.')
@settings
def replay(
    setting: Settings,
    filters: tuple[str, ...],
    stream: str,
    from_: str,
    to: str,
    into: str | None,
    speed: str,
    where: str | None,
) -> None:
    """Print the events of a part of STREAM, or publish them to another stream, at full speed or in their own time.

    \b
    trunkline replay 'order.>' --from 2026-03-01T08:00:00Z --to 2026-03-01T09:00:00Z --speed 1
    trunkline replay --into sandbox --from 1200
    """
    if into == stream:
        raise InvalidArgument.of("--into", "another stream than the one that is replayed", into)
    pace = Pace(speed)
    until = position_of(to, "--to")
    if LAST_PER_KEY in (from_, to):
        raise InvalidArgument.of("--from, --to", "places in the stream; tail has --last-per-key", LAST_PER_KEY)

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        state = await state_of(trunkline, setting.namespace, stream)
        end = min(until, state.next_offset) if isinstance(until, int) else state.next_offset
        count = 0
        async with trunkline.subscribe(
            filters=filters,
            attribute_filters=filters_of(where),
            stream=stream,
            start=position_of(from_, "--from"),
            acknowledge=False,
        ) as subscription:
            async for delivery in below(subscription, end):
                if isinstance(until, datetime) and delivery.time_ns >= until.timestamp() * 1e9:
                    break
                await asyncio.sleep(pace.wait_s(delivery.time_ns, asyncio.get_running_loop().time()))
                count += 1
                if into is None:
                    _show(setting, delivery)
                else:
                    await trunkline.publish(delivery.event, stream=into)
        return {"replayed": count, "from": stream, "into": into}

    row = setting.run(work)
    if into is not None:
        setting.show_one(row)


class Pace:
    """When what happened then is to happen now."""

    def __init__(self, speed: str) -> None:
        """InvalidArgument unless it is "max" or a positive number."""
        try:
            self._speed = None if speed == "max" else float(speed)
        except ValueError:
            self._speed = 0.0
        if self._speed is not None and not 0 < self._speed < float("inf"):
            raise InvalidArgument.of("--speed", '"max" or a number above 0', speed)
        self._begun: tuple[int, float] | None = None

    def wait_s(self, time_ns: int, now_s: float) -> float:
        """How long to wait with an event of this time, at a time of the loop."""
        if self._speed is None:
            return 0.0
        if self._begun is None:
            self._begun = time_ns, now_s
        first_ns, begun_s = self._begun
        return max(0.0, begun_s + (time_ns - first_ns) / 1e9 / self._speed - now_s)
