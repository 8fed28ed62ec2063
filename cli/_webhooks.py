"""webhooks: the server delivers a subscription's events to an HTTP endpoint."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import click

from trunkline.api.v1 import events_pb2
from trunkline.client import Trunkline
from trunkline.core.errors import InvalidArgument

from ._context import Settings, as_dict, settings
from ._subscriptions import delete_subscription

SECRET_PREFIX = "whsec_"
"""Of a secret in the form of Standard Webhooks: base64 follows."""
COLUMNS = (
    "stream",
    "name",
    "url",
    "last_status",
    "consecutive_failures",
    "paused_until",
    "lag",
    "set_aside",
    "last_error",
)
ORDERINGS = ("parallel", "keyed", "sequential")


@click.group(short_help="Deliver events to HTTP endpoints.")
def webhooks() -> None:
    """Durable subscriptions whose events the server posts to an endpoint, as CloudEvents over HTTP.

    \b
    trunkline webhooks create billing https://billing.example/hooks --filter 'order.>' --secret-file secret
    trunkline webhooks list
    trunkline webhooks delete billing
    """


@webhooks.command("create")
@click.argument("name")
@click.argument("url")
@click.option("--filter", "filters", multiple=True, help="Topics that it takes; all without one.")
@click.option("--stream", default="events", show_default=True)
@click.option("--from-start", is_flag=True, help="Begin with the first event that is kept, not with the next.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Signs requests: whsec_ and base64, or 16 to 64 bytes as they are.",
)
@click.option("--structured", is_flag=True, help="The whole event as JSON in the body, not attributes in headers.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 60), default=10.0, show_default=True)
@click.option("--concurrency", type=click.IntRange(1, 100), default=10, show_default=True, help="Requests at a time.")
@click.option("--ordering", type=click.Choice(ORDERINGS), default="parallel", show_default=True)
@click.option("--max-deliveries", type=click.IntRange(1, 1_000), default=20, show_default=True)
@settings
def create_webhook(setting: Settings, /, name: str, stream: str, **options: Any) -> None:
    """Make the subscription NAME, whose events go to URL, or say that it is there."""
    request = events_pb2.CreateSubscriptionRequest(
        namespace=setting.namespace, stream=stream, name=name, config=_config(**options)
    )

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.CreateSubscription, request, events_pb2.CreateSubscriptionResponse
        )
        return {**_row(answer.subscription), "created": answer.created}

    setting.show_one(setting.run(work))


def _config(
    url: str,
    filters: tuple[str, ...],
    from_start: bool,
    secret_file: Path | None,
    structured: bool,
    timeout_s: float,
    concurrency: int,
    ordering: str,
    max_deliveries: int,
) -> events_pb2.SubscriptionConfig:
    config = events_pb2.SubscriptionConfig(
        filters=filters,
        max_deliveries=max_deliveries,
        ordering=events_pb2.SubscriptionConfig.Ordering.Value(f"ORDERING_{ordering.upper()}"),
        webhook=events_pb2.Webhook(
            url=url,
            mode=events_pb2.Webhook.MODE_STRUCTURED if structured else events_pb2.Webhook.MODE_BINARY,
            concurrency=concurrency,
            secret=b"" if secret_file is None else _secret(secret_file),
        ),
    )
    config.webhook.timeout.FromMilliseconds(round(timeout_s * 1_000))
    if from_start:
        config.start.earliest = True
    return config


def _secret(file: Path) -> bytes:
    kept = file.read_bytes().strip()
    if not kept.startswith(SECRET_PREFIX.encode()):
        return kept
    try:
        return base64.b64decode(kept.removeprefix(SECRET_PREFIX.encode()), validate=True)
    except binascii.Error as error:
        raise InvalidArgument.of("--secret-file", f"must hold base64 behind {SECRET_PREFIX}", str(file)) from error


@webhooks.command("list")
@click.option("--stream", default="", help="Of all streams without it.")
@settings
def list_webhooks(setting: Settings, stream: str) -> None:
    """List subscriptions that have a webhook, and how their endpoints do."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.ListSubscriptions,
            events_pb2.ListSubscriptionsRequest(namespace=setting.namespace, stream=stream),
            events_pb2.ListSubscriptionsResponse,
        )
        return [_row(one) for one in answer.subscriptions if one.config.HasField("webhook")]

    setting.show(setting.run(work), COLUMNS, empty="no webhooks")


webhooks.add_command(delete_subscription)


def _row(subscription: events_pb2.SubscriptionState) -> dict[str, Any]:
    row = as_dict(subscription)
    config, state = row.pop("config"), row.pop("webhook", {})
    webhook = config.pop("webhook", {})
    webhook.pop("secret", None)  # an answer holds none
    return {**row, **config, **webhook, **state}
