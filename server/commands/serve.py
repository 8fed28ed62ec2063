"""serve: start a control plane here."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from ..app import Announcement, ServerConfig, run
from ..config import load

LOG_LEVELS = ("debug", "info", "warning", "error")


@click.command(short_help="Start a control plane here.")
@click.option(
    "--config", "file", type=click.Path(dir_okay=False, path_type=Path), envvar="TRUNKLINE_CONFIG", help="TOML."
)
@click.option("--listen", help="HOST:PORT or unix:PATH of the gRPC listener.  [default: 127.0.0.1:7400]")
@click.option("--http-listen", help="HOST:PORT of the HTTP listener; empty for none.  [default: 127.0.0.1:7401]")
@click.option("--data", type=click.Path(file_okay=False), help="Folder of the journal.  [default: ./trunkline-data]")
@click.option("--memory", is_flag=True, help="Keep nothing on disk.")
@click.option("--tls-certificate", type=click.Path(dir_okay=False))
@click.option("--tls-key", type=click.Path(dir_okay=False))
@click.option("--client-authority", type=click.Path(dir_okay=False), help="Clients must show its certificates (mTLS).")
@click.option(
    "--transport", type=click.Choice(("native", "grpcio")), help="gRPC server.  [default: native where it was built]"
)
@click.option("--insecure", is_flag=True, help="Take calls from anywhere without TLS and credentials.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
def serve(
    file: Path | None,
    listen: str | None,
    http_listen: str | None,
    data: str | None,
    memory: bool,
    tls_certificate: str | None,
    tls_key: str | None,
    client_authority: str | None,
    transport: str | None,
    insecure: bool,
    log_level: str,
) -> None:
    """Start a control plane, until SIGTERM or Ctrl-C.

    On loopback it needs no credentials: for development. Any other address needs TLS and tokens; `trunkline init FOLDER` makes
    what that takes.

    \b
    trunkline serve
    trunkline serve --config trunkline.toml
    trunkline serve --listen 10.0.0.5:7400 --tls-certificate server.pem --tls-key server.key
    """
    overrides: dict[str, Any] = {"listen": listen, "http_listen": http_listen, "data": data}
    if memory:
        overrides["engine"] = "memory"
    if tls_certificate or tls_key:
        tls = {"certificate": tls_certificate, "key": tls_key, "client_authority": client_authority}
        overrides["tls"] = {key: value for key, value in tls.items() if value}
    if transport:
        overrides["transport"] = {"kind": transport}
    if insecure:
        overrides["security"] = {"insecure": True}
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    config = load(ServerConfig, file=file, environment=os.environ, overrides=overrides)
    run(config, _announce)


def _announce(started: Announcement) -> None:
    click.echo(f"trunkline {started.version} is ready: gRPC on {', '.join(started.grpc)} ({started.transport})")
    if started.http:
        click.echo(f"  HTTP on {started.http}: /v1 (events), /metrics, /healthz")
    click.echo(f"  data in {started.data}" if started.data else "  nothing is kept on disk: a restart begins empty")
    click.echo(f"  {started.access}")
    sys.stdout.flush()
