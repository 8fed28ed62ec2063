"""webhooks: the server delivers a subscription's events to an HTTP endpoint."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import click
from google.protobuf.field_mask_pb2 import FieldMask

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
SECRET_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(short_help="Deliver events to HTTP endpoints.")
def webhooks() -> None:
    """Durable subscriptions whose events the server posts to an endpoint, as CloudEvents over HTTP.

    \b
    trunkline webhooks create billing https://billing.example/hooks --filter 'order.>' --secret-file secret
    trunkline webhooks list
    trunkline webhooks update billing --url https://billing.example/v2/hooks
    trunkline webhooks delete billing
    """


@webhooks.command("create")
@click.argument("name")
@click.argument("url")
@click.option("--filter", "filters", multiple=True, help="Topics that it takes; all without one.")
@click.option("--stream", default="events", show_default=True)
@click.option("--from-start", is_flag=True, help="Begin with the first event that is kept, not with the next.")
@click.option(
    "--secret-file", type=SECRET_FILE, help="Signs requests: whsec_ and base64, or 16 to 64 bytes as they are."
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


@webhooks.command("update")
@click.argument("name")
@click.option("--stream", default="events", show_default=True)
@click.option("--url", help="Where requests go from now on.")
@click.option("--secret-file", type=SECRET_FILE, help="Signs requests from now on.")
@click.option("--unsigned", is_flag=True, help="Sign them no more.")
@click.option("--structured/--binary", default=None, help="How the event stands in a request.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 60))
@click.option("--concurrency", type=click.IntRange(1, 100), help="Requests at a time.")
@settings
def update_webhook(
    setting: Settings, /, name: str, stream: str, secret_file: Path | None, unsigned: bool, **options: Any
) -> None:
    """Change how NAME's endpoint is called. What is not given stays; an endpoint that was paused is tried at once."""
    changed = _changed(**options)
    if secret_file is not None:
        changed.secret = _secret(secret_file)
    paths = [f"webhook.{field.name}" for field, _ in changed.ListFields()] + ["webhook.secret"] * unsigned
    if not paths:
        raise click.UsageError("nothing to change: see --help for what can be")

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        if not changed.url:
            changed.url = await _url_of(trunkline, setting.namespace, stream, name)
        request = events_pb2.UpdateSubscriptionRequest(
            namespace=setting.namespace,
            stream=stream,
            name=name,
            config=events_pb2.SubscriptionConfig(webhook=changed),
            update_mask=FieldMask(paths=paths),
        )
        answer = await trunkline.call(
            lambda stubs: stubs.events.UpdateSubscription, request, events_pb2.UpdateSubscriptionResponse
        )
        return _row(answer.subscription)

    setting.show_one(setting.run(work))


def _changed(
    url: str | None, structured: bool | None, timeout_s: float | None, concurrency: int | None
) -> events_pb2.Webhook:
    changed = events_pb2.Webhook(url=url or "", concurrency=concurrency or 0)
    if structured is not None:
        changed.mode = events_pb2.Webhook.MODE_STRUCTURED if structured else events_pb2.Webhook.MODE_BINARY
    if timeout_s is not None:
        changed.timeout.FromMilliseconds(round(timeout_s * 1_000))
    return changed


async def _url_of(trunkline: Trunkline, namespace: str, stream: str, name: str) -> str:
    """Which a request has to name though it stays."""
    for one in await _listed(trunkline, namespace, stream):
        if one.name == name:
            return one.config.webhook.url
    raise InvalidArgument.of("NAME", f"a subscription of stream {stream} with a webhook", name)


async def _listed(trunkline: Trunkline, namespace: str, stream: str) -> list[events_pb2.SubscriptionState]:
    answer = await trunkline.call(
        lambda stubs: stubs.events.ListSubscriptions,
        events_pb2.ListSubscriptionsRequest(namespace=namespace, stream=stream),
        events_pb2.ListSubscriptionsResponse,
    )
    return [one for one in answer.subscriptions if one.config.HasField("webhook")]


@webhooks.command("list")
@click.option("--stream", default="", help="Of all streams without it.")
@settings
def list_webhooks(setting: Settings, stream: str) -> None:
    """List subscriptions that have a webhook, and how their endpoints do."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        return [_row(one) for one in await _listed(trunkline, setting.namespace, stream)]

    setting.show(setting.run(work), COLUMNS, empty="no webhooks")


webhooks.add_command(delete_subscription)


def _row(subscription: events_pb2.SubscriptionState) -> dict[str, Any]:
    row = as_dict(subscription)
    config, state = row.pop("config"), row.pop("webhook", {})
    webhook = config.pop("webhook", {})
    webhook.pop("secret", None)  # an answer holds none
    return {**row, **config, **webhook, **state}
