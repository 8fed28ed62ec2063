"""subscriptions, seek, redrive: who consumes, and how far they are."""

from __future__ import annotations

from typing import Any

import click

from trunkline.api.v1 import events_pb2
from trunkline.client import SubscriptionOptions, Trunkline, subscription_config

from ._context import Settings, as_dict, settings
from ._positions import filters_of, position_of
from ._redrive import Wanted, redrive_dead_letters, redrive_set_aside

COLUMNS = (
    "stream", "name", "floor", "lag", "lag_time", "in_flight", "held", "waiting", "redelivered", "set_aside",
    "dead_lettered", "consumers",
)  # fmt: skip
in_stream = click.option("--stream", default="events", show_default=True)


@click.group(short_help="List, make, copy and delete durable subscriptions.")
def subscriptions() -> None:
    """Durable subscriptions: their consumers share the work, and they go on where they left off.

    \b
    trunkline subscriptions list
    trunkline subscriptions create billing --filter 'order.>' --ordering keyed --dead-letter-stream dead
    trunkline subscriptions create sandbox --copy-of billing --start earliest
    """


@subscriptions.command("list")
@click.argument("stream", default="")
@settings
def list_subscriptions(setting: Settings, stream: str) -> None:
    """List those of STREAM, or of all: how far they are, who consumes."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.ListSubscriptions,
            events_pb2.ListSubscriptionsRequest(namespace=setting.namespace, stream=stream),
            events_pb2.ListSubscriptionsResponse,
        )
        return [as_dict(subscription) for subscription in answer.subscriptions]

    setting.show(setting.run(work), COLUMNS, empty="no subscriptions")


@subscriptions.command("create")
@click.argument("name")
@in_stream
@click.option("--filter", "filters", multiple=True, help="A topic, with * for a word and > for the rest; repeatable.")
@click.option("--where", metavar="JSON", help='Of attributes, as CloudEvents says it: {"exact": {"region": "eu"}}.')
@click.option("--start", help='"latest" (a new one), "earliest", "last-per-key", an offset, a time.')
@click.option("--ordering", type=click.Choice(["parallel", "keyed", "sequential"]), default="parallel")
@click.option("--key-attribute", default="", help='With keyed: "partitionkey" unless given.')
@click.option("--ack-deadline", "ack_deadline_s", type=click.FloatRange(min=0.1), help="Seconds.")
@click.option("--max-deliveries", default=0, type=click.IntRange(min=0))
@click.option("--max-in-flight", default=0, type=click.IntRange(min=0))
@click.option("--backoff", "backoff_s", multiple=True, type=click.FloatRange(min=0), help="Seconds; repeatable.")
@click.option("--dead-letter-stream", default="", help="Takes events that were delivered too often.")
@click.option("--copy-of", default="", help="Configured as this one; without --start, it begins where that one stands.")
@settings
def create_subscription(
    setting: Settings, /, name: str, stream: str, where: str | None, start: str | None, copy_of: str, **options: Any
) -> None:
    """Make NAME, or say that it is there."""
    said: SubscriptionOptions = {key: value for key, value in options.items() if value is not None}  # type: ignore[assignment]
    said["attribute_filters"] = filters_of(where)
    if start is not None:
        said["start"] = position_of(start, "--start")
    config = subscription_config(said)
    if copy_of:
        config.ClearField("ordering")
        if start is None:
            config.ClearField("start")
    request = events_pb2.CreateSubscriptionRequest(
        namespace=setting.namespace, stream=stream, name=name, config=config, copy_of=copy_of
    )

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.CreateSubscription, request, events_pb2.CreateSubscriptionResponse
        )
        return {**as_dict(answer.subscription), "created": answer.created}

    row = setting.run(work)
    setting.show_one(row if setting.as_json else {key: row[key] for key in ("name", "stream", "floor", "created")})


@subscriptions.command("update")
@click.argument("name")
@in_stream
@click.option("--filter", "filters", multiple=True, help="Topics that it takes from now on; repeatable.")
@click.option("--all-topics", is_flag=True, help="Instead of --filter.")
@click.option("--where", metavar="JSON", help="Of attributes; [] for none.")
@click.option("--ack-deadline", "ack_deadline_s", type=click.FloatRange(min=0.1), help="Seconds.")
@click.option("--max-deliveries", type=click.IntRange(min=1))
@click.option("--max-in-flight", type=click.IntRange(min=1))
@click.option("--backoff", "backoff_s", multiple=True, type=click.FloatRange(min=0), help="Seconds; repeatable.")
@click.option("--dead-letter-stream", help='Takes events that were delivered too often; "" for none.')
@settings
def update_subscription(
    setting: Settings, /, name: str, stream: str, all_topics: bool, where: str | None, **options: Any
) -> None:
    """Change how NAME delivers. What is not given stays, and so do its place and what is in flight."""
    said: SubscriptionOptions = {key: value for key, value in options.items() if value not in (None, ())}  # type: ignore[assignment]
    if all_topics:
        said["filters"] = ()
    if where is not None:
        said["attribute_filters"] = filters_of(where)
    if not said:
        raise click.UsageError("nothing to change: see --help for what can be")

    async def work(trunkline: Trunkline) -> None:
        await trunkline.update_subscription(name, stream=stream, **said)

    setting.run(work)
    setting.show_one({"updated": name})


@subscriptions.command("delete")
@click.argument("name")
@in_stream
@click.confirmation_option(prompt="Delete the subscription and what it has done?")
@settings
def delete_subscription(setting: Settings, name: str, stream: str) -> None:
    """Delete NAME."""

    async def work(trunkline: Trunkline) -> None:
        await trunkline.call(
            lambda stubs: stubs.events.DeleteSubscription,
            events_pb2.DeleteSubscriptionRequest(namespace=setting.namespace, stream=stream, name=name),
            events_pb2.DeleteSubscriptionResponse,
        )

    setting.run(work)
    setting.show_one({"deleted": name})


@subscriptions.command("set-aside")
@click.argument("name")
@in_stream
@settings
def set_aside(setting: Settings, name: str, stream: str) -> None:
    """List the events that NAME was given too often; `trunkline redrive` gives them back."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.ListSetAside,
            events_pb2.ListSetAsideRequest(namespace=setting.namespace, stream=stream, subscription=name),
            events_pb2.ListSetAsideResponse,
        )
        return [
            {**as_dict(event), "type": event.event.type, "id": event.event.id, "source": event.event.source}
            for event in answer.events
        ]

    columns = ("offset", "attempts", "reason", "time", "type", "source", "id")
    setting.show(setting.run(work), columns, empty="nothing is set aside")


@click.command(short_help="Move a durable subscription to another place.")
@click.argument("name")
@click.argument("to")
@in_stream
@settings
def seek(setting: Settings, name: str, to: str, stream: str) -> None:
    """Have NAME go on at TO: an offset, a time, earliest, latest. What lies before counts as done, nothing behind it does.

    \b
    trunkline seek billing 2026-03-01T08:00:00Z
    """
    place = position_of(to, "TO")

    async def work(trunkline: Trunkline) -> int:
        return await trunkline.seek(name, place, stream=stream)

    setting.show_one({"moved": name, "stood_at": setting.run(work)})


@click.command(short_help="Deliver what failed once more.")
@click.argument("name")
@in_stream
@click.option("--dead-letters", metavar="STREAM", help="From there; else what the subscription has set aside.")
@click.option("--filter", "filters", multiple=True, help="Only events of such a topic; repeatable.")
@click.option("--reason", default="", help="Only what failed for a reason with this text in it.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most so many events a second.")
@click.option("--limit", type=click.IntRange(min=1), help="No more than so many.")
@settings
def redrive(
    setting: Settings,
    name: str,
    stream: str,
    dead_letters: str | None,
    filters: tuple[str, ...],
    reason: str,
    rate: float | None,
    limit: int | None,
) -> None:
    """Give NAME its set-aside events, or its dead letters, once more, attempts counted anew; no other subscription is
    concerned. Dead letters that were redriven are not redriven again.

    \b
    trunkline redrive billing --reason Timeout --rate 50
    trunkline redrive billing --dead-letters dead --filter 'order.*'
    """
    wanted = Wanted(filters=filters, reason=reason, rate=rate, limit=limit)

    async def work(trunkline: Trunkline) -> dict[str, int]:
        if dead_letters is None:
            return await redrive_set_aside(trunkline, setting.namespace, stream, name, wanted)
        return await redrive_dead_letters(trunkline, setting.namespace, stream, name, dead_letters, wanted)

    setting.show_one(setting.run(work))
