"""Where a server listens."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One address: host:port (port 0 takes a free one), [IPv6]:port or unix:PATH. Plain text without TLS.

    TLS comes in the form that the transport takes: grpcio's credentials are opaque, the native transport's context is not.
    """

    address: str
    credentials: grpc.ServerCredentials | None = None
    """For grpcio."""
    inherited: socket.socket | None = None
    """For the native transport: a socket that listens already, at this address."""
    context: ssl.SSLContext | None = None
    """For the native transport."""
