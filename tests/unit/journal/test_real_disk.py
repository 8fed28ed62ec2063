"""The real disk: whole writes, clear errors, one owner of a folder; and the engine on it."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reference.journal_batches import events_batch
from trunkline.core.clock import Rng, SystemClock
from trunkline.core.errors import DiskFull, DiskReadOnly, JournalLocked, JournalTooNew, StreamClosed
from trunkline.core.model import Sync
from trunkline.server.journal.files.backup import backup, restore
from trunkline.server.journal.files.disk import disk_error
from trunkline.server.journal.files.real_disk import RealDisk
from trunkline.server.journal.files.segment_engine import SegmentEngine
from trunkline.server.journal.log import LogConfig


@pytest.fixture
async def disk() -> AsyncIterator[RealDisk]:
    disk = RealDisk()
    yield disk
    await disk.shutdown()


async def test_what_is_written_is_read(disk: RealDisk, tmp_path: Path) -> None:
    file = await disk.create(f"{tmp_path}/f")
    pieces = [b"0123456789", b"", b"abc", b"x" * 100]
    await disk.write(file, 5, pieces, sync=True)
    await disk.close(file)
    assert (tmp_path / "f").read_bytes() == bytes(5) + b"".join(pieces)
    assert await disk.read(f"{tmp_path}/f", 10, 10) == b"56789abcxx"
    assert await disk.read(f"{tmp_path}/f", 100, 1_000) == b"x" * 18
    assert await disk.size(f"{tmp_path}/f") == 118


async def test_a_full_disk_says_how_much_left(disk: RealDisk) -> None:
    file = await disk.open("/dev/full")
    with pytest.raises(DiskFull) as refusal:
        await disk.write(file, 0, [b"x"])
    assert refusal.value.fields["written"] == "0"
    assert isinstance(refusal.value.__cause__, OSError)
    await disk.close(file)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EROFS, DiskReadOnly), (errno.EIO, StreamClosed)],
)
def test_errors_have_names(code: int, kind: type[Exception]) -> None:
    error = disk_error(OSError(code, os.strerror(code)), "write", "/data/f", written=3)
    assert type(error) is kind
    assert error.fields == {"operation": "write", "path": "/data/f", "written": "3"}


async def test_a_failed_sync_is_told_from_a_failed_write(disk: RealDisk) -> None:
    file = await disk.open("/dev/null")
    with pytest.raises(StreamClosed) as refusal:
        await disk.write(file, 0, [b"x"], sync=True)
    assert (refusal.value.fields["operation"], refusal.value.fields["written"]) == ("sync", "1")
    await disk.close(file)


async def test_only_bytes_are_written(disk: RealDisk, tmp_path: Path) -> None:
    file = await disk.create(f"{tmp_path}/f")
    for wrong in (bytearray(b"x"), memoryview(b"x"), None, "x"):
        with pytest.raises(TypeError):
            await disk.write(file, 0, [b"good", wrong])  # type: ignore[list-item]
    await disk.write(file, 0, [b"good"])
    await disk.close(file)
    assert (tmp_path / "f").read_bytes() == b"good"


async def test_what_is_not_there_is_not_found(disk: RealDisk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await disk.read(f"{tmp_path}/none", 0, 1)
    with pytest.raises(FileNotFoundError):
        await disk.open_folder(f"{tmp_path}/none", create=False)
    await disk.open_folder(f"{tmp_path}/a/b/c", create=True)
    assert await disk.list(f"{tmp_path}/a/b") == ["c"]


async def test_a_second_process_is_told_who_holds_the_folder(disk: RealDisk, tmp_path: Path) -> None:
    lock = await disk.lock(f"{tmp_path}/lock")
    program = (
        "import asyncio, sys\n"
        "from trunkline.core.errors import JournalLocked\n"
        "from trunkline.server.journal.files.real_disk import RealDisk\n"
        "try:\n    asyncio.run(RealDisk().lock(sys.argv[1]))\n"
        "except JournalLocked as error:\n    sys.exit(error.message)\n"
    )
    command = [sys.executable, "-c", program, f"{tmp_path}/lock"]
    refused = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.stderr.strip() == f"{tmp_path} is in use by process {os.getpid()}: stop it, or choose another folder"
    with pytest.raises(JournalLocked):
        await disk.lock(f"{tmp_path}/lock")
    await lock.release()
    allowed = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, check=False)
    assert allowed.returncode == 0


async def test_a_journal_on_real_files(tmp_path: Path) -> None:
    folder = f"{tmp_path}/data"
    incarnation = 0
    for turn in range(3):
        engine = SegmentEngine(folder, RealDisk(), SystemClock(), Rng(turn))
        await engine.open()
        log = await engine.open_log("shop/events", LogConfig(sync=Sync.FSYNCED, segment_bytes=64 << 10))
        incarnation = incarnation or log.incarnation
        assert (log.incarnation, log.next_offset) == (incarnation, turn * 1_000)
        pendings = [log.append_nowait(events_batch(50, first=n), time_ns=n) for n in range(0, 1_000, 50)]
        await asyncio.gather(*[pending.future for pending in pendings])
        assert (await log.read(turn * 1_000, max_bytes=1))[0].base_offset == turn * 1_000
        await engine.close()
    disk = RealDisk()
    taken = await backup(disk, folder, f"{tmp_path}/backup", SystemClock())
    assert taken.streams == {"shop/events": 3_000}
    await restore(disk, f"{tmp_path}/backup", f"{tmp_path}/again", Rng(9))
    await disk.shutdown()
    restored = next((tmp_path / "again/streams/shop%2Fevents").glob("*.seg"))
    assert restored.stat().st_nlink == 1
    assert next((tmp_path / "backup/streams/shop%2Fevents").glob("*.seg")).stat().st_nlink == 2


async def test_a_newer_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"trunkline journal format 2 crc32c 00000000\n{}")
    engine = SegmentEngine(str(tmp_path), RealDisk(), SystemClock(), Rng(1))
    with pytest.raises(JournalTooNew, match=r"^[^\n]*journal has format 2; this program reads up to 1$"):
        await engine.open()
