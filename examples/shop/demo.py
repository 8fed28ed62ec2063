"""A small shop on real processes: 2,000 orders in about 20 seconds, while an instance is killed, another is drained, and the
control plane is killed and started again. Exit code 0 only if nothing that was promised was broken.

    python -m examples.shop.demo
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.shop.findings import Diaries
from examples.shop.processes import Processes, free_port
from examples.shop.stubs import messages, services
from trunkline.api.v1 import admin_pb2
from trunkline.client import Trunkline, connect

ORDERS = 2_200
RATE = 110.0
"""Orders a second."""
KILL_INSTANCE_AT, DRAIN_AT, KILL_CONTROL_AT = 0.2, 0.45, 0.65
"""Parts of the orders that are placed when it happens."""
CONTROL_AWAY_S = 1.5
CATCH_WITHIN_S = 20
DEAD, DRAINED = "inventory-2", "inventory-3"
CONSUMERS = ("billing-1", "billing-2")
SHOP = [
    ("orders", "orders-1", "--version", "1.4.0"),
    ("orders", "orders-2", "--version", "1.5.0"),
    ("orders", "orders-3", "--version", "2.0.0"),
    ("inventory", "inventory-1", "--zone", "a"),
    ("inventory", DEAD, "--zone", "a"),
    ("inventory", DRAINED, "--zone", "b"),
    ("billing", "billing-1"),
    ("billing", "billing-2"),
    ("mailer", "mailer-1"),
]


@dataclass
class Run:
    """What the driver saw."""

    placed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    by_orders: Counter[str] = field(default_factory=Counter)
    moments: dict[str, float] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever an order is placed or has failed."""
    in_flight: int = 0
    in_flight_at: dict[str, int] = field(default_factory=dict)

    def mark(self, moment: str, calls_in_flight: int) -> None:
        self.moments[moment] = time.monotonic()
        self.in_flight_at[moment] = calls_in_flight


async def place(orders: services.OrdersStub, number: int, run: Run) -> None:
    order = f"order-{number:05}"
    run.in_flight += 1
    try:
        reply = await orders.Place(messages.PlaceRequest(order_id=order, item="book"), timeout=30)
        run.placed.append(order)
        run.by_orders[reply.orders_instance] += 1
    except grpc.RpcError as error:
        run.failed[order] = f"{error.code().name}: {error.details()}"
    finally:
        run.in_flight -= 1
        run.moved.set()


async def drive(trunkline: Trunkline, run: Run, progress: Progress) -> None:
    """Place the orders at a steady rate."""
    channel = await trunkline.channel("orders")
    orders = services.OrdersStub(channel)
    bar = progress.add_task("orders", total=ORDERS)
    begin = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(ORDERS):
            await asyncio.sleep(max(0.0, begin + number / RATE - time.monotonic()))
            tasks.create_task(place(orders, number, run))
            progress.update(bar, completed=len(run.placed) + len(run.failed))
    progress.update(bar, completed=len(run.placed) + len(run.failed))


async def placed(run: Run, part: float) -> None:
    """Wait until so much of the orders is placed."""
    while len(run.placed) + len(run.failed) < ORDERS * part:
        run.moved.clear()
        await run.moved.wait()


async def catch(
    processes: Processes, run: Run, name: str, moment: str, then: Callable[[str], None], *, calls_of: str = ""
) -> None:
    """Do `then` to a process in the middle of things: it is stopped to look, and let go on if nothing is in flight.

    In flight means orders, unacknowledged events and, where `calls_of` names an instance, calls to it. Who bills is
    stopped as well: what it does while the diaries are read would not stand in them.
    """
    async with asyncio.timeout(CATCH_WITHIN_S):
        while True:
            with processes.held(*CONSUMERS, name):
                diaries, now = Diaries.read(processes.folder), time.monotonic()
                calls = diaries.in_flight(calls_of, now) if calls_of else run.in_flight
                if calls > 0 and diaries.unacknowledged_at(now) > 0:
                    run.mark(moment, calls)
                    then(name)
                    return
            await asyncio.sleep(0.005)


async def break_things(processes: Processes, run: Run, progress: Progress) -> None:
    """Kill an instance, drain another, kill the control plane: each in the middle of things."""
    await placed(run, KILL_INSTANCE_AT)
    await catch(processes, run, DEAD, "instance killed", processes.kill, calls_of=DEAD)
    progress.console.print(f"[red]SIGKILL[/red] {DEAD}")

    await placed(run, DRAIN_AT)
    await catch(processes, run, DRAINED, "instance drained", processes.ask_to_stop, calls_of=DRAINED)
    progress.console.print(f"[yellow]drain[/yellow]   {DRAINED}")

    await placed(run, KILL_CONTROL_AT)
    await catch(processes, run, "control", "control killed", processes.kill)
    progress.console.print("[red]SIGKILL[/red] the control plane")
    await asyncio.sleep(CONTROL_AWAY_S)
    processes.start_control()
    run.mark("control started", run.in_flight)
    progress.console.print("[green]started[/green] the control plane again")


async def settled(folder: Path, run: Run) -> None:
    """Wait until every placed order was mailed, for as long as that still makes headway."""
    left, since = len(run.placed) + 1, time.monotonic()
    while left and time.monotonic() - since < 20:
        mailed = Diaries.read(folder).events("mailed")
        now_left = sum(1 for order in run.placed if order not in mailed)
        if now_left < left:
            left, since = now_left, time.monotonic()
        await asyncio.sleep(0.25)


async def expired(trunkline: Trunkline) -> list[str]:
    """Instances whose lease lapsed, from the registry's history."""
    answer = await trunkline.call(
        lambda stubs: stubs.admin.History,
        admin_pb2.HistoryRequest(namespace="shop", since_revision=1, max_changes=10_000),
        admin_pb2.HistoryResponse,
        timeout_s=30,
    )
    return [change.instance.id for change in answer.changes if change.what in ("expired", "lease lapsed")]


def report(run: Run, diaries: Diaries, lapsed: list[str], console: Console) -> bool:
    """Print what happened; True if every promise was kept."""
    published, billed, mailed = (diaries.events(what) for what in ("published", "billed", "mailed"))
    killed, drained = run.moments["instance killed"], run.moments["instance drained"]
    to_dead = diaries.attempts_at(DEAD, killed)
    last_call_ms = max((line["sent"] - killed for line in to_dead), default=0.0) * 1_000
    failed_at_dead = Counter(line["who"] for line in diaries.attempts_at(DEAD, 0) if line["code"] != "OK")
    failed_at_drained = [line for line in diaries.attempts_at(DRAINED, drained) if line["code"] != "OK"]
    steps = [*sorted(run.moments.values()), time.monotonic()]
    traffic = [diaries.traffic_between(begin, end) for begin, end in itertools.pairwise(steps)]
    lost = [event for event in published if not billed[event] or not mailed[event]]
    not_killed = sorted(set(lapsed) - {DEAD})

    rows: list[tuple[str, str, bool]] = [
        ("orders placed / failed", f"{len(run.placed)} / {len(run.failed)}", len(run.placed) >= 2_000),
        ("orders per instance", _counts(run.by_orders), len(run.by_orders) == 3),
        ("calls per inventory instance", _counts(diaries.calls()), len(diaries.calls()) == 3),
        *(_in_the_middle(run, diaries, moment) for moment in ("instance killed", "instance drained", "control killed")),
        ("kill to the last call sent there", f"{last_call_ms:.0f} ms", last_call_ms < 4_000),
        ("calls to the dead that failed, per caller", _counts(failed_at_dead) or "none",
         max(failed_at_dead.values(), default=0) <= 3),
        ("calls to the drained that failed", str(len(failed_at_drained)), not failed_at_drained),
        ("events published (acknowledged)", str(len(published)), len(published) >= 2_000),
        ("events delivered: billed / mailed", f"{len(billed)} / {len(mailed)}", True),
        ("delivered again: billed / mailed", f"{_extra(billed)} / {_extra(mailed)}", True),
        ("events lost", str(len(lost)), not lost),
        ("live instances that expired", ", ".join(not_killed) or "none", not not_killed),
        ("calls answered in each step", ", ".join(map(str, traffic)), all(traffic)),
    ]  # fmt: skip
    table = Table(title="The shop", title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    for what, value, good in rows:
        table.add_row(what, value, "" if good else "[red]BROKEN[/red]")
    console.print(table)
    for order, why in list(run.failed.items())[:5]:
        console.print(f"  {order} failed: {why}")
    return all(good for _, _, good in rows)


def _in_the_middle(run: Run, diaries: Diaries, moment: str) -> tuple[str, str, bool]:
    """What was in flight when something was broken: it proves little if nothing was."""
    calls, events = run.in_flight_at[moment], diaries.unacknowledged_at(run.moments[moment])
    return f"{moment} with", f"{calls} calls in flight, {events} events unacknowledged", calls > 0 and events > 0


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


def _extra(counter: Counter[str]) -> int:
    return sum(count - 1 for count in counter.values())


async def demo(folder: Path) -> bool:
    console = Console()
    control = f"127.0.0.1:{free_port()}"
    processes = Processes(folder, control)
    run = Run()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        processes.start_control()
        for program, name, *options in SHOP:
            processes.start(program, name, *options)
        async with connect(control, namespace="shop", name="driver") as trunkline:
            for service, count in (("orders", 3), ("inventory", 3)):
                await _wait_for(trunkline, service, count)
            with Progress(*columns, console=console) as progress:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(drive(trunkline, run, progress))
                    tasks.create_task(break_things(processes, run, progress))
            await settled(folder, run)
            lapsed = await expired(trunkline)
        ended = {name: code for name, code in processes.ended().items() if name != DRAINED or code}
    finally:
        processes.stop_all()
    kept = report(run, Diaries.read(folder), lapsed, console)
    if ended:
        console.print(f"[red]ended by themselves: {ended}[/red]; logs in {folder}")
    return kept and not ended


async def _wait_for(trunkline: Trunkline, service: str, count: int) -> None:
    """Until so many instances serve, at most 30 seconds."""
    view = await trunkline.watch(service, timeout_s=30)
    async with asyncio.timeout(30):
        async for _ in view.changes():
            if len(view.instances) >= count:
                break
    view.close()


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="trunkline-shop-"))
    kept = asyncio.run(demo(folder))
    if kept:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    else:
        print(f"Something was broken. Logs and diaries: {folder}")  # noqa: T201
    sys.exit(not kept)


if __name__ == "__main__":
    main()
