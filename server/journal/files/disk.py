"""All file I/O of the journal, as one object, so that the simulator can put a faulty one in its place.

Failures are TrunklineError leaves, except that what is not there raises FileNotFoundError:
DiskFull (ENOSPC, EDQUOT), DiskReadOnly (EROFS), StreamClosed with the OSError as its cause (EIO and the rest).
`fields["operation"]` says what failed; of "write", `fields["written"]` says how many bytes may have left.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Sequence
from typing import Protocol

from trunkline.core.errors import DiskFull, DiskReadOnly, StreamClosed, TrunklineError

SYNC = "sync"
WRITE = "write"


class File(Protocol):
    """An open file. It stays the same file when its name changes."""

    @property
    def path(self) -> str: ...


class Lock(Protocol):
    """A folder that no other process may open."""

    async def release(self) -> None: ...


class Disk(Protocol):
    """A file system. Sizes and offsets are bytes."""

    async def open_folder(self, path: str, *, create: bool) -> None:
        """Check that the folder is there; with `create`, make it and what is above it, durably."""

    async def list(self, path: str) -> list[str]:
        """Names in a folder, sorted."""

    async def read(self, path: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""

    async def size(self, path: str) -> int: ...

    async def create(self, path: str) -> File:
        """A new, empty file for writing; one of that name is emptied."""

    async def open(self, path: str) -> File:
        """A file that is there, for writing."""

    def write(self, file: File, offset: int, data: Sequence[bytes], *, sync: bool = False) -> Awaitable[None]:
        """Write all of it; with `sync`, it is done when it is synced. It may begin before it is awaited."""

    async def sync(self, file: File) -> None: ...

    async def truncate(self, file: File, size: int) -> None: ...

    async def close(self, file: File) -> None: ...

    async def rename(self, old: str, new: str) -> None:
        """Put a file in the place of another; durable after sync_folder."""

    async def link(self, old: str, new: str) -> bool:
        """Give a file a second name; False when this cannot be done there."""

    async def unlink(self, path: str) -> None: ...

    async def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""

    async def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""

    async def lock(self, path: str) -> Lock:
        """Take a lock file in a folder; JournalLocked when another process holds it."""

    async def shutdown(self) -> None:
        """Let go of threads and cached handles."""


def disk_error(error: OSError, operation: str, path: str, *, written: int = 0) -> TrunklineError:
    """What an OSError means for the journal."""
    kind: type[TrunklineError] = StreamClosed
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = DiskFull
    elif error.errno == errno.EROFS:
        kind = DiskReadOnly
    message = f"{operation} of {path} failed: {error.strerror or error}"
    refusal = kind(message, operation=operation, path=path, written=str(written))
    refusal.__cause__ = error
    return refusal
