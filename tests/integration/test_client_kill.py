"""SIGKILL of an instance under load: how many calls each caller loses."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from integration.echo_server import SAY
from integration.waiting import until

from trunkline.client import BalancedChannel, Trunkline
from trunkline.client.testing import FakeControlPlane

CALLERS = 8
FAILED_CALLS_MAX = 3
"""The gate: failed calls of one caller after a SIGKILL, with the control plane not yet aware of it."""


@asynccontextmanager
async def echo_process(name: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("echo_server.py")),
        name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Caller:
    """Calls as fast as answers come, and keeps count."""

    def __init__(self, channel: BalancedChannel) -> None:
        self._say = channel.unary_unary(SAY)
        self.answers: Counter[str] = Counter()
        self.failures: list[tuple[float, str]] = []

    async def run(self) -> None:
        while True:
            try:
                self.answers[(await self._say(b"", timeout=5)).decode()] += 1
            except grpc.aio.AioRpcError as error:
                self.failures.append((time.monotonic(), f"{error.code()}: {error.details()}"))


@pytest.mark.parametrize("load_balancing", ["round_robin", "least_request", "ring_hash"])
async def test_a_killed_instance_costs_each_caller_few_calls(load_balancing: str) -> None:
    plane = FakeControlPlane()  # its clock stands: the dead instance stays registered
    async with plane.connect() as trunkline, echo_process("a") as (dying, port), echo_process("b") as (_, other):
        await registered(trunkline, a=port, b=other)
        channel = await trunkline.channel("echo", load_balancing=load_balancing)  # type: ignore[arg-type]
        callers = [Caller(channel) for _ in range(CALLERS)]
        tasks = [asyncio.create_task(caller.run()) for caller in callers]
        await until(lambda: all(sum(caller.answers.values()) > 50 and caller.answers["a "] for caller in callers))
        dying.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        await dying.wait()
        before = sum(caller.answers["b "] for caller in callers)
        await until(lambda: sum(caller.answers["b "] for caller in callers) > before + 2_000)
        assert plane.instance_ids("echo") == ["a", "b"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failures = [failure for caller in callers for failure in caller.failures]
    assert max(len(caller.failures) for caller in callers) <= FAILED_CALLS_MAX, failures
    assert failures, "calls were in flight at the kill: some must have failed, or nothing was measured"
    assert max(when for when, _ in failures) - killed_at < 2


async def registered(trunkline: Trunkline, **ports: int) -> None:
    for name, port in ports.items():
        await trunkline.register("echo", id=name, port=port, host="127.0.0.1", drain_on_exit=False)
