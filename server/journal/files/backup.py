"""Backup of a journal, while it runs if need be, and restore into an empty folder.

A backup has the layout of a journal. Checkpoints are copied first, then events, control last, so that nothing in it points
behind what is in it. Sealed segments get a second name where the file system can do that, and are copied otherwise; of the
newest one, the whole blocks. The file `backup` is written last: without it a backup is not finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import InvalidArgument, JournalCorrupt, StreamClosed

from ..log import Incarnation
from . import small_file
from .disk import Disk
from .found_segments import find_segments, learn_sealed, split_dead
from .inspect import check
from .log_meta import load_meta, save_meta
from .scan_tail import scan_tail
from .segment import load_trailer
from .segment_engine import JOURNAL, LOCK, SNAPSHOTS, STREAMS, stream_folder, stream_of_folder
from .small_file import TEMPORARY_SUFFIX

MANIFEST = "backup"
CHECKPOINTS = "trunkline.subscriptions"
CONTROL = "trunkline.control"
ATTEMPTS = 20
"""How often retention or compaction may take a segment away from under the copying of one stream."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSummary:
    """What a backup holds, or what was restored."""

    folder: str
    journal_id: str
    time_ns: int
    """When it was taken, nanoseconds since the epoch."""
    streams: dict[str, int]
    """The offset behind the last record of each."""


async def backup(disk: Disk, source: str, target: str, clock: Clock) -> BackupSummary:
    """Copy the journal in `source` to the empty or absent folder `target`.

    InvalidArgument when there is something in `target`; JournalCorrupt when `source` is damaged or is no journal.
    """
    journal = await small_file.load(disk, source, JOURNAL)
    if journal is None:
        raise JournalCorrupt(f"{source} is no journal: it has no file '{JOURNAL}'", path=source)
    await _take_empty(disk, target)
    time_ns = clock.time_ns()
    copied: dict[str, _Copied | None] = {}
    for name in sorted(await _stream_names(disk, source), key=_order):
        if name == CONTROL:  # a snapshot must not be newer than the control records beside it
            await _copy_snapshots(disk, source, target)
        copied[name] = await _copy_stream(disk, stream_folder(source, name), stream_folder(target, name))
    await _copy_made_anew(disk, source, target, copied)
    streams = {name: found.end for name, found in copied.items() if found is not None}
    await small_file.save(disk, target, JOURNAL, journal)
    manifest = {"journal_id": journal["journal_id"], "time_ns": time_ns, "streams": streams}
    await small_file.save(disk, target, MANIFEST, manifest)
    return BackupSummary(folder=target, journal_id=journal["journal_id"], time_ns=time_ns, streams=streams)


def _order(name: str) -> tuple[int, str]:
    return (0 if name == CHECKPOINTS else 2 if name == CONTROL else 1), name


async def _take_empty(disk: Disk, folder: str) -> None:
    await disk.open_folder(folder, create=True)
    if await disk.list(folder):
        raise InvalidArgument.of("folder", "an empty folder, or none", folder)
    for part in (STREAMS, SNAPSHOTS):
        await disk.open_folder(f"{folder}/{part}", create=True)


class _Copied(NamedTuple):
    """A stream in the backup."""

    born: Incarnation
    """Its first: a stream that was deleted and made anew has another one."""
    end: int
    """The offset behind its last record."""


async def _stream_names(disk: Disk, source: str) -> list[str]:
    return [stream_of_folder(entry) for entry in await disk.list(f"{source}/{STREAMS}")]


async def _copy_made_anew(disk: Disk, source: str, target: str, copied: dict[str, _Copied | None]) -> None:
    """Control was copied last, and may know of streams that were made, or deleted and made anew, since theirs were."""
    for name in sorted(await _stream_names(disk, source)):
        meta = await load_meta(disk, stream_folder(source, name))
        if meta is None or meta.deleted:
            continue
        before = copied.get(name)
        if before is None or before.born != meta.incarnations[0]:
            copied[name] = await _copy_stream(disk, stream_folder(source, name), stream_folder(target, name))


async def _copy_stream(disk: Disk, source: str, target: str) -> _Copied | None:
    """Copy one stream; None if it is deleted."""
    await disk.open_folder(target, create=True)
    for _ in range(ATTEMPTS):
        for name in await disk.list(target):
            await disk.unlink(f"{target}/{name}")
        try:
            meta = await load_meta(disk, source)
            if meta is None or meta.deleted:
                return None
            end = await _copy_segments(disk, source, target)
            if await load_meta(disk, source) != meta:
                continue  # its history changed, or it was deleted and made anew: the segments may be of both
        except FileNotFoundError:
            continue  # retention or compaction was faster: look again at what is there
        await save_meta(disk, target, meta)
        return _Copied(meta.incarnations[0], end)
    raise StreamClosed(f"{source} changes faster than it can be copied", path=source)


async def _copy_segments(disk: Disk, source: str, target: str) -> int:
    segments, _ = split_dead(await find_segments(disk, source))
    if not segments:
        raise JournalCorrupt(f"{source}: the segments are gone", path=source)
    await learn_sealed(disk, segments)
    newest = segments[-1]
    await scan_tail(disk, newest, durable_end=newest.first_offset)
    for segment in segments[:-1]:
        path = f"{target}/{segment.path.rpartition('/')[2]}"
        sealed = await load_trailer(disk, segment.path, segment.id) is not None
        if not (sealed and await disk.link(segment.path, path)):
            await _copy(disk, segment.path, path, size=segment.size if not sealed else None)
    await _copy(disk, newest.path, f"{target}/{newest.path.rpartition('/')[2]}", size=newest.size)
    await disk.sync_folder(target)
    return newest.end_offset


async def _copy(disk: Disk, source: str, target: str, *, size: int | None = None) -> None:
    """Copy a file, or its first `size` bytes, and sync the copy."""
    end = await disk.size(source) if size is None else size
    file = await disk.create(target)
    try:
        for at in range(0, end, _CHUNK_BYTES):
            data = await disk.read(source, at, min(_CHUNK_BYTES, end - at))
            await disk.write(file, at, [data])
        await disk.sync(file)
    finally:
        await disk.close(file)


async def _copy_snapshots(disk: Disk, source: str, target: str) -> None:
    for name in await disk.list(f"{source}/{SNAPSHOTS}"):
        if not name.endswith(TEMPORARY_SUFFIX):
            try:
                await _copy(disk, f"{source}/{SNAPSHOTS}/{name}", f"{target}/{SNAPSHOTS}/{name}")
            except FileNotFoundError:
                continue  # pruned meanwhile; newer ones follow
    await disk.sync_folder(f"{target}/{SNAPSHOTS}")


async def restore(disk: Disk, source: str, target: str, rng: Rng) -> BackupSummary:
    """Make a journal in the empty or absent folder `target` of a backup. Every stream has a new incarnation.

    InvalidArgument when there is something in `target`; JournalCorrupt when the backup is not finished or is damaged.
    """
    manifest = await small_file.load(disk, source, MANIFEST)
    journal = await small_file.load(disk, source, JOURNAL)
    if manifest is None or journal is None:
        raise JournalCorrupt(f"{source} is no finished backup", path=source)
    report = await check(disk, source)
    problems = report.problems + [problem for stream in report.streams for problem in stream.problems]
    if problems:
        raise JournalCorrupt(f"the backup is damaged: {problems[0]}", path=source)
    await _take_empty(disk, target)
    lock = await disk.lock(f"{target}/{LOCK}")
    try:
        await _copy_snapshots(disk, source, target)
        for name in sorted(manifest["streams"]):
            await _restore_stream(disk, stream_folder(source, name), stream_folder(target, name), rng)
        # Last: a folder with streams and without this file is refused.
        await small_file.save(disk, target, JOURNAL, journal)
    finally:
        await lock.release()
    return _summary(target, manifest)


async def _restore_stream(disk: Disk, source: str, target: str, rng: Rng) -> None:
    await disk.open_folder(target, create=True)
    meta = await load_meta(disk, source)
    assert meta is not None, "check has read it"
    segments, _ = split_dead(await find_segments(disk, source))
    await scan_tail(disk, segments[-1], durable_end=segments[-1].first_offset)
    for segment in segments:
        # Never a second name: the restored journal goes on writing in the newest one.
        await _copy(disk, segment.path, f"{target}/{segment.path.rpartition('/')[2]}")
    await disk.sync_folder(target)
    await save_meta(disk, target, meta.with_incarnation(Incarnation(rng.u64(), segments[-1].end_offset)))


def _summary(folder: str, manifest: dict[str, Any]) -> BackupSummary:
    return BackupSummary(
        folder=folder,
        journal_id=manifest["journal_id"],
        time_ns=manifest["time_ns"],
        streams=manifest["streams"],
    )
