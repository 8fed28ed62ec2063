"""Limits of the HTTP listener."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """Bounds of the HTTP listener, and of publishing through it."""

    connections_max: int = 1_024
    """Connections of the listener; a further one is told so with 503 and closed."""
    idle_timeout_ms: int = 30_000
    """A connection on which no whole request head has come for so long is closed, at its beginning and after each answer."""
    requests_in_flight_max: int = 256
    """Publishes that may be open; more are refused with 429."""
    body_bytes_max: int = 16 * 1024 * 1024
    """A longer request body is refused with 413."""
    body_bytes_in_flight_max: int = 128 * 1024 * 1024
    """Bodies of all open publishes together; what goes over it is refused with 429. Reading one takes several times its
    size while it lasts."""
    body_timeout_ms: int = 30_000
    """A request whose body has not come by then is ended with 408."""

    def __post_init__(self) -> None:
        assert min(self.connections_max, self.requests_in_flight_max, self.body_bytes_max) > 0
        assert min(self.idle_timeout_ms, self.body_timeout_ms) > 0
        assert self.body_bytes_max <= self.body_bytes_in_flight_max
