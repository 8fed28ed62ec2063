"""Sockets that a server listens on."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

BACKLOG = 4_096


class Taken(OSError):
    """The address is taken, or no address of this machine."""


def listen(address: str, *, reuse_port: bool) -> tuple[socket.socket, str]:
    """A listening socket and its address: HOST:PORT, [IPv6]:PORT or unix:PATH; port 0 takes a free one. Taken."""
    try:
        if address.startswith("unix:"):
            return _listen_unix(address.removeprefix("unix:")), address
        return _listen_tcp(address, reuse_port)
    except (OSError, UnicodeError) as error:
        raise Taken(f"{address}: {error}") from error


def _listen_tcp(address: str, reuse_port: bool) -> tuple[socket.socket, str]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and where[0] != "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(where)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made, f"{host}:{made.getsockname()[1]}"


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
