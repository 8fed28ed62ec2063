"""protos export: the contract, for clients in other languages."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

CONTRACT = "trunkline.api.v1"


@click.group()
def protos() -> None:
    """The contract that clients in any language compile."""


@protos.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export(folder: Path) -> None:
    """Write the .proto files below FOLDER, so that it is an import path.

    \b
    trunkline protos export ./protos
    protoc -I ./protos --go_out=. ./protos/trunkline/api/v1/*.proto
    """
    target = folder.joinpath(*CONTRACT.split("."))
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(_contract(), key=lambda source: source.name):
        (target / source.name).write_text(source.read_text())
        click.echo(str(target / source.name))


def _contract() -> list[Traversable]:
    return [source for source in files(CONTRACT).iterdir() if source.name.endswith(".proto")]
