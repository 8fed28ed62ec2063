"""Where the SDK is given the real clock, network and chance."""

from __future__ import annotations

import os
from pathlib import Path

from trunkline.core.errors import InvalidArgument

from ._connection import Trunkline
from ._edge import host_and_port, is_loopback, real_edge
from ._options import ClientOptions, Tls
from ._view_cache import FolderStore, ViewCache


def connect(
    target: str,
    *,
    namespace: str = "default",
    name: str = "",
    token: str | None = None,
    tls: Tls | None = None,
    cache_folder: str | Path | None = None,
    insecure: bool = False,
    options: ClientOptions | None = None,
) -> Trunkline:
    """A connection to the control plane at `target` ("host:port"), for use with `async with`.

    `namespace` is that of every call that names no other. `name` is who drain and `explain` say this client is, and the
    source of its events; by default the process's id on its machine's behalf. `token` goes with every call; sent
    without `tls` to another machine it could be read on the way, so that must be spelled out with `insecure`.
    `cache_folder` keeps the last good state of each view, for a process that starts while the control plane is away;
    None keeps nothing.

    Nothing happens before `async with`; even then an absent control plane is no error, only calls to it are.
    InvalidArgument when an argument is unusable.
    """
    host, _ = host_and_port(target)
    if token is not None and tls is None and not insecure and not is_loopback(host):
        raise InvalidArgument.of("token", "TLS, or insecure=True, when the control plane is on another machine", target)
    chosen = options or ClientOptions()
    edge = real_edge(target, tls=tls, options=chosen)
    store = FolderStore(Path(cache_folder)) if cache_folder is not None else None
    cache = ViewCache(store, edge.clock, target=target, interval_s=chosen.cache_interval_s) if store else None
    return Trunkline(
        edge, chosen, namespace=namespace, name=name or f"python-{os.getpid()}", token=token, cache=cache, target=target
    )
