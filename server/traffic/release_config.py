"""Bounds and paces of releases."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasesConfig:
    """Bounds and paces of releases."""

    releases_max: int = 2_000
    """Services that have had a release; the last one of each is kept. That of a further service is refused."""
    look_interval_s: float = 1.0
    """Between two looks at the calls of releases that are on their way."""
    rolled_back_alarm_s: float = 86_400.0
    """How long an alarm says that a release went back, unless another one begins."""

    def __post_init__(self) -> None:
        if self.look_interval_s <= 0:
            raise ValueError("look_interval_s must be above 0")
