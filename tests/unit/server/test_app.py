"""A server from start to stop; what ends it is what `App.run` raises, so that the command line says it in one line."""

from __future__ import annotations

import asyncio
import signal

import pytest

from trunkline.core.errors import DiskFull
from trunkline.server.app import App, ServerConfig
from trunkline.server.journal.control.node import Control


@pytest.mark.parametrize("ready", [False, True], ids=["while starting", "while serving"])
async def test_the_reason_is_raised_alone(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run, announced = Control.run, asyncio.Event()

    async def ends(self: Control) -> None:
        if ready:
            running = asyncio.ensure_future(run(self))
            await announced.wait()
            running.cancel()
            await asyncio.wait([running])
        raise DiskFull("no space left")

    monkeypatch.setattr(Control, "run", ends)
    app = App(ServerConfig(listen="127.0.0.1:0", http_listen="", engine="memory"))
    async with asyncio.timeout(20):
        with pytest.raises(DiskFull, match="no space left"):
            await app.run(lambda _: announced.set())


async def test_a_server_that_keeps_nothing_on_disk_starts_serves_and_stops() -> None:
    announced = asyncio.Event()
    app = App(ServerConfig(listen="127.0.0.1:0", http_listen="", engine="memory"))
    running = asyncio.ensure_future(app.run(lambda _: announced.set()))
    async with asyncio.timeout(20):
        await announced.wait()
        signal.raise_signal(signal.SIGTERM)
        await running
