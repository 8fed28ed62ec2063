"""The machine's file system, through a bounded number of threads."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from trunkline.core.errors import JournalLocked

from .disk import SYNC, File, Lock, disk_error
from .disk_threads import DiskThreads
from .disk_writes import DiskWrites

WRITE_THREADS = 8
"""Streams that can sync at the same time."""
CHANGE_THREADS = 8
"""For all that is neither writing nor reading: they make, sync and remove files and folders."""
READ_THREADS = 4

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class RealFile:
    """An open file descriptor; -1 when closed."""

    path: str
    fd: int


@dataclass(slots=True, eq=False)
class RealLock:
    """flock on a file that holds its owner's process id. The file stays when the lock is released."""

    fd: int

    async def release(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class RealDisk:
    """Files. Threads start when they are first needed; `shutdown` lets them end.

    Reads have threads of their own, so that a slow sync does not hold them up.
    """

    def __init__(self) -> None:
        self._writes = DiskWrites(WRITE_THREADS, "journal-write")
        self._changes = DiskThreads(CHANGE_THREADS, "journal-change")
        self._readers = DiskThreads(READ_THREADS, "journal-read")

    async def _run(self, operation: str, path: str, work: Callable[[], T]) -> T:
        """Do it in a thread, to its end even if the caller is cancelled; see disk.py for what is raised."""
        try:
            return await self._changes.run(work)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise disk_error(error, operation, path) from error

    async def open_folder(self, path: str, *, create: bool) -> None:
        await self._run("open folder", path, partial(_open_folder, path, create))

    async def list(self, path: str) -> list[str]:
        return sorted(await self._run("list", path, partial(os.listdir, path)))

    async def read(self, path: str, offset: int, size: int) -> bytes:
        try:
            return await self._readers.run(partial(_read, path, offset, size))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise disk_error(error, "read", path) from error

    async def size(self, path: str) -> int:
        return await self._run("stat", path, lambda: os.stat(path).st_size)

    async def create(self, path: str) -> File:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return RealFile(path, await self._run("create", path, partial(os.open, path, flags, 0o640)))

    async def open(self, path: str) -> File:
        return RealFile(path, await self._run("open", path, partial(os.open, path, os.O_RDWR | os.O_CLOEXEC)))

    def write(self, file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> Awaitable[None]:
        return self._writes.write(_fd(file), file.path, offset, data, sync=sync)

    async def sync(self, file: File) -> None:
        await self._run(SYNC, file.path, partial(os.fdatasync, _fd(file)))

    async def truncate(self, file: File, size: int) -> None:
        await self._run("truncate", file.path, partial(os.ftruncate, _fd(file), size))

    async def close(self, file: File) -> None:
        assert isinstance(file, RealFile)
        fd, file.fd = file.fd, -1
        if fd >= 0:
            await self._run("close", file.path, partial(os.close, fd))

    async def rename(self, old: str, new: str) -> None:
        await self._run("rename", new, partial(os.rename, old, new))

    async def link(self, old: str, new: str) -> bool:
        return await self._run("link", new, partial(_link, old, new))

    async def unlink(self, path: str) -> None:
        await self._run("unlink", path, partial(os.unlink, path))

    async def remove_folder(self, path: str) -> None:
        await self._run("remove", path, partial(os.rmdir, path))

    async def sync_folder(self, path: str) -> None:
        await self._run(SYNC, path, partial(_sync_folder, path))

    async def lock(self, path: str) -> Lock:
        return RealLock(await self._run("lock", path, partial(_lock, path)))

    async def shutdown(self) -> None:
        self._writes.shutdown()
        self._changes.shutdown()
        self._readers.shutdown()


def _fd(file: File) -> int:
    assert isinstance(file, RealFile)
    assert file.fd >= 0, f"{file.path} is closed"
    return file.fd


def _open_folder(path: str, create: bool) -> None:
    if os.path.isdir(path):
        return
    if not create:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    parent = os.path.dirname(os.path.abspath(path))
    _open_folder(parent, create)
    os.mkdir(path, 0o750)
    _sync_folder(parent)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: str, offset: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, size, offset)
        if len(data) in (0, size):
            return data
        pieces = [data]
        while data := os.pread(fd, size - sum(map(len, pieces)), offset + sum(map(len, pieces))):
            pieces.append(data)
        return b"".join(pieces)
    finally:
        os.close(fd)


def _link(old: str, new: str) -> bool:
    """Hard links need one file system, and one that has them."""
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def _lock(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        folder = os.path.dirname(path)
        raise JournalLocked(
            f"{folder} is in use by process {owner}: stop it, or choose another folder", folder=folder, pid=owner
        ) from error
    except OSError:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
