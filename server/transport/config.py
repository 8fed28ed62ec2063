"""How the gRPC server listens and what it takes from a connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Bounds of connections and messages. Names and meanings are gRPC's."""

    receive_message_bytes_max: int = 16 * 1024 * 1024
    """A longer request is refused with RESOURCE_EXHAUSTED before it is parsed."""
    send_message_bytes_max: int = 64 * 1024 * 1024
    """A longer response is refused with RESOURCE_EXHAUSTED; Watch and Subscribe cut theirs much shorter."""
    metadata_bytes_max: int = 16 * 1024
    """Header list of a call."""
    streams_per_connection_max: int = 1_000
    """Calls that one connection may have open (HTTP/2's MAX_CONCURRENT_STREAMS); further ones wait at the client."""
    keepalive_time_ms: int = 30_000
    """A connection that is silent for so long is asked whether it is there."""
    keepalive_timeout_ms: int = 10_000
    """One that does not answer within this is closed."""
    client_ping_interval_ms_min: int = 5_000
    """Clients that ping more often are told to calm down and cut."""
    connection_age_ms_max: int = 0
    """Connections are closed in an orderly way at this age, jittered by a tenth, so that load spreads over new servers.
    0: never."""
    connection_age_grace_ms: int = 30_000
    """How long calls may go on when their connection's age is reached."""
    reuse_port: bool = False
    """Let several processes listen on one port. Off, because a second server on a taken port would go unnoticed."""
