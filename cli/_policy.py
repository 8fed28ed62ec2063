"""policy: how services are called."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from difflib import unified_diff
from typing import Any, TypeVar

import click

from trunkline.api.policies import sections_of
from trunkline.api.policy_text import policy_to_dict, read_policies, write_policies
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.client import AppliedPolicy, KeptPolicy, LateClient, PolicyChange, PolicyState, Trunkline
from trunkline.core.errors import InvalidArgument, TrunklineError

from ._apply import EVERY_SERVICE, Progress, ask_about_all, look_at_all, name_of
from ._context import Settings, settings

COLUMNS = ("service", "sections", "revision", "changed_at", "author", "reason")
CHANGE_COLUMNS = ("revision", "changed_at", "author", "reason", "sections")
RADIUS_COLUMNS = ("service", "capacity_before", "capacity_after", "capacity_removed_percent", "keys_moved_percent")
WAIT_S = 30.0

F = TypeVar("F", bound=Callable[..., Any])


@click.group(short_help="Say how services are called.")
def policy() -> None:
    """How services are called: load balancing, retries, breakers, limits, splits. One policy per service, and one for all
    of a namespace that have no such section, which has no service.

    \b
    trunkline policy validate cart.yaml
    trunkline policy diff cart.yaml
    trunkline policy apply cart.yaml --reason 'retry what is unavailable' --wait
    trunkline policy history cart
    trunkline policy rollback cart
    """


def _changing(command: F) -> F:
    """The options of whatever changes a policy."""
    for option in (
        click.option("--reason", default="", help="Why; kept with the change."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option("--force", is_flag=True, help="Whatever its blast radius."),
        click.option("--max-capacity-removed", type=click.IntRange(0, 100), help="Percent; 50 unless given."),
        click.option("--max-keys-moved", type=click.IntRange(0, 100), help="Percent; 50 unless given."),
        click.option(
            "--wait", "wait_s", type=click.FloatRange(0, 600), is_flag=False, flag_value=WAIT_S, metavar="[SECONDS]",
            help=f"Until everybody who watches has applied it; {WAIT_S:g} s if no time is given.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Those of `_changing`, as the SDK calls them."""
    return {
        "reason": given["reason"],
        "dry_run": given["dry_run"],
        "force": given["force"],
        "max_capacity_removed_percent": given["max_capacity_removed"],
        "max_keys_moved_percent": given["max_keys_moved"],
    }


@policy.command("apply")
@click.argument("file", type=click.File("r"))
@click.option("--expect", type=click.IntRange(0), metavar="REVISION", help="Of what is changed; 0 for none.")
@_changing
@settings
def apply_policy(setting: Settings, /, file: Any, expect: int | None, wait_s: float | None, **given: Any) -> None:
    """Keep the policies of FILE (YAML or JSON, "-" for standard input), one after the other.

    Nothing is kept when any of them has a mistake, or would be refused by the control plane. Should one be refused all
    the same, as somebody else changed something meanwhile, it is said which were kept and which not.
    """
    policies = _read(setting, file)
    if expect is not None and len(policies) != 1:
        raise InvalidArgument.of("--expect", "only with one policy", f"{len(policies)} policies")
    options = _options(given)
    progress = Progress(policies, lambda line: click.echo(line, err=True))
    several = len(policies) > 1
    done: list[_Done] = []

    async def work(trunkline: Trunkline) -> None:
        if several:
            foreseen = await ask_about_all(trunkline, policies, **options)
            if given["dry_run"]:
                done.extend(_Done(name_of(one), made, ()) for one, made in zip(policies, foreseen, strict=True))
                return
        progress.begun = True
        for one in policies:
            made = await trunkline.apply_policy(one, expected_revision=expect, **options)
            progress.kept, progress.waiting = progress.kept + 1, True
            done.append(await _waited(trunkline, one.namespace, one.service, made, wait_s))
            progress.waiting = False

    try:
        if several:
            look_at_all(policies)
        setting.run(work)
    except (TrunklineError, click.exceptions.Exit) as error:
        if several and not given["dry_run"]:
            progress.tell(error)
        raise
    _report(setting, done, dry_run=given["dry_run"])


@policy.command("delete")
@click.argument("service", default="")
@click.option("--expect", type=click.IntRange(1), metavar="REVISION", help="Of what is deleted.")
@_changing
@settings
def delete_policy(setting: Settings, /, service: str, expect: int | None, wait_s: float | None, **given: Any) -> None:
    """Keep no policy of SERVICE, or of the namespace."""

    async def work(trunkline: Trunkline) -> list[_Done]:
        made = await trunkline.delete_policy(service, expected_revision=expect, **_options(given))
        return [await _waited(trunkline, setting.namespace, service, made, wait_s)]

    _report(setting, setting.run(work), dry_run=given["dry_run"])


@policy.command("rollback")
@click.argument("service", default="")
@click.option("--to", default=0, type=click.IntRange(0), metavar="REVISION", help="Else before the last change.")
@_changing
@settings
def roll_back_policy(setting: Settings, /, service: str, to: int, wait_s: float | None, **given: Any) -> None:
    """Keep again what the policy of SERVICE, or of the namespace, was."""

    async def work(trunkline: Trunkline) -> list[_Done]:
        made = await trunkline.roll_back_policy(service, to=to, **_options(given))
        return [await _waited(trunkline, setting.namespace, service, made, wait_s)]

    _report(setting, setting.run(work), dry_run=given["dry_run"])


@policy.command("get")
@click.argument("service", default="")
@click.option("--output", "-o", type=click.Choice(["yaml", "json", "table"]), default="yaml", show_default=True)
@click.option("--effective", is_flag=True, help="All that holds: over the namespace's, with the release's shares.")
@settings
def get_policy(setting: Settings, service: str, output: str, effective: bool) -> None:
    """Show the policy of SERVICE, or of the namespace, so that `apply` takes it back."""

    async def work(trunkline: Trunkline) -> PolicyState:
        return await trunkline.get_policy(service)

    state = setting.run(work)
    if state.own is None and not effective:
        raise click.ClickException(f"policy not found: {service or 'the namespace'} has none of its own")
    shown = state.effective if effective or state.own is None else state.own.policy
    if output == "yaml" and not setting.as_json:
        click.echo(write_policies(shown), nl=False)
    elif output == "table":
        own = frozenset[str]() if state.own is None else sections_of(state.own.policy)
        setting.show(_section_rows(shown, own), ("section", "says", "of"), empty="nothing is said")
    else:
        click.echo(json.dumps(policy_to_dict(shown), indent=None if setting.as_json else 2))


@policy.command("list")
@settings
def list_policies(setting: Settings) -> None:
    """List the namespace's policies."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        return [_row(kept) for kept in await trunkline.list_policies()]

    setting.show(setting.run(work), COLUMNS, empty="no policies")


@policy.command("history")
@click.argument("service", default="")
@click.option("--max", "max_changes", default=20, type=click.IntRange(1, 1_000), show_default=True)
@settings
def policy_history(setting: Settings, service: str, max_changes: int) -> None:
    """List the last changes of the policy of SERVICE, or of the namespace, newest first."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        return [_change_row(change) for change in await trunkline.policy_changes(service, max_changes=max_changes)]

    setting.show(setting.run(work), CHANGE_COLUMNS, empty="no changes")


@policy.command("diff")
@click.argument("file", type=click.File("r"))
@settings
def diff_policy(setting: Settings, file: Any) -> None:
    """Show what `apply` of FILE would change. Exit code 1 when that is anything."""
    policies = _read(setting, file)

    async def work(trunkline: Trunkline) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []
        for one in policies:
            own = (await trunkline.get_policy(one.service, namespace=one.namespace)).own
            found.append((name_of(one), "" if own is None else write_policies(own.policy), write_policies(one)))
        return found

    differs = False
    for name, kept, wanted in setting.run(work):
        for line in unified_diff(kept.splitlines(), wanted.splitlines(), f"{name} kept", f"{name} wanted", lineterm=""):
            differs = True
            click.echo(line)
    sys.exit(differs)


@policy.command("validate")
@click.argument("file", type=click.File("r"))
@settings
def validate_policy(setting: Settings, file: Any) -> None:
    """Look for mistakes in FILE, without a control plane. What other policies say is looked at if FILE has it, too."""
    policies = _read(setting, file)
    look_at_all(policies, alone=True)
    setting.show_one({"policies": len(policies), "valid": True})


# What a change came to.


class _Done:
    """One change, and who has not applied it."""

    def __init__(self, name: str, made: AppliedPolicy | None, late: tuple[LateClient, ...]) -> None:
        self.name = name
        self.made = made
        """None: what a dry run cannot know, as it rests on others that would be changed before."""
        self.late = late


async def _waited(
    trunkline: Trunkline, namespace: str, service: str, made: AppliedPolicy, wait_s: float | None
) -> _Done:
    late: tuple[LateClient, ...] = ()
    if wait_s is not None:
        late = await trunkline.wait_until_applied(made.revision, service, limit_s=wait_s, namespace=namespace)
    return _Done(f"{namespace}/{service or EVERY_SERVICE}", made, late)


def _report(setting: Settings, done: list[_Done], *, dry_run: bool) -> None:
    """Say what was done; exit code 1 when somebody has not applied it."""
    for one in done:
        if one.made is None:
            setting.show_one({"policy": one.name, "would_change": "not known before those before it are applied"})
            continue
        row: dict[str, Any] = {"policy": one.name, "changed": one.made.changed, "revision": one.made.revision}
        if dry_run:
            row = {"policy": one.name, "would_change": one.made.changed}
        setting.show_one(row)
        radii = [
            radius for radius in one.made.blast_radius if radius.capacity_removed_percent or radius.keys_moved_percent
        ]
        if radii:
            setting.show([_radius_row(radius) for radius in radii], RADIUS_COLUMNS, empty="")
        for late in one.late:
            click.echo(
                f"late: {late.client}, at revision {late.applied_revision}, {late.late_by_s:.1f} s behind", err=True
            )
    sys.exit(any(one.late for one in done))


# Reading and showing.


def _read(setting: Settings, file: Any) -> list[TrafficPolicy]:
    policies = read_policies(file.read(), namespace=setting.namespace)
    if not policies:
        raise InvalidArgument.of("FILE", "at least one policy", "nothing")
    return policies


def _shown(service: str) -> str:
    return service or EVERY_SERVICE


def _row(kept: KeptPolicy) -> dict[str, Any]:
    return {
        "service": _shown(kept.policy.service),
        "sections": _sections(kept.policy),
        "revision": kept.revision,
        "changed_at": kept.changed_at.isoformat(timespec="seconds"),
        "author": kept.author,
        "reason": kept.reason,
    }


def _change_row(change: PolicyChange) -> dict[str, Any]:
    return {
        "revision": change.revision,
        "changed_at": change.changed_at.isoformat(timespec="seconds"),
        "author": change.author,
        "reason": change.reason,
        "sections": ["(deleted)"] if change.policy is None else _sections(change.policy),
    }


def _sections(one: TrafficPolicy) -> list[str]:
    return [field.name for field, _ in one.ListFields() if field.name in sections_of(one)]


def _section_rows(shown: TrafficPolicy, own: frozenset[str]) -> list[dict[str, Any]]:
    said = policy_to_dict(shown)
    return [
        {"section": name, "says": _flow(said[name]), "of": "service" if name in own else "namespace or release"}
        for name in _sections(shown)
    ]


def _flow(value: Any) -> str:
    """On one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ", ".join(map(_flow, value)) + "]" if isinstance(value, list) else str(value)


def _radius_row(radius: Any) -> dict[str, Any]:
    row = {name: getattr(radius, name) for name in RADIUS_COLUMNS}
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()}
