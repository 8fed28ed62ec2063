"""explain: why a subscription is not further, and why a call goes where it goes."""

from __future__ import annotations

from typing import Any

import click

from trunkline.api import convert
from trunkline.api.v1 import events_pb2, policy_pb2, traffic_pb2
from trunkline.client import Trunkline
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Locality, Status

from ._calls import statistics_of
from ._context import Settings, as_dict, settings
from ._discovery import selector_of
from ._subscriptions import COLUMNS, in_stream

FINDINGS = ("cause", "message", "offset", "since")
CANDIDATES = (
    "id",
    "address",
    "version",
    "status",
    "zone",
    "weight",
    "share",
    "calls",
    "failed",
    "p99",
    "callers",
    "left_out_by",
)


@click.group(short_help="Why something is as it is.")
def explain() -> None:
    """Ask the control plane for its reasons."""


@explain.command("subscription")
@click.argument("name")
@in_stream
@settings
def explain_subscription(setting: Settings, name: str, stream: str) -> None:
    """Why NAME delivers nothing, or what it is doing."""

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(
            lambda stubs: stubs.events.ExplainSubscription,
            events_pb2.ExplainSubscriptionRequest(namespace=setting.namespace, stream=stream, subscription=name),
            events_pb2.ExplainSubscriptionResponse,
        )
        return as_dict(answer)

    row = setting.run(work)
    if setting.as_json:
        setting.show_one(row)
        return
    state = row["subscription"]
    setting.show_one({key: state.get(key) for key in COLUMNS})
    findings = [
        {**one, "cause": one["cause"].removeprefix("CAUSE_").replace("_", " ").lower()} for one in row["findings"]
    ]
    setting.show(findings, FINDINGS, empty="")


@explain.command("pick")
@click.argument("service")
@click.option("--key", default="", help="What is hashed, and what a split sticks to.")
@click.option("--metadata", "metadata", multiple=True, metavar="KEY=VALUE", help="The call's; repeatable.")
@click.option("--zone", default="", help="Where the caller is.")
@click.option("--region", default="", help="Where the caller is.")
@click.option("--seed", default=0, type=click.IntRange(0, 2**64 - 1), help="Of all that is left to chance.")
@click.option("--protocol", default="", help='"grpc" unless given.')
@click.option("--version", "version_range", default="", metavar="RANGE", help="Only instances of these versions.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only instances with this label.")
@click.option("--ejected", multiple=True, metavar="ID", help="An instance taken for ejected; repeatable.")
@settings
def explain_pick(
    setting: Settings, /, service: str, key: str, metadata: tuple[str, ...], zone: str, region: str, seed: int,
    protocol: str, version_range: str, labels: tuple[str, ...], ejected: tuple[str, ...],
) -> None:  # fmt: skip
    """Which instance of SERVICE a call would go to, and what left out each of the others.

    \b
    trunkline explain pick cart
    trunkline explain pick cart --key user-7 --metadata x-canary=true --zone a
    """
    request = traffic_pb2.ExplainPickRequest(
        namespace=setting.namespace,
        service=service,
        selector=convert.selector_to(selector_of(version_range, labels, "", ())),
        key=key,
        metadata=dict(_pair(said) for said in metadata),
        locality=convert.locality_to(Locality(region=region, zone=zone)),
        seed=seed,
        protocol=protocol,
        ejected=ejected,
    )

    async def work(trunkline: Trunkline) -> traffic_pb2.ExplainPickResponse:
        return await trunkline.call(lambda stubs: stubs.traffic.ExplainPick, request, traffic_pb2.ExplainPickResponse)

    answer = setting.run(work)
    if setting.as_json:
        setting.show_one(as_dict(answer))
        return
    setting.show_one(summary_of(answer))
    setting.show(map(row_of, answer.candidates), CANDIDATES, empty="no instances")


def summary_of(answer: traffic_pb2.ExplainPickResponse) -> dict[str, Any]:
    """What stands above the table."""
    algorithm = policy_pb2.LoadBalancingPolicy.Algorithm.Name(answer.load_balancing.algorithm)
    summary = {
        "winner": answer.winner or f"none: {answer.reason}",
        "load_balancing": algorithm.removeprefix("ALGORITHM_").lower(),
        "destination": answer.destination,
        "panic": "yes: ejections are taken no notice of" if answer.panic else "",
        "policy_revision": answer.policy_revision,
        "registry_revision": answer.registry_revision,
    }
    return {name: value for name, value in summary.items() if value != ""}


def row_of(candidate: traffic_pb2.ExplainedCandidate) -> dict[str, Any]:
    """A candidate as a line of the table."""
    return {
        "id": candidate.id,
        "address": candidate.address,
        "version": candidate.version,
        "status": Status(candidate.status).name,
        "zone": candidate.locality.zone,
        "weight": f"{candidate.weight:g}",
        "share": f"{candidate.share_percent:.1f} %",
        **statistics_of(candidate.calls),
        "callers": [
            f"{count} {what}"
            for count, what in ((candidate.ejected_by, "ejected it"), (candidate.breaker_open_at, "refuse calls"))
            if count
        ],
        "left_out_by": [f"{one.rule} ({one.detail})" for one in candidate.exclusions],
    }


def _pair(said: str) -> tuple[str, str]:
    key, equals, value = said.partition("=")
    if not equals or not key:
        raise InvalidArgument.of("--metadata", "KEY=VALUE", said)
    return key, value
