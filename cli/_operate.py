"""drain, override, end-pause: an operator's hand on the registry."""

from __future__ import annotations

import sys
from typing import Any

import click

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2, registry_pb2
from trunkline.client import Trunkline
from trunkline.core.model import Status

from ._context import Settings, as_dict, settings
from ._discovery import row_of

CLEAR = "CLEAR"
FORCED = [status.name for status in Status if status is not Status.STALE]


@click.command(short_help="Take an instance out of traffic.")
@click.argument("service")
@click.argument("instance")
@click.option(
    "--limit", "limit_s", type=click.FloatRange(0, 600), default=30.0, show_default=True, help="Seconds to wait."
)
@click.option("--reason", default="")
@settings
def drain(setting: Settings, service: str, instance: str, limit_s: float, reason: str) -> None:
    """Declare INSTANCE of SERVICE draining, and wait until every watcher that could route to it has said that it knows.

    Exit code 1 when some had not at the limit; they are named.

    \b
    trunkline drain cart cart-7 && ssh cart-host systemctl restart cart
    """
    request = registry_pb2.DrainRequest(
        registration=registry_pb2.RegistrationRef(namespace=setting.namespace, service=service, instance_id=instance),
        limit=convert.ms_to(int(limit_s * 1_000)),
        reason=reason,
    )

    async def work(trunkline: Trunkline) -> registry_pb2.DrainResponse:
        return await trunkline.call(
            lambda stubs: stubs.registry.Drain,
            request,
            registry_pb2.DrainResponse,
            timeout_s=limit_s + setting.timeout_s,
        )

    answer = setting.run(work)
    setting.show_one({"instance": instance, "drained_revision": answer.drained_revision, "complete": answer.complete})
    if answer.late:
        setting.show(map(as_dict, answer.late), ("client", "applied_revision", "late_by"), empty="")
    sys.exit(not answer.complete)


@click.command(short_help="Force an instance's status.")
@click.argument("service")
@click.argument("instance")
@click.argument("status", type=click.Choice([*FORCED, CLEAR], case_sensitive=False))
@click.option("--reason", default="", help="Shown wherever the instance is.")
@click.option(
    "--if-revision", type=click.IntRange(min=1), help="Only if the instance was last changed at this revision."
)
@settings
def override(setting: Settings, service: str, instance: str, status: str, reason: str, if_revision: int | None) -> None:
    """Set STATUS on INSTANCE of SERVICE, above its lease, its own word and its probes; CLEAR takes that back.

    \b
    trunkline override cart cart-7 NOT_SERVING --reason "bad disk"
    trunkline override cart cart-7 CLEAR
    """
    request = registry_pb2.SetOverrideRequest(
        namespace=setting.namespace,
        service=service,
        instance_id=instance,
        status=convert.status_to(None if status.upper() == CLEAR else Status[status.upper()]),
        reason=reason,
        if_revision=if_revision or 0,
    )

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(
            lambda stubs: stubs.registry.SetOverride, request, registry_pb2.SetOverrideResponse
        )
        return row_of(convert.registered_from(answer.instance))

    setting.show_one(setting.run(work))


@click.command("end-pause", short_help="Let lapsed instances go.")
@click.option("--reason", default="")
@settings
def end_pause(setting: Settings, reason: str) -> None:
    """Let the namespace's lapsed instances go although so many lapsed at once that expiry was paused.

    Look first: `trunkline resolve SERVICE --status STALE` shows who would go.
    """
    request = admin_pb2.EndExpiryPauseRequest(namespace=setting.namespace, reason=reason)

    async def work(trunkline: Trunkline) -> int:
        answer = await trunkline.call(
            lambda stubs: stubs.admin.EndExpiryPause, request, admin_pb2.EndExpiryPauseResponse
        )
        return answer.expired

    setting.show_one({"namespace": setting.namespace, "expired": setting.run(work)})
