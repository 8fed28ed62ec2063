"""Whether and when a call that failed is sent again. Pure: time and chance come in.

The words are gRPC's (https://github.com/grpc/proposal/blob/master/A6-client-retries.md) and Envoy's ('retry_back_off' in
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from trunkline.core.clock import Rng
from trunkline.core.policy import MS, Retry, StatusCode

PREVIOUS_ATTEMPTS_KEY: Final = "trunkline-previous-rpc-attempts"
"""Metadata of an attempt: how many came before it; absent on the first.

gRPC A6 calls it `grpc-previous-rpc-attempts`, which gRPC's core keeps for its own retries: it takes the key away from what
an application sends. Who serves honours both (PREVIOUS_ATTEMPTS_KEYS).
"""
PREVIOUS_ATTEMPTS_KEYS: Final = (PREVIOUS_ATTEMPTS_KEY, "grpc-previous-rpc-attempts")
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailing metadata: when the server wants to be asked again; a negative number, or none at all: not."""
PUSHBACK_MS_MAX: Final = 2**31 - 1
NO_MORE: Final = -1
"""A pushback that says: do not try again."""


class Stop(StrEnum):
    """Why there is no further attempt."""

    NO_POLICY = "no_policy"
    """Nothing says that calls are tried again."""
    LAYER = "layer"
    """The call is made on behalf of one that is itself an attempt after others: they are repeated further up."""
    COMMITTED = "committed"
    """A part of the answer was handed out, or the requests were more than can be kept."""
    CODE = "code"
    ATTEMPTS = "attempts"
    PUSHBACK = "pushback"
    """The server said: not again."""
    DEADLINE = "deadline"
    BUDGET = "budget"


class Failure(NamedTuple):
    """How an attempt ended."""

    code: StatusCode
    pushback_ms: int | None = None
    """What the server asked for: to wait so long, or NO_MORE; None when it said nothing."""
    cut_off: bool = False
    """`per_try_timeout` ended it, not the call's own deadline."""


class Budget(Protocol):
    """core.retry_budget.RetryBudget."""

    def may(self, now_ns: int) -> bool: ...
    def take(self, now_ns: int) -> bool: ...


def pushback_of(trailing: Iterable[tuple[str, str | bytes]] | None) -> int | None:
    """Of trailing metadata, as Failure has it. What is no number counts as NO_MORE (gRPC A6)."""
    said = [value for key, value in trailing or () if key == PUSHBACK_KEY]
    if not said:
        return None
    text = said[0].decode("ascii", "replace") if isinstance(said[0], bytes) else said[0]
    if len(said) > 1 or not text.isascii() or not text.isdecimal():
        return NO_MORE
    value = int(text[:11])
    return value if value <= PUSHBACK_MS_MAX else NO_MORE


def previous_attempts(metadata: Iterable[tuple[str, str | bytes]] | None) -> int:
    """How many attempts came before the call that bears this metadata; 0 for what is no number."""
    said = [value for key, value in metadata or () if key in PREVIOUS_ATTEMPTS_KEYS]
    texts = [value.decode("ascii", "replace") if isinstance(value, bytes) else value for value in said]
    return max((int(text[:9]) for text in texts if text.isascii() and text.isdecimal()), default=0)


class Attempts:
    """One call's attempts.

    Before the n-th retry lies a time by chance between 0 and base_interval x (2^n - 1), at most max_interval. A server
    that says when it wants to be asked again is asked then, and the times begin anew (gRPC A6).
    """

    __slots__ = ("_budget", "_failed", "_retry", "_rng", "_step", "_suppressed")

    def __init__(self, retry: Retry | None, budget: Budget | None, rng: Rng, *, suppressed: bool) -> None:
        """`suppressed`: somebody further up repeats this call, so that it is not repeated here."""
        self._retry = retry
        self._budget = budget
        self._rng = rng
        self._suppressed = suppressed
        self._failed = 0
        self._step = 0

    @property
    def failed(self) -> int:
        """How many attempts have ended; what the next one says of itself in its metadata."""
        return self._failed

    def after(self, failure: Failure, now_ns: int, *, left_ns: int | None, committed: bool) -> int | Stop:
        """An attempt has failed: nanoseconds to wait before the next one, or why there is none.

        `left_ns` is the time until the call's deadline, None without one; `committed` says that the caller has seen a
        part of the answer, or that the requests cannot be sent again. One that `per_try_timeout` cut off may be repeated
        whatever the codes say: that is what the timeout is for. Where the budget has nothing left there is no wait.
        """
        self._failed += 1
        retry = self._retry
        if retry is None:
            return Stop.NO_POLICY
        if self._suppressed:
            return Stop.LAYER
        if committed:
            return Stop.COMMITTED
        if failure.code not in retry.retryable_status_codes and not failure.cut_off:
            return Stop.CODE
        if self._failed >= retry.max_attempts:
            return Stop.ATTEMPTS
        return self._wait(retry, failure, now_ns, left_ns)

    def _wait(self, retry: Retry, failure: Failure, now_ns: int, left_ns: int | None) -> int | Stop:
        if failure.pushback_ms is None:
            self._step += 1
            bound_ns = min(retry.base_interval_ns * (2**self._step - 1), retry.max_interval_ns)
            wait_ns = self._rng.below(bound_ns + 1)
        elif failure.pushback_ms < 0:
            return Stop.PUSHBACK
        else:
            self._step = 0
            wait_ns = failure.pushback_ms * MS
        if left_ns is not None and wait_ns >= left_ns:
            return Stop.DEADLINE
        if self._budget is not None and not self._budget.may(now_ns):
            return Stop.BUDGET
        return wait_ns

    def may_retry(self, now_ns: int) -> bool:
        """The wait is over: take the retry from the budget, of which others may have had the rest meanwhile.

        It is taken when it is sent, not when it is planned: a budget is of what is sent in any stretch of time, and a
        server's pushback may be long.
        """
        return self._budget is None or self._budget.take(now_ns)
