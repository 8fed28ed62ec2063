"""How the gRPC server listens and what it takes from a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Bounds of connections and messages. Names and meanings are gRPC's."""

    kind: Literal["native", "grpcio"] | None = None
    """native: Trunkline's own over libnghttp2, many times as fast; grpcio: grpc.aio. None takes native where it was built."""
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
    connections_max: int = 20_000
    """Connections of the server; a further one is told so and closed. This and what follows hold on the native transport."""
    connection_idle_ms_max: int = 0
    """A connection without a call for so long is closed in an orderly way. 0: never."""
    preface_timeout_ms: int = 10_000
    """A connection that has not begun to speak HTTP/2 by then is cut; so long may the handshake of TLS take, too."""
    headers_timeout_ms: int = 10_000
    """A connection on which a call's headers take longer to come is cut."""
    request_timeout_ms: int = 30_000
    """A call with one request that has not come by then is ended with DEADLINE_EXCEEDED."""
    linger_timeout_ms: int = 30_000
    """A call that has ended, but whose peer has not taken what was sent by then, is reset; a connection that is being
    closed and whose peer takes nothing is cut."""
    stream_window_bytes: int = 1024 * 1024
    """What a peer may send of one call before it is read (HTTP/2's INITIAL_WINDOW_SIZE), and so what is kept unread."""
    connection_window_bytes: int = 16 * 1024 * 1024
    """The same for all calls of one connection."""
    unread_bytes_per_connection_max: int = 64 * 1024 * 1024
    """Received and not yet taken by a handler, on one connection. Calls that go over it end with RESOURCE_EXHAUSTED."""
    unread_bytes_max: int = 1024 * 1024 * 1024
    """The same of all connections together."""
    write_high_water_bytes: int = 64 * 1024
    """A handler's write waits while more than this waits to be sent on its call."""
    resets_per_s_max: int = 1_000
    """Calls that one connection may break off, or make us break off; twice as many may come at once. Over it, and over
    the next two, the connection is told ENHANCE_YOUR_CALM and cut."""
    settings_per_s_max: int = 50
    """SETTINGS frames of one connection."""
    empty_frames_per_s_max: int = 1_000
    """Frames of one connection that carry nothing: empty DATA, PRIORITY, unknown ones."""
    reuse_port: bool = False
    """Let several processes listen on one port. Off, because a second server on a taken port would go unnoticed."""
