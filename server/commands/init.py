"""init: what a control plane needs that other machines are to reach."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from trunkline.core.errors import InvalidArgument

from ..security.authority import make_authority, make_server_certificate, save_private
from ..security.tokens import new_id, new_secret
from .output import output

CONFIG = """\
# A control plane that other machines reach: TLS, and nobody without a token or certificate.
# Every setting is described in the documentation of its part; `trunkline serve --config` refuses unknown ones.
listen = "{listen}"
http_listen = "127.0.0.1:7401"
data = "{data}"

[tls]
certificate = "{folder}/server.pem"
key = "{folder}/server.key"

[security]
loopback_without_credentials = false

# The first admin. Its secret was shown once; this is its hash. `trunkline token create` makes others.
[[security.tokens]]
id = "{token_id}"
role = "admin"
secret_sha256 = "{secret_hash}"
"""


@click.command(short_help="Make certificates and an admin token.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", "hosts", multiple=True, help="A name or address by which clients reach it. Repeat for several.")
@click.option("--listen", default="0.0.0.0:7400", show_default=True)
def init(folder: Path, hosts: tuple[str, ...], listen: str) -> None:
    """Make what a control plane for several machines needs, in FOLDER.

    A random certificate authority, a server certificate by it, an admin token (shown once, stored as a hash), and a
    configuration that uses them. Nothing that is there is overwritten.

    \b
    trunkline init ./control --host control.example --host 10.0.0.5
    trunkline serve --config ./control/trunkline.toml
    trunkline --address control.example:7400 --ca ./control/ca.pem --token TOKEN doctor
    """
    folder = folder.resolve()
    taken = [
        name for name in ("ca.pem", "ca.key", "server.pem", "server.key", "trunkline.toml") if (folder / name).exists()
    ]
    if taken:
        raise InvalidArgument.of("FOLDER", f"must not hold {', '.join(taken)} yet", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    authority = make_authority("Trunkline", now=now)
    server = make_server_certificate(authority, [*hosts, "localhost", "127.0.0.1", "::1"], now=now)
    token_id = new_id("init", "", os.urandom)
    secret = new_secret(token_id, os.urandom)
    (folder / "ca.pem").write_bytes(authority.certificate)
    save_private(folder / "ca.key", authority.key)
    (folder / "server.pem").write_bytes(server.certificate)
    save_private(folder / "server.key", server.key)
    config = CONFIG.format(
        listen=listen, data=folder / "data", folder=folder, token_id=token_id, secret_hash=secret.hash.hex()
    )
    save_private(folder / "trunkline.toml", config.encode())
    output().show_one(
        {
            "certificate authority": str(folder / "ca.pem"),
            "configuration": str(folder / "trunkline.toml"),
            "admin token, shown only now": secret.token,
        }
    )
