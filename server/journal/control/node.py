"""The control stream of one node: opened from snapshot and journal, written by the sequencer, snapshotted, recovered.

open()   newest readable snapshot -> folds, then the records behind it
run()    the sequencer, a snapshot from time to time, retention, and recovery when the disk has failed
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from trunkline.core.clock import Clock
from trunkline.core.errors import JournalCorrupt, JournalTooNew, TrunklineError
from trunkline.core.model import Sync

from ..engine import Engine
from ..log import Log, LogConfig, Retention
from .admission import Admission
from .fold import Folds
from .requests import RecentRequests
from .sequencer import Group, Sequencer
from .snapshot import decode, frames, restore

log = logging.getLogger(__name__)

CONTROL = "trunkline.control"
REPLAY_BYTES = 1 << 20
RECENT_BYTES_MAX = 1 << 20
"""Control records that are kept in memory although they are folded: for those who follow the stream and are a little late."""
SLICE_PIECES = 4
"""Pieces of a snapshot (about 1 ms each) that are encoded between two looks at the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """How control is kept."""

    history_retention_s: int = 7 * 86_400
    """How long control records are kept at least: what History can show."""
    snapshot_records: int = 25_000
    """A snapshot is taken after so many records ..."""
    snapshot_interval_s: int = 600
    """... or after so long, if there was a record."""
    recovery_backoff_s_max: float = 5.0
    """Longest pause between two attempts to recover the control stream after its disk failed."""


class Control:
    """The journal's control stream and the folds that it leads to."""

    def __init__(
        self,
        engine: Engine,
        folds: Folds,
        clock: Clock,
        config: ControlConfig,
        *,
        program_version: str,
        sync: Sync = Sync.FSYNCED,
    ) -> None:
        """`sync` is the most that the engine promises: an engine in memory has a control stream in memory."""
        self.engine = engine
        self.folds = folds
        self.config = config
        self._clock = clock
        self._program_version = program_version
        self._sync = sync
        self._log: Log | None = None
        self._sequencer: Sequencer | None = None
        self._snapshot_revision = -1
        self._snapshot_due = asyncio.Event()
        self.ready = asyncio.Event()

    @property
    def log(self) -> Log:
        """The control stream's log, once open."""
        assert self._log is not None, "not open"
        return self._log

    @property
    def sequencer(self) -> Sequencer:
        """The control stream's writer, once open."""
        assert self._sequencer is not None, "not open"
        return self._sequencer

    async def open(self) -> None:
        """Rebuild the folds. JournalCorrupt when neither snapshot nor journal leads to a whole state."""
        admission, requests = Admission(), RecentRequests()
        self._log = await self.engine.open_log(CONTROL, LogConfig(sync=self._sync, recent_bytes_max=RECENT_BYTES_MAX))
        self._snapshot_revision = await self._load_snapshot(admission, requests)
        if self._snapshot_revision + 1 < self._log.first_offset:
            raise JournalCorrupt(
                f"control records {self._snapshot_revision + 1} to {self._log.first_offset - 1} are neither in a "
                "snapshot nor in the journal"
            )
        self._sequencer = Sequencer(
            self.folds,
            self._log,
            self._clock,
            node_id=self.engine.node_id,
            program_version=self._program_version,
            admission=admission,
            requests=requests,
            revision=self._snapshot_revision,
        )
        await self._replay()
        self._log.on_durable(self._sequencer.fold_block)
        self._sequencer.on_group(self._count)

    async def _load_snapshot(self, admission: Admission, requests: RecentRequests) -> int:
        """Fold the newest snapshot that can be read; -1 when there is none."""
        async for revision, data in self.engine.load_snapshots():
            try:
                snapshot = decode(data)
                restore(snapshot, self.folds, admission, requests)
            except (JournalCorrupt, JournalTooNew) as error:
                log.warning("snapshot unreadable", extra={"revision": revision, "error": error.message})
                continue
            return snapshot.revision
        return -1

    async def _replay(self) -> None:
        """Fold what lies behind the last folded revision."""
        sequencer = self.sequencer
        while True:
            blocks = await self.log.read(sequencer.revision + 1, max_bytes=REPLAY_BYTES)
            if not blocks:
                return
            for block in blocks:
                sequencer.fold_block(block)
                await asyncio.sleep(0)

    def _count(self, group: Group) -> None:
        if group.revision - self._snapshot_revision >= self.config.snapshot_records:
            self._snapshot_due.set()

    async def run(self) -> None:
        """Fence older epochs, then keep everything going until cancelled. `ready` is set when writes are taken."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.sequencer.run(), name="sequencer")
            tasks.create_task(self._recover_forever(), name="control recovery")
            tasks.create_task(self._end_when_broken(), name="control faults")
            await self.sequencer.start()
            self.ready.set()
            tasks.create_task(self._snapshot_forever(), name="snapshots")

    async def _end_when_broken(self) -> None:
        """A half-folded group must not be served: end the process, whose next start folds from the journal."""
        error = await asyncio.shield(self.sequencer.broken)
        raise RuntimeError("a control record could not be folded") from error

    async def close(self) -> None:
        """Take a last snapshot, so that the next start has little to replay. After `run` was cancelled."""
        if self._sequencer is None or self._sequencer.broken.done():
            return
        if self._log is not None and self._log.failed is None:
            try:
                await self.snapshot()
            except TrunklineError as error:  # the journal has all of it, and has still to be closed
                log.warning("last snapshot not written", extra={"reason": error.code, "error": error.message})

    # Snapshots.

    async def snapshot(self) -> None:
        """Write a snapshot of the present revision unless there is one."""
        sequencer = self.sequencer
        revision = sequencer.revision
        if revision <= self._snapshot_revision:
            return
        encoding = frames(revision, sequencer.time_ns, self.folds, sequencer.admission, sequencer.requests)
        data = b"".join(await _in_slices(encoding))
        await self.engine.save_snapshot(revision, data)
        self._snapshot_revision = revision
        log.info("snapshot written", extra={"revision": revision, "bytes": len(data)})

    async def _snapshot_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.config.snapshot_interval_s):
                    await self._snapshot_due.wait()
            except TimeoutError:
                pass
            try:
                await self.snapshot()
                await self._trim()
            except TrunklineError as error:
                log.warning("snapshot not written", extra={"reason": error.code, "error": error.message})
                await asyncio.sleep(self.config.recovery_backoff_s_max)
            # Not before: while one is encoded it is due by what it will hold.
            self._snapshot_due.clear()

    async def _trim(self) -> None:
        """Let control records go that are old enough and that a snapshot stands for."""
        oldest = await self.engine.prune_snapshots(
            before_time_ns=self._clock.time_ns() - self.config.history_retention_s * 1_000_000_000
        )
        if oldest is not None:
            await self.log.trim(Retention(max_offset=oldest + 1), now_ns=self._clock.time_ns())

    # Recovery.

    async def _recover_forever(self) -> None:
        """When the control stream's disk has failed, reopen it and go on from what is durable."""
        while True:
            await self.sequencer.failed.wait()
            pause_s = 0.1
            while True:
                try:
                    await self.log.recover()
                    break
                except TrunklineError as error:
                    log.warning("control stream not recovered", extra={"reason": error.code, "error": error.message})
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self.config.recovery_backoff_s_max)
            await self._replay()
            self.sequencer.recovered()
            log.info("control stream recovered", extra={"revision": self.sequencer.revision})


async def _in_slices(pieces: Iterator[bytes]) -> list[bytes]:
    """Collect an iterator without holding the loop."""
    collected: list[bytes] = []
    for number, piece in enumerate(pieces, 1):
        collected.append(piece)
        if number % SLICE_PIECES == 0:
            await asyncio.sleep(0)
    return collected
