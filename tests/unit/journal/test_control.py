"""The control stream's life: what must happen although something else fails."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import DiskFull
from trunkline.core.model import Sync
from trunkline.server.journal.control import Control, ControlConfig
from trunkline.server.journal.fold import Folds
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
