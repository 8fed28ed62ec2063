"""`trunkline`: the group of all commands, and how errors end it."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Any

import click

from trunkline.core.errors import InvalidArgument, TrunklineError

from ._context import Settings

COMMANDS_GROUP = "trunkline.commands"
OWN = {
    "register": "_register",
    "services": "_discovery",
    "resolve": "_discovery",
    "watch": "_discovery",
    "drain": "_operate",
    "override": "_operate",
    "end-pause": "_operate",
    "publish": "_events",
    "streams": "_events",
    "outbox": "_outbox",
    "subscribe": "_receive",
    "tail": "_receive",
    "replay": "_receive",
    "subscriptions": "_subscriptions",
    "seek": "_subscriptions",
    "redrive": "_subscriptions",
    "explain": "_explain",
    "schedules": "_schedules",
    "policy": "_policy",
    "calls": "_calls",
    "release": "_release",
    "webhooks": "_webhooks",
    "token": "_admin",
    "status": "_admin",
    "history": "_admin",
    "protos": "_protos",
    "doctor": "_doctor",
}
"""The client's commands and their modules, which are imported when they are asked for: `serve` starts without the SDK."""


class Commands(click.Group):
    """The client's commands and those that other installed packages bring."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*OWN, *(point.name for point in entry_points(group=COMMANDS_GROUP))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN:
            module = import_module(f".{OWN[cmd_name]}", __package__)
            return _command(getattr(module, cmd_name.replace("-", "_")))
        for point in entry_points(group=COMMANDS_GROUP, name=cmd_name):
            return _command(point.load())
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:  # click knows of commands that are loaded; we know of all
            raise click.NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidArgument as error:
            # Of one item of a stream only the message is told.
            lines = [f"{v.field}: {v.rule}, got {v.value}" for v in error.violations] or [error.message]
            raise _BadInput("\n".join(" ".join(line.split()) for line in lines)) from error
        except TrunklineError as error:
            reason = error.code.lower().replace("_", " ")
            raise click.ClickException(" ".join(f"{reason}: {error}".split())) from error


def _command(found: object) -> click.Command:
    assert isinstance(found, click.Command)
    return found


class _BadInput(click.ClickException):
    """A line for each mistake on standard error, and the exit code that click's own usage errors have."""

    exit_code = 2


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("trunkline"), prog_name="trunkline")
@click.option("--address", envvar="TRUNKLINE_ADDRESS", default="127.0.0.1:7400", show_default=True, metavar="HOST:PORT")
@click.option("--namespace", "-n", envvar="TRUNKLINE_CLIENT_NAMESPACE", default="default", show_default=True)
@click.option("--token", envvar="TRUNKLINE_TOKEN", help="What `trunkline token create` showed.")
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False), help="PEM file: the authority of the server's certificate."
)
@click.option("--timeout", "timeout_s", default=10.0, show_default=True, help="Seconds for each answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one value a line, instead of tables.")
@click.pass_context
def group(ctx: click.Context, /, **settings: Any) -> None:
    """Register services, find them, and pass events along.

    \b
    trunkline serve                                   start a control plane here
    trunkline register cart --port 8080 -- ./cart     run a program as a registered service
    trunkline resolve cart                            who serves it
    trunkline publish order.placed '{"id": 7}'        tell the others
    trunkline subscribe 'order.>'                     hear of it
    """
    ctx.obj = Settings(**settings)


def main() -> None:
    """The console script."""
    sys.exit(group(prog_name="trunkline"))
