"""Disks that fail under a real server."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from faults.disk_story import story
from faults.faulty_disk import serving_on_faulty_disk
from faults.machine import NotHere, memory_disk
from integration.acknowledged import Ledger, Load, audit
from integration.processes import serving
from integration.waiting import until

FAULTS = [
    ("write", errno.ENOSPC, {"DISK_FULL"}),
    ("write", errno.EROFS, {"DISK_READ_ONLY"}),
    ("write", errno.EIO, {"OUTCOME_UNKNOWN", "STREAM_CLOSED"}),
    ("sync", errno.EIO, {"OUTCOME_UNKNOWN", "STREAM_CLOSED"}),
]


@pytest.mark.parametrize(("call", "number", "reasons"), FAULTS, ids=[f"{call}-{number}" for call, number, _ in FAULTS])
async def test_a_failing_disk_is_said_survived_and_left(
    tmp_path: Path, call: str, number: int, reasons: set[str]
) -> None:
    with serving_on_faulty_disk(tmp_path) as (server, disk):
        await story(server, breaks=lambda: disk.fail(call, number), mend=disk.mend, reasons=reasons)


async def test_a_full_disk(tmp_path: Path) -> None:
    """A real one: a small file system in memory."""
    try:
        with memory_disk(tmp_path / "disk", 24) as folder, serving(folder) as server:
            ballast = folder / "ballast"

            def fill() -> None:
                free = os.statvfs(folder)
                with ballast.open("wb") as file:
                    file.write(bytes(free.f_bavail * free.f_bsize))

            await story(server, breaks=fill, mend=ballast.unlink, reasons={"DISK_FULL"})
    except NotHere as why:
        pytest.skip(f"no file system can be mounted here: {why}")


FAILING_SYNCS = 4


async def test_syncs_that_fail_now_and_then_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger()
    with serving_on_faulty_disk(tmp_path) as (server, disk):
        load = asyncio.create_task(Load(server.address, ledger).run())
        try:
            for _ in range(FAILING_SYNCS):
                events, instances = ledger.published, len(ledger.instances)
                await until(
                    lambda e=events, i=instances: (
                        load.done()  # type: ignore[misc]
                        or (ledger.published > e + 300 and len(ledger.instances) > i + 20)
                    )
                )
                assert not load.done(), load.exception()
                disk.fail("sync", errno.EIO)
                await asyncio.sleep(0.1)
                disk.mend()
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        assert await audit(server.address, ledger) == []
        assert "stream closed: its disk failed" in server.output.read_text(), "no sync failed in the middle of anything"
        server.kill()
        await asyncio.to_thread(server.start)
        assert await audit(server.address, ledger) == []
