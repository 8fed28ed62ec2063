"""What a stream's folder says of it beside its segments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trunkline.core.errors import JournalCorrupt
from trunkline.core.model import Sync

from ..log import Incarnation
from . import small_file
from .disk import Disk

META = "meta"
CLEAN = "clean"
INCARNATIONS_KEPT = 64
"""Positions of older incarnations are not known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMeta:
    """Kept in the file `meta`."""

    name: str
    sync: Sync
    incarnations: tuple[Incarnation, ...]
    deleted: bool = False

    def with_incarnation(self, incarnation: Incarnation) -> LogMeta:
        """The stream has another history from here on."""
        return replace(self, incarnations=(*self.incarnations, incarnation)[-INCARNATIONS_KEPT:])

    def as_deleted(self) -> LogMeta:
        """The stream is gone; so are its files, soon."""
        return replace(self, deleted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanMark:
    """Kept in the file `clean` while the log is closed: everything below `next_offset` is synced."""

    next_offset: int
    segment_id: int


async def save_meta(disk: Disk, folder: str, meta: LogMeta) -> None:
    """Replace the file."""
    content = {
        "name": meta.name,
        "sync": meta.sync.name,
        "incarnations": [[f"{i.id:016x}", i.first_offset] for i in meta.incarnations],
        "deleted": meta.deleted,
    }
    await small_file.save(disk, folder, META, content)


async def load_meta(disk: Disk, folder: str) -> LogMeta | None:
    """None if there is none."""
    content = await small_file.load(disk, folder, META)
    if content is None:
        return None
    try:
        return _meta(content)
    except (KeyError, TypeError, ValueError) as error:
        raise JournalCorrupt(f"{folder}/{META} does not say what it should: {error!r}", path=folder) from error


def _meta(content: dict[str, Any]) -> LogMeta:
    return LogMeta(
        name=content["name"],
        sync=Sync[content["sync"]],
        incarnations=tuple(Incarnation(int(i, 16), first) for i, first in content["incarnations"]),
        deleted=content["deleted"],
    )


async def save_mark(disk: Disk, folder: str, mark: CleanMark) -> None:
    """Say that the log was closed in good order."""
    await small_file.save(disk, folder, CLEAN, {"next_offset": mark.next_offset, "segment": mark.segment_id})


async def load_mark(disk: Disk, folder: str) -> CleanMark | None:
    """None if the log was not closed in good order."""
    content = await small_file.load(disk, folder, CLEAN)
    return None if content is None else CleanMark(next_offset=content["next_offset"], segment_id=content["segment"])


async def remove_mark(disk: Disk, folder: str) -> None:
    """From here on the log counts as open."""
    await disk.unlink(f"{folder}/{CLEAN}")
    await disk.sync_folder(folder)
