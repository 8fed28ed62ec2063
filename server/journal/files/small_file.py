"""Small files that are replaced as a whole: a first line with format and checksum, then JSON for people to read."""

from __future__ import annotations

import json
import re
from typing import Any

import google_crc32c

from trunkline.core.errors import JournalCorrupt, JournalTooNew

from .disk import Disk

FORMAT = 1
TEMPORARY_SUFFIX = ".tmp"
_BYTES_MAX = 1 << 20
_FIRST_LINE = re.compile(rb"trunkline journal format (\d{1,9}) crc32c ([0-9a-f]{8})\n")


async def save(disk: Disk, folder: str, name: str, content: dict[str, Any]) -> None:
    """Write it beside, sync, rename, sync the folder: after a crash there is the old file or the new one."""
    path = f"{folder}/{name}"
    body = json.dumps(content, indent=1).encode() + b"\n"
    first_line = b"trunkline journal format %d crc32c %08x\n" % (FORMAT, google_crc32c.value(body))
    file = await disk.create(path + TEMPORARY_SUFFIX)
    try:
        await disk.write(file, 0, [first_line, body], sync=True)
    finally:
        await disk.close(file)
    await disk.rename(path + TEMPORARY_SUFFIX, path)
    await disk.sync_folder(folder)


async def load(disk: Disk, folder: str, name: str) -> dict[str, Any] | None:
    """The content, None if there is no such file. JournalCorrupt when it is damaged, JournalTooNew when newer."""
    path = f"{folder}/{name}"
    try:
        data = await disk.read(path, 0, _BYTES_MAX)
    except FileNotFoundError:
        return None
    match = _FIRST_LINE.match(data)
    if match is None:
        raise JournalCorrupt(f"{path} does not begin as a file of the journal does", path=path)
    if int(match[1]) > FORMAT:
        raise JournalTooNew(f"{path} has format {int(match[1])}; this program reads up to {FORMAT}", path=path)
    body = data[match.end() :]
    if google_crc32c.value(body) != int(match[2], 16):
        raise JournalCorrupt(f"{path} is damaged: its checksum is wrong", path=path)
    content: dict[str, Any] = json.loads(body)
    return content
