"""python -m bench: list, run and report benchmarks.

`run` exits with 1 when a gate is missed or a benchmark fails, with 2 for a name that is unknown.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import click

from bench import runner, tables
from bench.catalogue import BENCHMARKS, Benchmark, find
from bench.row import Row, missed
from bench.say import SAID


@click.group(help=__doc__)
def bench() -> None:
    """The command."""


@bench.command("list")
def list_() -> None:
    """List the benchmarks."""
    width = max(len(benchmark.name) for benchmark in BENCHMARKS)
    for benchmark in BENCHMARKS:
        click.echo(f"{benchmark.name:{width}}  {benchmark.what}")
        click.echo(f"{'':{width}}  beside: {benchmark.peers}")


@bench.command()
@click.argument("names", nargs=-1)
@click.option(
    "--json",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the rows there, and machine and conditions beside them (x.json, x.env.json).",
)
@click.option("--quick", is_flag=True, help="Smaller sizes, fewer repetitions: a look, not a result.")
def run(names: tuple[str, ...], path: Path | None, quick: bool) -> None:
    """Run the benchmarks NAMES, or all."""
    benchmarks = _find(names)
    console = tables.console()
    if quick:
        console.print("quick: smaller sizes and fewer repetitions; do not quote these numbers", style="yellow")

    def tell(benchmark: Benchmark, rows: list[Row]) -> None:
        console.print(f"\n[bold]{benchmark.name}[/]  {benchmark.what}")
        console.print(
            tables.facts({key: benchmark.conditions()[key] for key in ("durability", "sizes", "concurrency")})
        )
        console.print(tables.results(rows))

    done = runner.run(benchmarks, quick=quick, tell=tell)
    console.print("\n[bold]machine[/]")
    console.print(tables.facts(done.environment["machine"]))
    if path is not None:
        beside = runner.save(done, path)
        console.print(f"\nwrote {path} and {beside}")
    for name, why in done.failed.items():
        console.print(f"[red]{name} failed: {why}[/]")
    for row in missed(done.rows):
        console.print(f"[red]missed: {row['benchmark']}: {row['metric']}: {row['gate']}[/]")
    sys.exit(done.status)


@bench.command(hidden=True)
@click.argument("name")
@click.option("--quick", is_flag=True)
def measure(name: str, quick: bool) -> None:
    """Run one benchmark in this process; rows, and what it said meanwhile, go to standard output as JSON."""
    (benchmark,) = _find((name,))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # thousands of connections, here and in servers
    try:
        rows = benchmark.rows(quick)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed: `make bench` installs the peers") from error
    click.echo(json.dumps({"rows": rows, "said": SAID}))


@bench.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The page; by default x.html for x.json.")
def report(path: Path, out: Path | None) -> None:
    """Draw the rows in the JSON file PATH as an HTML page."""
    from bench.report import page

    beside = runner.environment_path(path)
    conditions = json.loads(beside.read_text()) if beside.exists() else {}
    where = out or path.with_suffix(".html")
    where.write_text(page(json.loads(path.read_text()), conditions))
    click.echo(f"wrote {where}")


def _find(names: tuple[str, ...]) -> tuple[Benchmark, ...]:
    try:
        return find(names)
    except KeyError as error:
        raise click.UsageError(f"no benchmark {error.args[0]}; python -m bench list") from None


if __name__ == "__main__":
    bench(prog_name="python -m bench")
