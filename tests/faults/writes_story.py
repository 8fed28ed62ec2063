"""Run with a faulty disk below it: what RealDisk's writes do when the system takes parts, fails, or is slow. Says nothing when
all is as it should be."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
import threading
from pathlib import Path

import pytest

from trunkline.core.errors import DiskFull, StreamClosed
from trunkline.server.journal.files.disk_writes import DiskWrites
from trunkline.server.journal.files.real_disk import RealDisk

DATA = Path(os.environ.get("FAULTY_FOLDER", ""))
WORD = Path(os.environ.get("FAULTY_WORD", ""))


def say(*faults: str) -> None:
    """What the system does from now on."""
    WORD.write_text("".join(f"{fault}\n" for fault in faults))


async def parts_are_gone_on_with(disk: RealDisk) -> None:
    """Pieces that are empty, longer than what is taken, and more than one call takes."""
    say("short 7")
    for name, pieces in {
        "few": [b"", b"0123456789", b"", b"abc", b"1234567", b"x" * 100, b""],
        "many": [b"%d," % number for number in range(3_000)],
        "none": [b"", b""],
    }.items():
        file = await disk.create(f"{DATA}/{name}")
        await disk.write(file, 5, pieces, sync=True)
        await disk.close(file)
        whole = b"".join(pieces)
        assert (DATA / name).read_bytes() == (bytes(5) + whole if whole else b""), name
    say()
    file = await disk.create(f"{DATA}/whole")
    await disk.write(file, 0, [b"%d," % number for number in range(3_000)])
    assert (DATA / "whole").read_bytes() == (DATA / "many").read_bytes()[5:], "more than one call takes"


async def failures_say_what_and_how_much(disk: RealDisk) -> None:
    file = await disk.create(f"{DATA}/f")
    say(f"write {errno.ENOSPC}")
    with pytest.raises(DiskFull) as full:
        await disk.write(file, 0, [b"x"], sync=True)
    assert full.value.fields == {"operation": "write", "path": f"{DATA}/f", "written": "0"}
    say(f"sync {errno.EIO}")
    with pytest.raises(StreamClosed) as unsynced:
        await disk.write(file, 0, [b"abc"], sync=True)
    assert (unsynced.value.fields["operation"], unsynced.value.fields["written"]) == ("sync", "3")
    assert isinstance(unsynced.value.__cause__, OSError)
    assert unsynced.value.__cause__.errno == errno.EIO
    say("short 60")
    known = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, known[1]))
    with pytest.raises(StreamClosed) as stopped:
        await disk.write(file, 0, [b"x" * 80, b"y" * 80], sync=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, known)
    assert (stopped.value.fields["operation"], stopped.value.fields["written"]) == ("write", "100")
    say()
    await disk.write(file, 0, [b"good"], sync=True)
    assert (DATA / "f").read_bytes()[:4] == b"good", "and the next is as any other"


async def many_are_done_beside_each_other() -> None:
    """As many at once as there are threads, and no thread for nothing."""
    writes = DiskWrites(3, "story")
    say("slow 150")
    files = [os.open(DATA / f"beside-{number}", os.O_RDWR | os.O_CREAT) for number in range(7)]

    def write(number: int) -> asyncio.Future[None]:
        return writes.write(files[number], f"f{number}", 0, [b"%d" % number], sync=True)

    for number in (0, 1):
        await write(number)
    assert alive("story") == 1, "one after the other needs one thread"
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    await asyncio.gather(*map(write, range(7)))
    assert loop.time() - begun_s >= 0.45, "no more than three at a time"
    assert alive("story") == 3
    waiting = write(3)
    waiting.cancel()
    writes.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        write(4)
    for thread in threading.enumerate():
        if thread.name.startswith("story"):
            await asyncio.to_thread(thread.join, 5)
    assert alive("story") == 0
    assert os.pread(files[3], 9, 0) == b"3"


async def left_alone() -> DiskWrites:
    """A loop that ends with a write under way."""
    writes = DiskWrites(1, "left")
    say("slow 150")
    writes.write(os.open(DATA / "left", os.O_RDWR | os.O_CREAT), "left", 0, [b"x"], sync=True)
    return writes


async def gone_on_with(writes: DiskWrites) -> None:
    """On another loop, what the one before left is no harm."""
    fd = os.open(DATA / "left", os.O_RDWR | os.O_CREAT)
    async with asyncio.timeout(5):
        await writes.write(fd, "left", 0, [b"y"], sync=True)
    assert os.pread(fd, 9, 0) == b"y"
    writes.shutdown()


def alive(name: str) -> int:
    """Threads of this name."""
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


async def all_of_it() -> None:
    disk = RealDisk()
    await parts_are_gone_on_with(disk)
    await failures_say_what_and_how_much(disk)
    await disk.shutdown()
    await many_are_done_beside_each_other()


if __name__ == "__main__":
    DATA.mkdir()
    say()
    runner = asyncio.run
    if "uvloop" in sys.argv:
        import uvloop

        runner = uvloop.run
    runner(all_of_it())
    runner(gone_on_with(runner(left_alone())))
