"""What probes say about one instance, and when the prober itself is not to be believed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from trunkline.core.model import GrpcHealthCheck

from .probe_config import ProberConfig


@dataclass(slots=True)
class ProbeState:
    """Probes in a row, counted against an instance's thresholds.

    An instance is taken to be well until `unhealthy_threshold` probes in a row failed, and failed until
    `healthy_threshold` in a row passed. `failed` is the verdict that is on record.
    """

    check: GrpcHealthCheck
    failed: bool
    streak: int = 0
    """Probes in a row that say the opposite of the verdict."""

    def add(self, *, passed: bool) -> bool:
        """Count a probe. True when the verdict should change; it does when `failed` is set."""
        if passed is not self.failed:
            self.streak = 0
            return False
        self.streak += 1
        return self.streak >= (self.check.healthy_threshold if self.failed else self.check.unhealthy_threshold)

    def settle(self, *, failed: bool) -> None:
        """This verdict is on record now."""
        self.failed = failed
        self.streak = 0


class Doubt:
    """Doubts the prober when most of its probes fail at once.

    It begins when over `doubt_percent` of all targets, and at least `doubt_failures_min`, fail and began to within
    `doubt_window`; it ends when no more than `doubt_percent` fail.
    """

    def __init__(self, config: ProberConfig) -> None:
        self._config = config
        self._window_ns = config.doubt_window_ms * 1_000_000
        self._failing: dict[Hashable, int] = {}  # since when, by target
        self._began: deque[tuple[int, Hashable]] = deque()  # what `_failing` does not confirm is void
        self.targets = 0
        """How many there are to probe."""
        self.since_ns: int | None = None
        """Since when the prober is doubted."""

    @property
    def failing(self) -> int:
        """Targets whose last probe failed."""
        return len(self._failing)

    def add(self, target: Hashable, *, passed: bool, now_ns: int) -> None:
        """A target was probed."""
        if passed:
            self._failing.pop(target, None)
        elif target not in self._failing:
            self._failing[target] = now_ns
            self._began.append((now_ns, target))
        self._judge(now_ns)

    def forget(self, target: Hashable, *, now_ns: int) -> None:
        """A target is probed no more."""
        self._failing.pop(target, None)
        self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        while self._began and not self._is_recent(*self._began[0], now_ns):
            self._began.popleft()
        if self.since_ns is not None:
            if not self._are_most(len(self._failing)):
                self.since_ns = None
        elif self._are_most(len(self._failing)) and self._are_most(self._recent()):
            self.since_ns = now_ns

    def _is_recent(self, began_ns: int, target: Hashable, now_ns: int) -> bool:
        return now_ns - began_ns < self._window_ns and self._failing.get(target) == began_ns

    def _recent(self) -> int:
        return sum(self._failing.get(target) == began_ns for began_ns, target in self._began)

    def _are_most(self, count: int) -> bool:
        return count >= self._config.doubt_failures_min and count * 100 > self._config.doubt_percent * self.targets
