"""register: any program as a registered service."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import click

from trunkline.client import Trunkline
from trunkline.core.errors import InvalidArgument

from ._context import Settings, settings

STOP_S = 10.0
"""How long the program may take to end after SIGTERM before it is killed."""


@click.command(short_help="Run a program as a registered service.", context_settings={"ignore_unknown_options": True})
@click.argument("service")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="Where the program listens.")
@click.option("--host", default="", help="Default: the address from which the control plane is reached.")
@click.option("--protocol", default="grpc", show_default=True)
@click.option("--id", "instance_id", default="", help="Default: random.")
@click.option("--version", default="", help="Semantic version.")
@click.option("--zone", default="")
@click.option("--weight", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--ttl", "ttl_s", type=click.FloatRange(1, 300), default=10.0, show_default=True, help="Seconds.")
@settings
def register(
    setting: Settings,
    /,
    service: str,
    program: tuple[str, ...],
    labels: tuple[str, ...],
    instance_id: str,
    **terms: Any,
) -> None:
    """Register SERVICE, run PROGRAM, keep it alive, and drain and deregister it when the program or this command ends.

    The program finds TRUNKLINE_SERVICE, TRUNKLINE_INSTANCE_ID and PORT in its environment. Without a program, the service
    is registered until Ctrl-C. The exit code is the program's.

    \b
    trunkline register cart --port 8080 --version 1.4.0 -- ./cart --listen :8080
    """
    for label in labels:
        if "=" not in label:
            raise InvalidArgument.of("--label", "KEY=VALUE", label)
    pairs = dict(label.split("=", 1) for label in labels)

    async def work(trunkline: Trunkline) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        registration = await trunkline.register(service, id=instance_id, labels=pairs, **terms)
        click.echo(f"registered {registration.id} of {service}", err=True)
        try:
            if not program:
                await stop.wait()
                return 0
            return await _run(program, stop, _environment(service, registration.id, terms["port"]), registration.close)
        finally:
            await registration.close()
            click.echo(f"deregistered {registration.id}", err=True)

    sys.exit(setting.run(work))


def _environment(service: str, instance_id: str, port: int) -> dict[str, str]:
    own = {"TRUNKLINE_SERVICE": service, "TRUNKLINE_INSTANCE_ID": instance_id, "PORT": str(port)}
    return {**os.environ, **own}


async def _run(program: tuple[str, ...], stop: asyncio.Event, environment: dict[str, str], leave: Any) -> int:
    """Run until it ends or `stop`; then leave the registry first, and end it with nobody calling any more."""
    try:
        process = await asyncio.create_subprocess_exec(*program, env=environment, start_new_session=True)
    except OSError as error:
        raise InvalidArgument.of("PROGRAM", error.strerror or "cannot be run", program[0]) from error
    ended = asyncio.ensure_future(process.wait())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ended.done():
        await leave()
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.shield(ended)
        except TimeoutError:
            process.kill()
    return await ended
