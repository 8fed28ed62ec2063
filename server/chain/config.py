"""Limits of the chain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainConfig:
    """Bounds of calls, for each method by itself."""

    calls_in_flight_max: int = 4_096
    """Unary calls of one method that may be open; more are refused with RESOURCE_EXHAUSTED."""
    streams_in_flight_max: int = 20_000
    """Streams of one method that may be open."""
    streams_per_connection_max: int = 256
    """Streams of one method that one connection may have open."""
    call_deadline_ms_default: int = 30_000
    """For unary calls whose client set no deadline. Methods that wait by design add their own limit's maximum."""
    refusal_timeout_ms: int = 5_000
    """How long telling a peer why its call ended may take; then the call is dropped untold."""

    def __post_init__(self) -> None:
        assert min(self.calls_in_flight_max, self.streams_in_flight_max, self.streams_per_connection_max) > 0
        assert self.call_deadline_ms_default > 0
        assert self.refusal_timeout_ms > 0
