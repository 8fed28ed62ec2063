"""A process that appends is killed, again and again: what it had acknowledged is found by the next."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from trunkline.core.clock import Rng, SystemClock
from trunkline.core.model import Sync
from trunkline.server.journal.files.real_disk import RealDisk
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import LogConfig

ROUNDS = 4
ACKNOWLEDGED_PER_ROUND = 300


async def write_until_killed(folder: str) -> None:
    """Append single events forever, each saying its number; print each number once it is acknowledged."""
    from reference.journal_batches import events_batch

    engine = SegmentEngine(folder, RealDisk(), SystemClock(), Rng(os.getpid()))
    await engine.open()
    config = LogConfig(sync=Sync.FSYNCED, segment_bytes=64 << 10)
    log = await engine.open_log("shop/events", config)

    async def append(number: int) -> None:
        appended = await log.append(events_batch(1, first=number), time_ns=number)
        sys.stdout.write(f"{appended.offset} {number}\n")
        sys.stdout.flush()

    number = log.next_offset * 1_000
    while True:
        await asyncio.gather(*[append(number + n) for n in range(8)])
        number += 8


async def kill_in_the_middle(folder: str) -> dict[int, int]:
    """Offset to number of what was acknowledged before the kill."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, folder, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    acknowledged: dict[int, int] = {}
    try:
        async with asyncio.timeout(60):
            while len(acknowledged) < ACKNOWLEDGED_PER_ROUND:
                offset, number = (await process.stdout.readline()).split()
                acknowledged[int(offset)] = int(number)
    finally:
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        await process.wait()
    for line in rest.splitlines(keepends=True):
        if line.endswith(b"\n"):
            offset, number = line.split()
            acknowledged[int(offset)] = int(number)
    return acknowledged


async def test_everything_acknowledged_is_found_after_each_kill(tmp_path: Path) -> None:
    acknowledged: dict[int, int] = {}
    for _ in range(ROUNDS):
        acknowledged |= await kill_in_the_middle(str(tmp_path))
        engine = SegmentEngine(str(tmp_path), RealDisk(), SystemClock(), Rng(1))
        await engine.open()
        log = await engine.open_log("shop/events", LogConfig(sync=Sync.FSYNCED, segment_bytes=64 << 10))
        found = {}
        at = 0
        while blocks := await log.read(at, max_bytes=1 << 20):
            for block in blocks:
                for index in range(block.count):
                    found[block.base_offset + index] = int(bytes(block.body(index)[:20]))
            at = blocks[-1].end_offset
        assert at == log.next_offset
        lost = {offset: number for offset, number in acknowledged.items() if found.get(offset) != number}
        assert not lost
        acknowledged = found
        await engine.close()
    assert len(acknowledged) >= ROUNDS * ACKNOWLEDGED_PER_ROUND


if __name__ == "__main__":
    asyncio.run(write_until_killed(sys.argv[1]))
