"""Sockets that a server listens on."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Any

BACKLOG = 4_096


class Taken(OSError):
    """The address is taken, or no address of this machine."""


def listen(address: str, *, reuse_port: bool) -> list[socket.socket]:
    """Sockets that listen on HOST:PORT, [IPv6]:PORT or unix:PATH: one for each address of the host, all on one port, which
    is a free one for 0. Taken."""
    made: list[socket.socket] = []
    try:
        if address.startswith("unix:"):
            return [_listen_unix(address.removeprefix("unix:"))]
        host, _, port = address.rpartition(":")
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            here = (where[0], made[0].getsockname()[1], *where[2:]) if made else where
            made.append(_listen_tcp(socket.socket(family, kind, protocol), here, reuse_port))
        return made
    except (OSError, UnicodeError, ValueError) as error:
        for one in made:
            one.close()
        raise Taken(f"{address}: {error}") from error


def _listen_tcp(made: socket.socket, where: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6 and where[0] != "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(where)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _listen_unix(path: str) -> socket.socket:
    """A path that nobody listens on any more is taken over; one that somebody has is not."""
    if _answers(path):
        raise FileExistsError(f"{path} is taken")
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(path)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
