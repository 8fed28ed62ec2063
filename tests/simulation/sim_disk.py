"""A disk in memory and in virtual time that does to unsynced data what real ones may do.

What a program sees is the page cache. What survives a power cut is what was synced, plus any part of the rest: every
512-byte sector of every unsynced write on its own, every name in a folder on its own. A sync that fails leaves the cache
as it is and forgets that it was dirty: the next sync succeeds and writes nothing of it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

from trunkline.core.clock import Rng
from trunkline.core.errors import JournalLocked
from trunkline.server.journal.files.disk import SYNC, WRITE, File, Lock, disk_error

SECTOR_BYTES = 512


@dataclass(slots=True, kw_only=True)
class DiskFaults:
    """What goes wrong. May be changed while the disk is in use. Chances are in 1,000."""

    sync_fails: int = 0
    """Chance that a file's sync fails with EIO."""
    write_fails: int = 0
    """Chance that a write fails with EIO after some of its bytes."""
    capacity_bytes: int | None = None
    """Writes beyond this fail with ENOSPC, after what still fitted."""
    read_only: bool = False
    """Every change fails with EROFS."""
    latency_ns: tuple[int, int] = (0, 0)
    """Each operation takes between so long and so long."""
    slow_sync_ns: int = 0
    """Syncs take this much longer."""


@dataclass(slots=True)
class _Change:
    """An unsynced write, or (with `data` None) a change of size."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
        else:
            content.extend(bytes(max(0, self.offset - len(content))))
            content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(slots=True, eq=False)
class _Inode:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: list[_Change] = field(default_factory=list)

    def change(self, change: _Change) -> None:
        change.apply(self.cached)
        self.dirty.append(change)


@dataclass(slots=True, eq=False)
class SimFile:
    path: str
    inode: _Inode
    open: bool = True


@dataclass(slots=True, eq=False)
class SimLock:
    disk: SimDisk
    path: str

    async def release(self) -> None:
        self.disk.locks.discard(self.path)


_Versions = list[bytes]
"""What a sector held, oldest first."""

_Entries = dict[str, "_Inode | None"]
"""Changes to a folder that belong together: names and what they mean from now on."""


class SimDisk:
    """Implements server.journal.files.disk.Disk. Deterministic for a seed and an order of calls."""

    def __init__(self, rng: Rng, faults: DiskFaults | None = None) -> None:
        self.faults = faults or DiskFaults()
        self.locks: set[str] = set()
        self.syncs = 0
        self.bytes_written = 0
        self.reached: set[str] = set()
        """Names of what went wrong so far: lets a test assert that a rare path was taken."""
        self._rng = rng
        self._folders: set[str] = {"/"}
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._unsynced_entries: dict[str, list[_Entries]] = {}

    # Operations.

    async def open_folder(self, path: str, *, create: bool) -> None:
        await self._pause()
        if path in self._folders:
            return
        if not create:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        self._refuse_if_read_only("open folder", path)
        while path not in self._folders:
            self._folders.add(path)
            path = _parent(path)

    async def list(self, path: str) -> list[str]:
        await self._pause()
        if path not in self._folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        entries = [*self._names, *self._folders]
        return sorted(name[len(path) + 1 :] for name in entries if name != path and _parent(name) == path)

    async def read(self, path: str, offset: int, size: int) -> bytes:
        await self._pause()
        return bytes(self._inode(path).cached[offset : offset + size])

    async def size(self, path: str) -> int:
        await self._pause()
        return len(self._inode(path).cached)

    async def create(self, path: str) -> File:
        await self._pause()
        self._refuse_if_read_only("create", path)
        if _parent(path) not in self._folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        inode = self._names.get(path)
        if inode is None:
            inode = _Inode()
            self._set({path: inode})
        else:
            inode.change(_Change(0, None))
        return SimFile(path, inode)

    async def open(self, path: str) -> File:
        await self._pause()
        return SimFile(path, self._inode(path))

    async def write(self, file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> None:
        inode, whole = _opened(file), b"".join(data)
        self._refuse_if_read_only(WRITE, file.path)
        taken, error = self._how_much(whole, inode, offset)
        # In two steps: whoever is stopped in between leaves a part.
        first = self._rng.below(taken + 1)
        self._put(inode, offset, whole[:first])
        await self._pause()
        self._put(inode, offset + first, whole[first:taken])
        if error:
            self.reached.add(errno.errorcode[error])
            raise disk_error(OSError(error, "simulated"), WRITE, file.path, written=taken)
        if sync:
            await self.sync(file)

    def _how_much(self, data: bytes, inode: _Inode, offset: int) -> tuple[int, int]:
        """How many of the bytes can be written, and the errno of what stops the rest."""
        if self._happens(self.faults.write_fails):
            return self._rng.below(len(data) + 1), errno.EIO
        if self.faults.capacity_bytes is not None:
            used = sum(len(other.cached) for other in self._names.values())
            free = max(0, self.faults.capacity_bytes - used) + max(0, len(inode.cached) - offset)
            if len(data) > free:
                return free, errno.ENOSPC
        return len(data), 0

    def _put(self, inode: _Inode, offset: int, data: bytes) -> None:
        if data:
            inode.change(_Change(offset, data))
            self.bytes_written += len(data)

    async def sync(self, file: File) -> None:
        inode = _opened(file)
        count = len(inode.dirty)
        await self._pause(self.faults.slow_sync_ns)
        self._refuse_if_read_only(SYNC, file.path)
        changes, inode.dirty = inode.dirty[:count], inode.dirty[count:]
        self.syncs += 1
        if self._happens(self.faults.sync_fails):
            self.reached.add("sync failed")
            inode.durable = self._survivors(inode.durable, changes)
            raise disk_error(OSError(errno.EIO, "simulated"), SYNC, file.path)
        for change in changes:
            change.apply(inode.durable)

    async def truncate(self, file: File, size: int) -> None:
        await self._pause()
        self._refuse_if_read_only("truncate", file.path)
        _opened(file).change(_Change(size, None))

    async def close(self, file: File) -> None:
        assert isinstance(file, SimFile)
        file.open = False

    async def rename(self, old: str, new: str) -> None:
        await self._pause()
        self._refuse_if_read_only("rename", new)
        self._set({old: None, new: self._inode(old)})

    async def link(self, old: str, new: str) -> bool:
        await self._pause()
        self._set({new: self._inode(old)})
        return True

    async def unlink(self, path: str) -> None:
        await self._pause()
        self._refuse_if_read_only("unlink", path)
        self._inode(path)
        self._set({path: None})

    async def remove_folder(self, path: str) -> None:
        await self._pause()
        assert not any(_parent(name) == path for name in self._names), f"{path} is not empty"
        self._folders.discard(path)
        # A folder cannot come back from a crash with nothing but its unsynced past in it.
        self._durable_names = {name: i for name, i in self._durable_names.items() if _parent(name) != path}
        self._unsynced_entries.pop(path, None)

    async def sync_folder(self, path: str) -> None:
        entries = self._unsynced_entries.get(path, [])
        count = len(entries)
        await self._pause(self.faults.slow_sync_ns)
        self._refuse_if_read_only(SYNC, path)
        self.syncs += 1
        for change in entries[:count]:
            _enter(self._durable_names, change)
        del entries[:count]

    async def lock(self, path: str) -> Lock:
        await self._pause()
        if path in self.locks:
            raise JournalLocked(f"{_parent(path)} is in use", folder=_parent(path), pid="1")
        self.locks.add(path)
        return SimLock(self, path)

    async def shutdown(self) -> None:
        """There are no threads."""

    # Accidents.

    def kill(self) -> None:
        """The process is gone, the machine goes on: the page cache stays. Stop the process's tasks before."""
        self.locks.clear()

    def cut_power(self) -> None:
        """The machine stops: of what was not synced, any part may be there afterwards."""
        self.locks.clear()
        for folder in sorted(self._unsynced_entries):
            for change in self._unsynced_entries[folder]:
                if self._rng.below(2):
                    _enter(self._durable_names, change)
        self._unsynced_entries.clear()
        seen: dict[int, None] = {}
        for name in sorted(self._durable_names):
            inode = self._durable_names[name]
            if id(inode) not in seen:
                seen[id(inode)] = None
                inode.durable = self._survivors(inode.durable, inode.dirty)
                inode.cached = bytearray(inode.durable)
                inode.dirty = []
        self._names = dict(self._durable_names)

    def flip(self, path: str, position: int, bit: int = 0) -> None:
        """Bit rot: on the disk and in the cache."""
        inode = self._inode(path)
        for content in (inode.cached, inode.durable):
            if position < len(content):
                content[position] ^= 1 << bit

    def content(self, path: str) -> bytes:
        """What a program would read."""
        return bytes(self._inode(path).cached)

    def paths(self) -> Sequence[str]:
        """Every file, sorted."""
        return sorted(self._names)

    def _survivors(self, durable: bytearray, changes: Sequence[_Change]) -> bytearray:
        """Content after a stop: of each sector, any of its versions; of the sizes, any that the file had. Often the last:
        a file system that writes sizes before data leaves holes in what looks whole."""
        mode = self._rng.below(4)
        if mode == 0 or not changes:
            return bytearray(durable)
        content, sizes = bytearray(durable), [len(durable)]
        versions: dict[int, _Versions] = {}
        for change in changes:
            change.apply(content)
            sizes.append(len(content))
            end = change.offset + len(change.data or b"")
            for sector in range(change.offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
                at = sector * SECTOR_BYTES
                old = versions.setdefault(sector, [bytes(durable[at : at + SECTOR_BYTES])])
                old.append(bytes(content[at : at + SECTOR_BYTES]))
        if mode == 1:
            return content
        survived = bytearray(durable)
        for sector, candidates in versions.items():
            kept = candidates[self._rng.below(len(candidates))]
            _Change(sector * SECTOR_BYTES, kept).apply(survived)
        _Change(sizes[-1] if mode == 2 else sizes[self._rng.below(len(sizes))], None).apply(survived)
        return survived

    # Helpers.

    async def _pause(self, longer_ns: int = 0) -> None:
        low, high = self.faults.latency_ns
        microseconds = (low + self._rng.below(high - low + 1) + longer_ns) // 1_000  # virtual time's resolution
        await asyncio.sleep(microseconds / 1e6)

    def _happens(self, chance: int) -> bool:
        return chance > 0 and self._rng.below(1_000) < chance

    def _refuse_if_read_only(self, operation: str, path: str) -> None:
        if self.faults.read_only:
            self.reached.add("EROFS")
            raise disk_error(OSError(errno.EROFS, "simulated"), operation, path)

    def _inode(self, path: str) -> _Inode:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._names[path]

    def _set(self, entries: _Entries) -> None:
        _enter(self._names, entries)
        self._unsynced_entries.setdefault(_parent(next(iter(entries))), []).append(entries)


def _enter(names: dict[str, _Inode], entries: _Entries) -> None:
    for path, inode in entries.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _opened(file: File) -> _Inode:
    assert isinstance(file, SimFile)
    assert file.open, f"{file.path} is closed"
    return file.inode


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
