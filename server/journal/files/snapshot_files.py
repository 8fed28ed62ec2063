"""Snapshots as files: written beside, synced, renamed, the folder synced. What is in them is the caller's.

"TLSF", format u32, revision u64, time u64 (nanoseconds since the epoch), size of the data u64, its crc32c u32,
crc32c of the 36 bytes before u32; then the data. All little-endian.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from collections.abc import AsyncIterator

import google_crc32c

from trunkline.core.errors import JournalCorrupt, JournalTooNew

from ..engine import superfluous_snapshots
from .disk import Disk
from .small_file import TEMPORARY_SUFFIX

log = logging.getLogger(__name__)

FORMAT = 1
_MAGIC = b"TLSF"
_HEAD = struct.Struct("<4sIQQQI")
_CRC = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _CRC.size
_NAME = re.compile(r"(\d{20})-(\d{20})\.snapshot")
_SLICE_BYTES = 4 << 20
"""Checksummed between two turns of the loop: about 1 ms."""


class SnapshotFiles:
    """The folder of snapshots. Names say revision and time, so that pruning reads none."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder

    async def open(self) -> None:
        """Make the folder, and sweep away what was not finished."""
        await self._disk.open_folder(self._folder, create=True)
        for name in await self._disk.list(self._folder):
            if name.endswith(TEMPORARY_SUFFIX):
                await self._disk.unlink(f"{self._folder}/{name}")

    async def save(self, revision: int, time_ns: int, data: bytes) -> None:
        """Keep a snapshot durably."""
        head = _HEAD.pack(_MAGIC, FORMAT, revision, time_ns, len(data), await _checksum(data))
        path = f"{self._folder}/{revision:020d}-{time_ns:020d}.snapshot"
        file = await self._disk.create(path + TEMPORARY_SUFFIX)
        try:
            await self._disk.write(file, 0, [head, _CRC.pack(google_crc32c.value(head)), data], sync=True)
        finally:
            await self._disk.close(file)
        await self._disk.rename(path + TEMPORARY_SUFFIX, path)
        await self._disk.sync_folder(self._folder)

    async def load(self) -> AsyncIterator[tuple[int, bytes]]:
        """(revision, data), newest first. A damaged one is logged and left out: an older one and more records do."""
        for revision, time_ns in reversed(await self.listed()):
            path = self._path(revision, time_ns)
            try:
                data = await self._read(path, revision)
            except (JournalCorrupt, JournalTooNew) as error:
                log.warning("snapshot left out", extra={"revision": revision, "error": error.message})
            else:
                yield revision, data

    async def _read(self, path: str, revision: int) -> bytes:
        whole = await self._disk.read(path, 0, await self._disk.size(path))
        head, data = whole[: _HEAD.size], whole[_HEAD_BYTES:]
        if len(whole) < _HEAD_BYTES or _CRC.unpack_from(whole, _HEAD.size)[0] != google_crc32c.value(head):
            raise JournalCorrupt(f"{path} does not begin as a snapshot does", path=path)
        magic, version, found, _, size, crc = _HEAD.unpack(head)
        if version > FORMAT:
            raise JournalTooNew(f"{path} has format {version}; this program reads up to {FORMAT}", path=path)
        if (magic, found, size) != (_MAGIC, revision, len(data)) or await _checksum(data) != crc:
            raise JournalCorrupt(f"{path} is damaged", path=path)
        return data

    async def prune(self, before_time_ns: int) -> int | None:
        """See Engine.prune_snapshots."""
        listed = await self.listed()
        superfluous, base = superfluous_snapshots(listed, before_time_ns)
        for revision, time_ns in listed:
            if revision in superfluous:
                await self._disk.unlink(self._path(revision, time_ns))
        return base

    async def listed(self) -> list[tuple[int, int]]:
        """(revision, time) of every snapshot, oldest first."""
        matches = [_NAME.fullmatch(name) for name in await self._disk.list(self._folder)]
        return sorted((int(match[1]), int(match[2])) for match in matches if match is not None)

    def _path(self, revision: int, time_ns: int) -> str:
        return f"{self._folder}/{revision:020d}-{time_ns:020d}.snapshot"


async def _checksum(data: bytes) -> int:
    """crc32c in slices: a snapshot may be large."""
    crc = 0
    for at in range(0, len(data), _SLICE_BYTES):
        crc = google_crc32c.extend(crc, data[at : at + _SLICE_BYTES])
        await asyncio.sleep(0)
    return crc
