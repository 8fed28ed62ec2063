"""The last good state of each view on disk, for a process that starts while the control plane is away.

A file: the line `trunkline view 1`, crc32c of the rest (4 bytes, little-endian), the time it was true (8 bytes,
nanoseconds since the epoch, little-endian), and a serialized trunkline.api.v1.WatchEvent of kind SNAPSHOT.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import google_crc32c
from google.protobuf.message import DecodeError

from trunkline.api import convert
from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.core.clock import Clock

from ._view import View

log = logging.getLogger("trunkline.client")

MAGIC = b"trunkline view 1\n"
HEAD_BYTES = len(MAGIC) + 4 + 8


class Store(Protocol):
    """Keeps named bytes."""

    async def load(self, name: str) -> bytes | None: ...
    async def save(self, name: str, data: bytes) -> None: ...


class FolderStore:
    """One file per name; a reader sees the old bytes or the new ones, after a power cut, too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._load, name)

    async def save(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._save, name, data)

    def _load(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def _save(self, name: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=name, suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


class ViewCache:
    """Writes views that changed, each at most once in `interval_s`; reads them at start-up."""

    def __init__(self, store: Store, clock: Clock, *, target: str, interval_s: float) -> None:
        self._store = store
        self._clock = clock
        self._target = target
        self._interval_s = interval_s
        self._changed: dict[str, View] = {}
        self._pending = asyncio.Event()

    def store(self, view: View) -> None:
        """Write it soon."""
        self._changed[self._name(view)] = view
        self._pending.set()

    async def restore(self, view: View) -> bool:
        """Fill the view with what was written; False when there is nothing, or nothing sound."""
        data = await self._store.load(self._name(view))
        if data is None or view.state.whole:
            return False
        found = unpacked(data)
        if found is None:
            log.warning("cache file ignored: damaged or of another format", extra={"service": view.service})
            return False
        time_ns, event = found
        instances = tuple(convert.registered_from(message) for message in event.upserted)
        age_ns = max(0, self._clock.time_ns() - time_ns)
        view.restore(instances, event.revision, event.resume_token, age_ns, event.policies)
        return True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._pending.wait()
            await self.flush()
            await asyncio.sleep(self._interval_s)

    async def flush(self) -> None:
        """Write what changed; a disk that fails is logged: the cache is a help, not a duty."""
        self._pending.clear()
        changed, self._changed = self._changed, {}
        for name, view in changed.items():
            try:
                await self._store.save(name, packed(view, self._clock.time_ns()))
            except OSError as error:
                log.warning("cache not written", extra={"service": view.service, "error": str(error)})

    def _name(self, view: View) -> str:
        scope = "\0".join((self._target, view.namespace, view.service, view.selector.canonical()))
        return f"{view.namespace}.{view.service or 'all'}.{hashlib.sha256(scope.encode()).hexdigest()[:16]}.view"


def packed(view: View, time_ns: int) -> bytes:
    """The file's bytes."""
    state = view.state
    event = WatchEvent(
        kind=WatchEvent.KIND_SNAPSHOT,
        revision=state.revision,
        resume_token=state.resume_token,
        complete=True,
        upserted=[convert.registered_to(instance) for instance in state.instances],
        policies=state.effective.values(),
    )
    rest = time_ns.to_bytes(8, "little") + event.SerializeToString()
    return MAGIC + _crc(rest) + rest


def unpacked(data: bytes) -> tuple[int, WatchEvent] | None:
    """Time and state, or None when the bytes are not whole or not of this format."""
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        return None
    crc, rest = data[len(MAGIC) : len(MAGIC) + 4], data[len(MAGIC) + 4 :]
    if _crc(rest) != crc:
        return None
    try:
        return int.from_bytes(rest[:8], "little"), WatchEvent.FromString(rest[8:])
    except DecodeError:
        return None


def _crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return crc.to_bytes(4, "little")
