"""The control stream's life: what must happen although something else fails."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import DiskFull
from trunkline.core.model import Sync
from trunkline.core.records import Change
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.journal.memory import MemoryEngine


async def test_a_last_snapshot_that_cannot_be_written_keeps_nobody_from_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = MemoryEngine(ManualClock(), Rng(1), offers=Sync.FSYNCED)

    async def full(revision: int, data: bytes) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(engine, "save_snapshot", full)
    control = Control(engine, Folds([]), ManualClock(), ControlConfig(), program_version="test")
    await control.open()
    running = asyncio.ensure_future(control.run())
    await control.ready.wait()
    running.cancel()
    await asyncio.wait([running])
    await control.close()
    assert "last snapshot not written" in caplog.text


async def test_a_record_that_cannot_be_folded_ends_the_control_plane() -> None:
    """Serving from a half-folded group would be worse than not serving."""
    engine = MemoryEngine(ManualClock(), Rng(1), offers=Sync.FSYNCED)
    control = Control(engine, Folds([]), ManualClock(), ControlConfig(), program_version="test")
    await control.open()
    running = asyncio.ensure_future(control.run())
    await control.ready.wait()

    def fail(_group: object) -> None:
        raise ZeroDivisionError

    control.sequencer.on_group(fail)
    change = Change(topic="value.set", key="value/a", body=b"1")
    write = asyncio.ensure_future(control.sequencer.write(lambda _: [change], Origin(author="test")))
    done, _ = await asyncio.wait([running], timeout=10)
    assert done, "goes on although nobody knows its state"
    with pytest.raises(ExceptionGroup, match="unhandled errors") as ended:
        await running
    assert "could not be folded" in str(ended.value.exceptions[0])
    write.cancel()
    await asyncio.wait([write])
    before = [revision async for revision, _ in engine.load_snapshots()]
    await control.close()
    assert [revision async for revision, _ in engine.load_snapshots()] == before, "half a group in a snapshot"


async def test_what_is_written_while_a_snapshot_is_makes_no_second_one_due(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine(ManualClock(), Rng(1), offers=Sync.FSYNCED)
    saved: list[int] = []
    is_saving, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(revision: int, data: bytes) -> None:
        is_saving.set()
        await may_go_on.wait()
        saved.append(revision)

    monkeypatch.setattr(engine, "save_snapshot", slow)
    control = Control(engine, Folds([]), ManualClock(), ControlConfig(snapshot_records=10), program_version="test")
    await control.open()
    running = asyncio.ensure_future(control.run())
    await control.ready.wait()

    async def write(count: int) -> None:
        for number in range(count):
            change = Change(topic="value.set", key=f"value/{number}", body=b"1")
            await control.sequencer.write(lambda _, change=change: [change], Origin(author="test"))  # type: ignore[misc]

    await write(10)
    await is_saving.wait()
    await write(5)
    may_go_on.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(saved) == 1, saved
    await write(10)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(saved) == 2, "the next is due as soon as there are enough records since"
    running.cancel()
    await asyncio.wait([running])
