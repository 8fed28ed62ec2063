"""Listening sockets that outlive a process: from a service manager, or from the server that this one takes over from.

They come as sd_listen_fds(3) has it: LISTEN_FDS sockets from file descriptor 3 on, for the process LISTEN_PID if that is set.
Connections that come while nobody accepts wait in the socket's backlog, and none is refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from trunkline.core.errors import InvalidArgument, JournalLocked

log = logging.getLogger(__name__)

FIRST_FD: Final = 3
TRY_EVERY_S: Final = 0.05
T = TypeVar("T")


def inherited(environment: Mapping[str, str], process_id: int) -> socket.socket | None:
    """The socket that was given to this process; None without one. InvalidArgument for several, or what is no listening
    socket."""
    count = environment.get("LISTEN_FDS", "")
    if not count or environment.get("LISTEN_PID", str(process_id)) != str(process_id):
        return None
    if count != "1":
        raise InvalidArgument.of("LISTEN_FDS", "must be 1: the gRPC listener is the one that can be inherited", count)
    try:
        made = socket.socket(fileno=FIRST_FD)
        listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidArgument.of("LISTEN_FDS", "file descriptor 3 is no socket", count) from error
    if not listens:
        raise InvalidArgument.of("LISTEN_FDS", "the socket at file descriptor 3 does not listen", count)
    made.set_inheritable(False)
    return made


def address_of(made: socket.socket) -> str:
    """HOST:PORT, [IPv6]:PORT or unix:PATH."""
    if made.family == socket.AF_UNIX:
        return f"unix:{made.getsockname()}"
    host, port = made.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def start_successor(made: socket.socket, environment: Mapping[str, str]) -> int:
    """Start this program anew with the same words, and the socket; its process id. OSError.

    Everything else that is open here is closed there: it waits for the journal's lock.
    """
    given = {**environment, "LISTEN_FDS": "1"}
    given.pop("LISTEN_PID", None)
    spare = os.dup(made.fileno())  # never 3 itself, whose mark to be closed would stay
    try:
        actions = [(os.POSIX_SPAWN_DUP2, spare, FIRST_FD)]
        return os.posix_spawn(sys.executable, sys.orig_argv, given, file_actions=actions)
    finally:
        os.close(spare)


async def when_unlocked(open_it: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Open what another process has locked as soon as it lets go. JournalLocked when that takes longer."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    is_told = False
    while True:
        try:
            return await open_it()
        except JournalLocked as error:
            if loop.time() >= deadline_s:
                raise
            if not is_told:
                log.info("waiting for the server that has the journal: %s", error)
                is_told = True
        await asyncio.sleep(TRY_EVERY_S)
