"""How long to wait before trying again: gRPC's connection backoff (github.com/grpc/grpc/blob/master/doc/connection-
backoff.md)."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.core.clock import Rng
from trunkline.core.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffOptions:
    """gRPC's names and defaults. Times in seconds."""

    initial_backoff_s: float = 1.0
    """Before the second attempt."""
    multiplier: float = 1.6
    """Each further wait is so many times the one before."""
    jitter: float = 0.2
    """Each wait is made longer or shorter by a random part of itself, at most this one."""
    max_backoff_s: float = 120.0
    """No wait is longer, jitter apart. While leases are held a third of the shortest TTL bounds it, too."""

    def __post_init__(self) -> None:
        if self.initial_backoff_s <= 0 or self.max_backoff_s < self.initial_backoff_s:
            rule = "0 < initial_backoff_s <= max_backoff_s"
            raise InvalidArgument.of("backoff", rule, (self.initial_backoff_s, self.max_backoff_s))
        if self.multiplier < 1:
            raise InvalidArgument.of("backoff.multiplier", "at least 1", self.multiplier)
        if not 0 <= self.jitter < 1:
            raise InvalidArgument.of("backoff.jitter", "0 <= jitter < 1", self.jitter)


class Backoff:
    """The waits between failed attempts, one after the other."""

    def __init__(self, options: BackoffOptions, rng: Rng) -> None:
        self._options = options
        self._rng = rng
        self._base_s = options.initial_backoff_s

    def next_s(self, *, limit_s: float | None = None) -> float:
        """Seconds to wait now; the next answer is longer. `limit_s` bounds this one before jitter."""
        base_s = self._base_s if limit_s is None else min(self._base_s, limit_s)
        self._base_s = min(self._base_s * self._options.multiplier, self._options.max_backoff_s)
        return base_s * (1 + self._options.jitter * (2 * self._rng.random() - 1))

    def reset(self) -> None:
        """An attempt succeeded: begin anew."""
        self._base_s = self._options.initial_backoff_s
