"""What compaction has done to a stream, kept in the file `compaction` of its folder."""

from __future__ import annotations

from typing import Any

from trunkline.core.errors import JournalCorrupt

from ..key_compaction import CompactionRecord
from . import small_file
from .disk import Disk

COMPACTION = "compaction"


async def save_record(disk: Disk, folder: str, born: int, record: CompactionRecord) -> None:
    """Replace the file; `born` is the stream's first incarnation, which tells it from another of its name."""
    content = {
        "born": f"{born:016x}",
        "runs": record.runs,
        "time_ns": record.time_ns,
        "took_ns": record.took_ns,
        "removed": record.removed,
        "saved_bytes": record.saved_bytes,
        "first_tombstone": record.first_tombstone,
        "passes": record.passes,
    }
    await small_file.save(disk, folder, COMPACTION, content)


async def load_record(disk: Disk, folder: str, born: int) -> CompactionRecord:
    """What the file says; nothing if there is none, as after a restore: then tombstones wait anew.

    JournalCorrupt, JournalTooNew.
    """
    content = await small_file.load(disk, folder, COMPACTION)
    if content is None:
        return CompactionRecord()
    try:
        return _record(content) if int(content["born"], 16) == born else CompactionRecord()
    except (KeyError, TypeError, ValueError) as error:
        raise JournalCorrupt(f"{folder}/{COMPACTION} does not say what it should: {error!r}", path=folder) from error


def _record(content: dict[str, Any]) -> CompactionRecord:
    return CompactionRecord(
        runs=content["runs"],
        time_ns=content["time_ns"],
        took_ns=content["took_ns"],
        removed=content["removed"],
        saved_bytes=content["saved_bytes"],
        first_tombstone=content["first_tombstone"],
        passes=tuple((time_ns, end) for time_ns, end in content["passes"]),
    )
