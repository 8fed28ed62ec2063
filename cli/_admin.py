"""token, status, history: for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2
from trunkline.client import Trunkline
from trunkline.core.errors import InvalidArgument

from ._context import Settings, as_dict, settings
from ._discovery import COLUMNS, row_of

ROLES = ("reader", "service", "admin")


@click.group(short_help="Make, list and revoke tokens.")
def token() -> None:
    """Tokens: what a client on another machine shows. They are stored hashed; a secret is shown once.

    \b
    trunkline token create --role service --for-namespace shop
    trunkline token list
    trunkline token revoke ID
    """


@token.command("create")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--for-namespace", "namespaces", multiple=True, help="Repeat for several; none means every namespace.")
@click.option("--topic", "topic_filters", multiple=True, help="Topics it may publish and read; none means all.")
@click.option("--description", default="")
@click.option("--valid-for", type=click.IntRange(min=1), help="Seconds; without it the token does not expire.")
@settings
def create_token(
    setting: Settings,
    role: str,
    namespaces: tuple[str, ...],
    topic_filters: tuple[str, ...],
    description: str,
    valid_for: int | None,
) -> None:
    """Make a token and show its secret, once."""
    request = admin_pb2.CreateTokenRequest(
        role=admin_pb2.Role.Value(f"ROLE_{role.upper()}"),
        namespaces=namespaces,
        topic_filters=topic_filters,
        description=description,
    )
    if valid_for:
        request.valid_for.FromSeconds(valid_for)

    async def work(trunkline: Trunkline) -> dict[str, Any]:
        answer = await trunkline.call(lambda stubs: stubs.admin.CreateToken, request, admin_pb2.CreateTokenResponse)
        return {**_token_row(answer.token), "secret": answer.secret}

    setting.show_one(setting.run(work))


@token.command("list")
@settings
def list_tokens(setting: Settings) -> None:
    """List tokens, without their secrets."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        answer = await trunkline.call(
            lambda stubs: stubs.admin.ListTokens, admin_pb2.ListTokensRequest(), admin_pb2.ListTokensResponse
        )
        return [_token_row(found) for found in answer.tokens]

    columns = ("id", "role", "namespaces", "topic_filters", "expires_at", "description")
    setting.show(setting.run(work), columns, empty="no tokens")


@token.command("revoke")
@click.argument("token_id")
@settings
def revoke_token(setting: Settings, token_id: str) -> None:
    """End a token at once."""

    async def work(trunkline: Trunkline) -> bool:
        answer = await trunkline.call(
            lambda stubs: stubs.admin.RevokeToken,
            admin_pb2.RevokeTokenRequest(id=token_id),
            admin_pb2.RevokeTokenResponse,
        )
        return answer.changed

    setting.show_one({"id": token_id, "revoked": setting.run(work)})


def _token_row(found: admin_pb2.Token) -> dict[str, Any]:
    return {**as_dict(found), "role": admin_pb2.Role.Name(found.role).removeprefix("ROLE_").lower()}


@click.command(short_help="How the control plane is.")
@settings
def status(setting: Settings) -> None:
    """Version, journal, counts and alarms of the control plane."""

    async def work(trunkline: Trunkline) -> admin_pb2.StatusResponse:
        return await trunkline.call(
            lambda stubs: stubs.admin.Status, admin_pb2.StatusRequest(), admin_pb2.StatusResponse
        )

    answer = setting.run(work)
    row = as_dict(answer)
    if setting.as_json:
        setting.show_one(row)
        return
    header, alarms = row.pop("header"), row.pop("alarms")
    setting.show_one({**header, **row})
    for alarm in alarms:
        click.secho(f"ALARM {alarm['name']} {alarm['namespace']} {alarm['subject']}: {alarm['message']}", fg="red")


@click.command(short_help="The registry as it was.")
@click.argument("service", default="")
@click.option("--revision", type=click.IntRange(min=1), help="As of this revision.")
@click.option("--at", "time", help="As of this time: ISO 8601, with a zone.")
@click.option("--since", "since_revision", type=click.IntRange(min=0), help="Show the changes since this revision.")
@settings
def history(
    setting: Settings, service: str, revision: int | None, time: str | None, since_revision: int | None
) -> None:
    """The instances of SERVICE (or of all) as of a revision or a time, or what changed up to then.

    \b
    trunkline history cart --at 2026-03-01T14:03:20Z
    trunkline history cart --since 120
    """
    request = admin_pb2.HistoryRequest(namespace=setting.namespace, service=service, since_revision=since_revision or 0)
    if revision is not None and time is not None:
        raise InvalidArgument.of("--at", "not together with --revision", time)
    if revision is not None:
        request.revision = revision
    if time is not None:
        request.time.FromDatetime(_moment(time))

    async def work(trunkline: Trunkline) -> admin_pb2.HistoryResponse:
        return await trunkline.call(lambda stubs: stubs.admin.History, request, admin_pb2.HistoryResponse)

    answer = setting.run(work)
    if since_revision is None:
        rows = [row_of(convert.registered_from(instance)) for instance in answer.instances]
        setting.show(rows, ("service", *COLUMNS), empty=f"no instance at revision {answer.at_revision}")
        return
    changes = [{**as_dict(change), **as_dict(change.instance)} for change in answer.changes]
    setting.show(
        changes,
        ("revision", "time", "service", "id", "what", "author", "reason"),
        empty=f"no change between {since_revision} and {answer.at_revision}",
    )


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument.of("--at", "ISO 8601, such as 2026-03-01T14:03:20Z", text) from error
    if moment.tzinfo is None:
        raise InvalidArgument.of("--at", "a time with its zone, such as 2026-03-01T14:03:20Z", text)
    return moment
