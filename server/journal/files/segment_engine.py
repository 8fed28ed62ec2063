"""The embedded engine: a folder of segment files.

    journal            id of the journal and of the node; its first line has the format
    lock               held by the process that has the folder open
    streams/<name>/    one folder per stream ('/' in a name is written %2F): meta, clean, *.seg
    snapshots/         see snapshot_files.py

MEMORY streams have no folder: they live in the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from urllib.parse import quote, unquote

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import JournalCorrupt, NotReady, TrunklineError
from trunkline.core.model import Sync

from ..engine import check_log_name
from ..log import Log, LogConfig
from ..memory import MemoryLog
from . import small_file
from .disk import Disk, Lock
from .log_meta import META, load_meta, save_meta
from .recovery import open_files
from .segment_log import SegmentLog
from .snapshot_files import SnapshotFiles

log = logging.getLogger(__name__)

JOURNAL = "journal"
LOCK = "lock"
STREAMS = "streams"
SNAPSHOTS = "snapshots"


def stream_folder(folder: str, name: str) -> str:
    """Where a stream's files lie."""
    return f"{folder}/{STREAMS}/{quote(name, safe='')}"


def stream_of_folder(entry: str) -> str:
    """The stream whose files lie in a folder of this name."""
    return unquote(entry)


class SegmentEngine:
    """One journal in one folder. `open` before anything else."""

    def __init__(self, folder: str, disk: Disk, clock: Clock, rng: Rng) -> None:
        self.folder = folder
        self.journal_id = ""
        self.node_id = 0
        self._disk = disk
        self._clock = clock
        self._rng = rng
        self._lock: Lock | None = None
        self._logs: dict[str, SegmentLog | MemoryLog] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._snapshots = SnapshotFiles(disk, f"{folder}/{SNAPSHOTS}")

    async def open(self) -> None:
        """Take the folder, making it if it is not there. JournalLocked, JournalTooNew, JournalCorrupt, DiskFull, ..."""
        await self._disk.open_folder(self.folder, create=True)
        self._lock = await self._disk.lock(f"{self.folder}/{LOCK}")
        try:
            await self._identify()
            await self._disk.open_folder(f"{self.folder}/{STREAMS}", create=True)
            await self._snapshots.open()
        except BaseException:
            await self._lock.release()
            raise

    async def _identify(self) -> None:
        content = await small_file.load(self._disk, self.folder, JOURNAL)
        if content is None:
            if STREAMS in await self._disk.list(self.folder):
                raise JournalCorrupt(
                    f"{self.folder} has streams and no file '{JOURNAL}': a restore that was not finished?",
                    path=self.folder,
                )
            journal_id = f"{self._rng.u64():016x}{self._rng.u64():016x}"
            content = {"journal_id": journal_id, "node_id": f"{self._rng.u64():016x}"}
            await small_file.save(self._disk, self.folder, JOURNAL, content)
        self.journal_id = content["journal_id"]
        self.node_id = int(content["node_id"], 16)

    async def open_log(self, name: str, config: LogConfig) -> Log:
        check_log_name(name)
        async with self._one_at_a_time(name):
            found = self._logs.get(name)
            if found is None:
                found = self._logs[name] = await self._open(name, config)
            return found

    async def _open(self, name: str, config: LogConfig) -> SegmentLog | MemoryLog:
        if self._lock is None:
            raise NotReady("the journal is not open")
        if config.sync is Sync.MEMORY:
            return MemoryLog(name, config, incarnation=self._rng.u64())
        folder = stream_folder(self.folder, name)
        opened = await open_files(self._disk, folder, name, config.sync, self._rng)
        return SegmentLog(name, config, opened, disk=self._disk, folder=folder, rng=self._rng)

    def _one_at_a_time(self, name: str) -> asyncio.Lock:
        return self._busy.setdefault(name, asyncio.Lock())

    async def delete_log(self, name: str) -> None:
        check_log_name(name)
        async with self._one_at_a_time(name):
            found = self._logs.pop(name, None)
            if found is not None:
                await found.abandon()
            await self._delete_files(stream_folder(self.folder, name))

    async def _delete_files(self, folder: str) -> None:
        """Say durably that the stream is deleted, then remove its files; `list_logs` finishes what a crash leaves."""
        try:
            meta = await load_meta(self._disk, folder)
            if meta is not None:
                await save_meta(self._disk, folder, meta.as_deleted())
            names = await self._disk.list(folder)
        except FileNotFoundError:
            return
        for entry in names:
            if entry != META:
                await self._disk.unlink(f"{folder}/{entry}")
        await self._disk.sync_folder(folder)  # segments without a meta file would look like damage
        if META in names:
            await self._disk.unlink(f"{folder}/{META}")
        await self._disk.remove_folder(folder)
        await self._disk.sync_folder(f"{self.folder}/{STREAMS}")

    async def list_logs(self) -> list[str]:
        names = set(self._logs)
        for entry in await self._disk.list(f"{self.folder}/{STREAMS}"):
            meta = await load_meta(self._disk, f"{self.folder}/{STREAMS}/{entry}")
            name = stream_of_folder(entry)
            if meta is not None and meta.deleted and name not in self._logs:
                await self.delete_log(name)
            elif meta is not None:
                names.add(name)
        return sorted(names)

    async def save_snapshot(self, revision: int, data: bytes) -> None:
        await self._snapshots.save(revision, self._clock.time_ns(), data)

    def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
        return self._snapshots.load()

    async def prune_snapshots(self, *, before_time_ns: int) -> int | None:
        return await self._snapshots.prune(before_time_ns)

    async def close(self) -> None:
        """Close every log, even if one of them fails, and let the folder go."""
        logs, self._logs = self._logs, {}
        for name, found in logs.items():
            try:
                await found.close()
            except TrunklineError as error:
                log.error("stream not closed cleanly", extra={"stream": name, "error": error.message})
        lock, self._lock = self._lock, None
        if lock is not None:
            await lock.release()
        await self._disk.shutdown()
