"""Where the SDK is given the real clock, network and chance."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import grpc
import grpc.aio

from trunkline.core.clock import Rng, SystemClock
from trunkline.core.errors import InvalidArgument
from trunkline.core.localities import NOWHERE
from trunkline.core.model import Locality

from ._connection import Trunkline
from ._edge import (
    CONNECTION_ARGUMENTS,
    ControlChannel,
    Edge,
    SocketAddresses,
    dial_instance,
    host_and_port,
    is_loopback,
)
from ._options import ClientOptions, Tls
from ._portal import Portal
from ._view_cache import FolderStore, ViewCache
from .sync import SyncTrunkline

Given = ParamSpec("Given")


def connect(
    target: str,
    *,
    namespace: str = "default",
    name: str = "",
    token: str | None = None,
    tls: Tls | None = None,
    cache_folder: str | Path | None = None,
    insecure: bool = False,
    locality: Locality | None = None,
    options: ClientOptions | None = None,
) -> Trunkline:
    """A connection to the control plane at `target` ("host:port" or "unix:PATH"), for use with `async with`.

    `namespace` is that of every call that names no other. `name` is who drain and `explain` say this client is, and the
    source of its events; by default the process's id on its machine's behalf. `token` goes with every call; sent
    without `tls` to another machine it could be read on the way, so that must be spelled out with `insecure`.
    `cache_folder` keeps the last good state of each view, for a process that starts while the control plane is away;
    None keeps nothing. `locality` is where this process runs, for policies that prefer near instances.

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
        edge,
        chosen,
        namespace=namespace,
        name=name or f"python-{os.getpid()}",
        token=token,
        cache=cache,
        target=target,
        locality=locality or NOWHERE,
    )


def _with_blocking_face(make: Callable[Given, Trunkline]) -> Callable[Given, SyncTrunkline]:
    def made(*args: Given.args, **kwargs: Given.kwargs) -> SyncTrunkline:
        return SyncTrunkline(Portal(), make(*args, **kwargs))

    made.__doc__ = (make.__doc__ or "").replace("async with", "with")
    return made


connect_sync = _with_blocking_face(connect)
"""`connect` for programs with threads: `with connect_sync("host:port") as trunkline`.

Threads may share the connection.
"""


def real_edge(target: str, *, tls: Tls | None, options: ClientOptions) -> Edge:
    """The machine itself."""
    arguments = [
        *CONNECTION_ARGUMENTS,
        ("grpc.keepalive_time_ms", int(options.keepalive_time_s * 1_000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_s * 1_000)),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
    ]

    def dial_control() -> ControlChannel:
        if tls is None:
            return grpc.aio.insecure_channel(target, options=arguments)
        named = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
        return grpc.aio.secure_channel(target, credentials, options=[*arguments, *named])

    return Edge(
        clock=SystemClock(),
        rng=Rng(int.from_bytes(os.urandom(8), "little")),
        entropy=os.urandom,
        dial_control=dial_control,
        dial_instance=dial_instance,
        addresses=SocketAddresses(target),
    )
