"""Bounds and paces of schedules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesConfig:
    """Bounds and paces of schedules."""

    schedules_per_namespace_max: int = 10_000
    """Of one namespace; further ones are refused."""
    event_bytes_per_namespace_max: int = 64 << 20
    """Bytes of all events that a namespace's schedules hold, in memory too; further ones are refused."""
    interval_s_min: float = 10.0
    """The shortest interval of `every`. A calendar rule's is a minute, its resolution."""
    remember_interval_s: float = 60.0
    """A schedule that fires more often is remembered no more often than this in control: a restart finds what it fired since
    in the stream it publishes to."""
    misfire_after_s: float = 10.0
    """How late a time may be and is still published by a schedule that skips what it has missed."""
    look_interval_s: float = 1.0
    """The longest time between two looks at the clock: how late a clock that was set forward is noticed."""
    publish_timeout_s: float = 30.0
    """How long a publish may take before it is tried again, with the same id."""
    retry_s_max: float = 30.0
    """The longest pause between two attempts to publish what is due; the first is 0.1 s."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.interval_s_min <= 366 * 86_400:  # what the contract takes
            raise ValueError("interval_s_min must lie between 0.1 and a year")
        if min(self.look_interval_s, self.publish_timeout_s, self.retry_s_max) <= 0:
            raise ValueError("look_interval_s, publish_timeout_s and retry_s_max must be above 0")
