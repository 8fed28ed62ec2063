"""Writes to files, done by threads that need no lock of the interpreter; the loop is told through a pipe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from .disk import SYNC, WRITE, disk_error
from .write_threads import WriteThreads


class DiskWrites:
    """Used on one loop at a time. What waits is not bounded here: a log has one write on its way."""

    def __init__(self, count_max: int, name: str) -> None:
        self._threads = WriteThreads(count_max, name)
        self._under_way: dict[int, tuple[asyncio.Future[None], str]] = {}
        """By ticket: who waits, and for what file."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that is told."""
        self._ended = False

    def write(self, fd: int, path: str, offset: int, data: Sequence[bytes], *, sync: bool) -> asyncio.Future[None]:
        """Begin to write all of it, and with `sync` to sync it; it is done though nobody waits for the future any more.

        The future raises what disk.py says. The file must stay open.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            loop.add_reader(self._threads.fileno(), self._finish)
            self._loop = loop
        future: asyncio.Future[None] = loop.create_future()
        self._under_way[self._threads.submit(fd, list(data), offset, sync)] = future, path
        return future

    def shutdown(self) -> None:
        """Begin nothing more; the threads end when all is written."""
        self._ended = True
        self._threads.shutdown()
        self._let_go()

    def _finish(self) -> None:
        for ticket, error, written, is_sync in self._threads.done():
            future, path = self._under_way.pop(ticket)
            if future.done():  # cancelled
                continue
            if not error:
                future.set_result(None)
                continue
            cause = OSError(error, os.strerror(error))
            future.set_exception(disk_error(cause, SYNC if is_sync else WRITE, path, written=written))
        if self._ended:
            self._let_go()

    def _let_go(self) -> None:
        loop = self._loop
        if loop is not None and not self._under_way and not loop.is_closed():
            loop.remove_reader(self._threads.fileno())
            self._loop = None
