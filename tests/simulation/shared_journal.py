"""One journal that several control planes write: a shared log behind a transport that delays, loses answers, and repeats.

The log orders what comes to it. Each control plane has its own way to it, on which an append takes its time, may be
answered by nothing although it was made, and may be made twice; and it hears of every block, in order, but later than
others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from simulation.chance import between, happens, rng_of
from simulation.virtual import NOBODY, Host

from trunkline.core.clock import Rng
from trunkline.core.errors import OutcomeUnknown
from trunkline.core.model import Sync
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.block import Block
from trunkline.server.journal.log import Appended, LogConfig
from trunkline.server.journal.memory import MemoryLog

CONTROL = "trunkline.control"


class SharedJournal:
    """The log, and the chance that its transport has."""

    def __init__(self, seed: int) -> None:
        self.rng: Rng = rng_of(seed, "transport")
        self.log = MemoryLog(CONTROL, LogConfig(sync=Sync.FSYNCED), incarnation=1)
        self.calm = False
        self.lost_answers = 0
        self.repeated = 0

    def delay_s(self) -> float:
        """Of one message."""
        return between(self.rng, 0.0005, 0.02 if self.calm or not happens(self.rng, 5) else 0.8)

    async def read_all(self) -> list[Block]:
        """Everything, in order."""
        blocks: list[Block] = []
        while found := await self.log.read(blocks[-1].end_offset if blocks else 0, max_bytes=1 << 20):
            blocks += found
        return blocks


class Way:
    """One control plane's log. What is not here is the shared log's own."""

    def __init__(self, journal: SharedJournal, host: Host) -> None:
        self.failed = None
        self._journal = journal
        self._host = host
        self._listeners: list[Callable[[Block], None]] = []
        self._told_at_s = 0.0
        self._end = journal.log.on_durable(self._made)
        host.on_kill.append(self._end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal.log, name)

    def on_durable(self, listener: Callable[[Block], None]) -> Callable[[], None]:
        """Call `listener` with every block, when it has come here."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _made(self, block: Block) -> None:
        loop = asyncio.get_running_loop()
        self._told_at_s = max(self._told_at_s + 1e-6, loop.time() + self._journal.delay_s())
        loop.call_at(self._told_at_s, self._tell, block, context=NOBODY)

    def _tell(self, block: Block) -> None:
        if self._host.alive:
            for listener in self._listeners:
                self._host.call(listener, block)

    async def append(self, batch: Batch, *, time_ns: int) -> Appended:
        """Append at the other end. OutcomeUnknown when no answer came."""
        journal = self._journal
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Appended] = loop.create_future()
        loop.call_later(journal.delay_s(), self._arrive, batch, time_ns, answer, context=NOBODY)
        if not journal.calm and happens(journal.rng, 4):
            journal.repeated += 1
            loop.call_later(journal.delay_s(), self._arrive, batch, time_ns, None, context=NOBODY)
        if not journal.calm and happens(journal.rng, 4):
            journal.lost_answers += 1
            await asyncio.sleep(journal.delay_s())
            raise OutcomeUnknown("no answer came")
        return await answer

    def _arrive(self, batch: Batch, time_ns: int, answer: asyncio.Future[Appended] | None) -> None:
        pending = self._journal.log.append_nowait(batch, time_ns=max(time_ns, self._journal.log.last_time_ns))
        if answer is not None:
            pending.future.add_done_callback(lambda done: self._answer(done.result(), answer), context=NOBODY)

    def _answer(self, appended: Appended, answer: asyncio.Future[Appended]) -> None:
        """The answer comes behind the block: a control plane's answers and blocks travel on one connection."""
        loop = asyncio.get_running_loop()
        self._told_at_s = max(self._told_at_s + 1e-6, loop.time() + self._journal.delay_s())
        loop.call_at(self._told_at_s, lambda: None if answer.done() else answer.set_result(appended), context=NOBODY)


class Share:
    """One control plane's engine: nothing but the shared control stream."""

    def __init__(self, journal: SharedJournal, host: Host, node_id: int) -> None:
        self.journal_id = "5" * 32
        self.node_id = node_id
        self._journal = journal
        self._host = host

    async def open_log(self, name: str, config: LogConfig) -> Any:
        """The way to the shared log."""
        assert name == CONTROL
        return Way(self._journal, self._host)

    async def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
        """There are none: every start folds the whole journal."""
        nothing: tuple[tuple[int, bytes], ...] = ()
        for snapshot in nothing:
            yield snapshot

    async def save_snapshot(self, revision: int, data: bytes) -> None:
        """None is kept."""

    async def prune_snapshots(self, *, before_time_ns: int) -> int | None:
        """There are none."""
        return None
