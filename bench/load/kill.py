"""An instance dies: how many calls its callers lose, and when the last call is sent to it.

SIGKILL resets its connections, so callers know at once. SIGSTOP leaves them open and silent: then only the lease tells.
Instances, control plane and callers are processes as in a user's system; what is timed is told by the SDK (`on_call`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.load.echo import SAY, SERVICE
from bench.load.process import Process, running
from bench.load.server import READY, Server
from bench.row import Row, row
from bench.runner import scratch_folder
from trunkline.client import SentCall, Trunkline, connect
from trunkline.core.model import Status

CALLERS = 8
INSTANCES = 4
TTL_S = 3.0
CALL_TIMEOUT_S = 0.5
SERVING = re.compile("serving")
DYING = "echo-0"


@dataclass(slots=True)
class Death:
    """What was seen of one."""

    failed: Counter[int] = field(default_factory=Counter)
    """Failed calls by caller, and how many there were."""
    last_sent_s: float = 0.0
    """From the signal to when the last call was sent to the dead instance."""
    out_s: float = 0.0
    """From the signal to when callers saw it gone, or behind every live one."""


class Callers:
    """Call as fast as answers come, and note where calls went."""

    def __init__(self, trunkline: Trunkline) -> None:
        self._trunkline = trunkline
        self.calls = 0
        self.failed: Counter[int] = Counter()
        self.dying_sent = 0.0
        """When the last call was sent to the dying instance."""
        self._wanted = 0
        self._reached = asyncio.Event()

    def note(self, sent: SentCall) -> None:
        """A call has ended."""
        if sent.instance.instance.id == DYING:
            self.dying_sent = max(self.dying_sent, sent.sent_ns / 1e9)

    async def more(self, calls: int) -> None:
        """Return when so many calls more have ended."""
        self._wanted = self.calls + calls
        self._reached.clear()
        async with asyncio.timeout(30):
            await self._reached.wait()

    async def run(self) -> None:
        """Until cancelled."""
        channel = await self._trunkline.channel(SERVICE, on_call=self.note)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CALLERS):
                tasks.create_task(self._call(channel.unary_unary(SAY), number))

    async def _call(self, say: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], number: int) -> None:
        while True:
            try:
                await say(b"hello", timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                self.failed[number] += 1
            self.calls += 1
            if self.calls >= self._wanted:
                self._reached.set()


async def until_out(trunkline: Trunkline) -> float:
    """When the view shows the dying instance gone or behind every live one."""
    async with await trunkline.watch(SERVICE) as view:
        async for _ in view.changes():
            there = [one for one in view.instances if one.instance.id == DYING]
            if not there or there[0].status is Status.STALE:
                return time.monotonic()
    raise AssertionError("the view goes on until it is closed")


@contextlib.asynccontextmanager
async def calling(address: str) -> AsyncIterator[tuple[Callers, Trunkline]]:
    """Callers that have each called everybody."""
    async with connect(address) as trunkline:
        callers = Callers(trunkline)
        task = asyncio.create_task(callers.run())
        try:
            await callers.more(50 * CALLERS)
            assert callers.dying_sent, "calls go to every instance"
            yield callers, trunkline
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def die(address: str, dying: Process, how: signal.Signals) -> Death:
    """Signal it under load; return when it is out and nobody has called it for a while."""
    async with calling(address) as (callers, trunkline):
        out = asyncio.create_task(until_out(trunkline))
        callers.failed.clear()
        began = time.monotonic()
        dying.process.send_signal(how)
        async with asyncio.timeout(4 * TTL_S + 10):
            gone_at = await out
        await callers.more(50 * CALLERS)
        await asyncio.sleep(CALL_TIMEOUT_S)  # calls that are on their way end
        return Death(failed=callers.failed, last_sent_s=callers.dying_sent - began, out_s=gone_at - began)


async def deaths(how: signal.Signals, repetitions: int) -> list[Death]:
    """So many, each with new instances."""
    found = []
    with scratch_folder() as folder, running(Server(folder)) as server:
        address = await asyncio.to_thread(server.wait_for, READY)
        for _ in range(repetitions):
            with contextlib.ExitStack() as instances_end:
                instances = [instance(folder, address[1], number) for number in range(INSTANCES)]
                for process in instances:
                    instances_end.callback(process.kill)
                for process in instances:
                    await asyncio.to_thread(process.wait_for, SERVING)
                found.append(await die(address[1], instances[0], how))
            assert found[-1].failed, "calls were in flight: some must have failed, or nothing was measured"
            await until_lapsed(address[1])
    return found


def instance(folder: Path, address: str, number: int) -> Process:
    """One instance, registered by itself."""
    words = [sys.executable, "-m", "bench.load.echo", address, f"echo-{number}", str(TTL_S)]
    return Process(words, folder / f"echo-{number}.log")


async def until_lapsed(address: str) -> None:
    """The instances were all killed; the next ones can have their ids when the leases have lapsed."""
    async with connect(address) as trunkline, await trunkline.watch(SERVICE) as view, asyncio.timeout(30):
        async for _ in view.changes():
            if all(one.status is Status.STALE for one in view.instances):
                return


async def both(quick: bool) -> tuple[list[Death], list[Death]]:
    """Killed ones, stopped ones."""
    return await deaths(signal.SIGKILL, 2 if quick else 5), await deaths(signal.SIGSTOP, 1 if quick else 3)


def rows(quick: bool) -> list[Row]:
    """Gates are on the worst of the repetitions."""
    name = "kill-to-last-call"
    what = f"{CALLERS} callers, {INSTANCES} instances"
    by_lease = f"value <= {TTL_S + 1:g} s"
    killed, stopped = asyncio.run(both(quick))
    most = [float(max(death.failed.values())) for death in killed]
    return [
        row(name, f"SIGKILL, {what}: failed calls of the caller with most", most, "calls", worst=max,
            gate="value <= 3 calls", goal="value <= 1 calls"),
        row(name, f"SIGKILL, {what}: to the last call sent there", [1_000 * d.last_sent_s for d in killed], "ms"),
        row(name, f"SIGKILL, TTL {TTL_S:g} s: to gone or behind every live one", [d.out_s for d in killed], "s",
            worst=max, gate=by_lease),
        row(name, f"SIGSTOP, TTL {TTL_S:g} s: to the last call sent there", [d.last_sent_s for d in stopped], "s",
            worst=max, gate=by_lease),
    ]  # fmt: skip
