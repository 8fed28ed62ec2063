"""What an endpoint's answer, or its silence, means for the event and for the endpoint. Pure.

| answer | the event | the endpoint |
| --- | --- | --- |
| 2xx | acknowledged | |
| 410 | given back, the attempt does not count | paused for an hour: it says that it is gone |
| 429 or 503 with Retry-After | tried again after that time | paused for that time |
| any other, redirects included | tried again after a backoff | |
| none: it could not be reached, or must not be | given back, the attempt does not count | held until it answers a probe |
| none: a kept connection was closed meanwhile | given back, the attempt does not count | |
| none: sent, and silent or broken off | tried again after a backoff | |
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

BACKOFF_INITIAL_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
RETRY_AFTER_MAX_NS = 3_600_000_000_000
GONE_NS = 3_600_000_000_000
_TELL_WHEN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

assert BACKOFF_INITIAL_NS <= BACKOFF_MAX_NS <= RETRY_AFTER_MAX_NS


class Answer(NamedTuple):
    """An endpoint answered."""

    status: int
    retry_after: str = ""
    """The header of that name."""


class Silence(NamedTuple):
    """It did not, for a reason."""

    reason: str
    was_sent: bool
    """The request, or part of it, may have arrived."""
    was_stale: bool = False
    """On a connection that was kept from an earlier request, and that the endpoint closed without a word."""


Result = Answer | Silence


class Verdict(Enum):
    """What becomes of the event."""

    DONE = "done"
    AGAIN = "again"
    """The attempt counts."""
    BACK = "back"
    """It does not."""


class Outcome(NamedTuple):
    """See the module."""

    verdict: Verdict
    error: str = ""
    delay_ns: int = 0
    """AGAIN: no sooner than after this."""
    pause_ns: int = 0
    """The endpoint wants no request for so long."""
    is_unreachable: bool = False
    """It is to be held at once."""
    is_silent: bool = False
    """There was no answer."""


def outcome_of(result: Result, *, attempt: int, chance: float, time_ns: int) -> Outcome:
    """`chance` is of [0, 1), `time_ns` since the epoch."""
    delay_ns = backoff_ns(attempt, chance)
    if isinstance(result, Silence):
        return _of_silence(result, delay_ns)
    status = result.status
    if 200 <= status < 300:
        return Outcome(Verdict.DONE)
    error = _named(status)
    if status == HTTPStatus.GONE:
        return Outcome(Verdict.BACK, f"{error}: the endpoint says that it is gone", pause_ns=GONE_NS)
    if status in _TELL_WHEN and (told_ns := retry_after_ns(result.retry_after, time_ns)) is not None:
        return Outcome(Verdict.AGAIN, error, delay_ns=told_ns, pause_ns=told_ns)
    if 300 <= status < 400:
        error += ": redirects are not followed"
    return Outcome(Verdict.AGAIN, error, delay_ns=delay_ns)


def _of_silence(result: Silence, delay_ns: int) -> Outcome:
    if result.was_stale:
        return Outcome(Verdict.BACK, result.reason)
    if not result.was_sent:
        return Outcome(Verdict.BACK, result.reason, is_unreachable=True, is_silent=True)
    return Outcome(Verdict.AGAIN, result.reason, delay_ns=delay_ns, is_silent=True)


def backoff_ns(attempt: int, chance: float) -> int:
    """Exponential with full jitter: anywhere up to a bound that doubles with each attempt (the first is 1), in whole
    milliseconds."""
    return int(bound_ns(attempt) * chance) // 1_000_000 * 1_000_000


def bound_ns(attempt: int) -> int:
    """The most that is waited after an attempt."""
    doublings = min(max(attempt, 1) - 1, 16)
    return min(BACKOFF_MAX_NS, BACKOFF_INITIAL_NS << doublings)


def retry_after_ns(header: str, time_ns: int) -> int | None:
    """How long a Retry-After asks to wait (RFC 9110, 10.2.3: seconds or a date); None for what is neither."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(int(header[:10]) * 1_000_000_000, RETRY_AFTER_MAX_NS)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    until_ns = int(date.replace(tzinfo=date.tzinfo or UTC).timestamp()) * 1_000_000_000
    return max(0, min(until_ns - time_ns, RETRY_AFTER_MAX_NS))


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
