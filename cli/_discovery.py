"""services, resolve, watch: who is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from trunkline.api.v1 import discovery_pb2
from trunkline.client import Fresh, Reset, Stale, Trunkline, Updated
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Locality, RegisteredInstance, Status
from trunkline.core.selector import Selector

from ._context import Settings, as_dict, settings

COLUMNS = ("id", "status", "version", "endpoints", "zone", "weight", "labels", "reason")
PAGE = 1_000


def selector_options(command: Any) -> Any:
    """--version, --label, --zone, --status."""
    for option in (
        click.option("--version", "version_range", default="", metavar="RANGE", help='Such as "^1.2" or ">=1.0 <3".'),
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE"),
        click.option("--zone", default="", help="Only instances of this zone."),
        click.option(
            "--status",
            "statuses",
            multiple=True,
            type=click.Choice([status.name for status in Status], case_sensitive=False),
            help="Default: what may be called (SERVING, DEGRADED, STALE). Repeat for several.",
        ),
    ):
        command = option(command)
    return command


def selector_of(version_range: str, labels: tuple[str, ...], zone: str, statuses: tuple[str, ...]) -> Selector:
    """The selector that the options say. InvalidArgument when a label is no KEY=VALUE."""
    pairs = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise InvalidArgument.of("--label", "KEY=VALUE", label)
        pairs[key] = value
    chosen = frozenset(Status[status.upper()] for status in statuses)
    return Selector(version=version_range, labels=pairs, locality=Locality(zone=zone), statuses=chosen)


def row_of(registered: RegisteredInstance) -> dict[str, Any]:
    """An instance as a line of a table."""
    instance = registered.instance
    return {
        "service": instance.service,
        "id": instance.id,
        "status": registered.status.name,
        "version": instance.version,
        "endpoints": [endpoint.address for endpoint in instance.endpoints],
        "zone": instance.locality.zone,
        "weight": instance.weight,
        "labels": dict(instance.labels),
        "reason": registered.status_reason,
        "revision": registered.modified_revision,
    }


@click.command(short_help="List services.")
@click.option("--all-namespaces", "-A", is_flag=True)
@settings
def services(setting: Settings, all_namespaces: bool) -> None:
    """List the services of a namespace, with how many instances are in which status.

    \b
    trunkline services
    trunkline --json services -A
    """

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            request = discovery_pb2.ListServicesRequest(
                namespace="" if all_namespaces else setting.namespace, page_size=PAGE, page_token=token
            )
            answer = await trunkline.call(
                lambda stubs: stubs.discovery.ListServices, request, discovery_pb2.ListServicesResponse
            )
            for summary in answer.services:
                counts = {Status(count.status).name: count.count for count in summary.counts}
                found.append({**as_dict(summary), "counts": counts})
            token = answer.next_page_token
            if not token:
                return found

    setting.show(setting.run(work), ("namespace", "service", "counts", "versions"), empty="no services")


@click.command(short_help="List a service's instances.")
@click.argument("service")
@selector_options
@settings
def resolve(setting: Settings, /, service: str, **selector: Any) -> None:
    """List the instances of SERVICE that match, now.

    \b
    trunkline resolve cart
    trunkline resolve cart --version '^2' --zone a --status SERVING
    """
    chosen = selector_of(**selector)

    async def work(trunkline: Trunkline) -> tuple[RegisteredInstance, ...]:
        return await trunkline.resolve(service, selector=chosen)

    setting.show(map(row_of, setting.run(work)), COLUMNS, empty=f"no instance of {service} matches")


@click.command(short_help="Follow a service's instances.")
@click.argument("service", default="")
@click.option("--count", type=click.IntRange(min=1), help="End after so many changes.")
@selector_options
@settings
def watch(setting: Settings, /, service: str, count: int | None, **selector: Any) -> None:
    """Print the instances of SERVICE (of every service, if none is named), then every change, until Ctrl-C.

    \b
    trunkline watch cart
    trunkline --json watch | jq .
    """
    chosen = selector_of(**selector)

    async def work(trunkline: Trunkline) -> None:
        view = await trunkline.watch(service, selector=chosen)
        printed = 0
        async for change in view.changes():
            for line in _lines(change):
                setting.show([line], ("revision", "change", "service", *COLUMNS), empty="")
            printed += 1
            if count is not None and printed >= count:
                return

    setting.run(work)


def _lines(change: Reset | Updated | Stale | Fresh) -> Iterator[dict[str, Any]]:
    match change:
        case Reset(revision, instances):
            yield from _named("present", revision, instances)
        case Updated(revision, added, changed, removed):
            yield from _named("added", revision, added)
            yield from _named("changed", revision, changed)
            yield from _named("removed", revision, removed)
        case Stale(revision, reason):
            yield {"revision": revision, "change": "stale", "reason": reason}
        case Fresh(revision):
            yield {"revision": revision, "change": "fresh"}


def _named(what: str, revision: int, instances: tuple[RegisteredInstance, ...]) -> Iterator[dict[str, Any]]:
    for registered in instances:
        yield {**row_of(registered), "revision": revision, "change": what}
