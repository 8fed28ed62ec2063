"""A policy's circuit breaker as the object that does it, and what a call's status code is to it. No I/O."""

from __future__ import annotations

from typing import TypeAlias

from trunkline.core.breaker import Breaker, Outcome, State, WindowType
from trunkline.core.clock import Rng
from trunkline.core.policy import MS, BreakerMode, BreakerWindow, CircuitBreaker, Forced, StatusCode
from trunkline.core.shedding import SheddingBreaker

AnyBreaker: TypeAlias = Breaker | SheddingBreaker

_WINDOWS = {BreakerWindow.COUNT_BASED: WindowType.COUNT_BASED, BreakerWindow.TIME_BASED: WindowType.TIME_BASED}
_FORCED = {
    Forced.OPEN: State.FORCED_OPEN,
    Forced.DISABLED: State.DISABLED,
    Forced.METRICS_ONLY: State.METRICS_ONLY,
}


def make_breaker(policy: CircuitBreaker, rng: Rng, now_ns: int) -> AnyBreaker:
    """The breaker that a policy asks for, in the state that it forces, if it does; ValueError: a setting out of range.

    Durations are cut to whole milliseconds, and are at least one where none would be senseless.
    """
    breaker = _shedding(policy, rng) if policy.mode is BreakerMode.GRADUAL else _fast(policy)
    if policy.forced is not Forced.NOT:
        breaker.transition_to(_FORCED[policy.forced], now_ns)
    return breaker


def _shedding(policy: CircuitBreaker, rng: Rng) -> SheddingBreaker:
    return SheddingBreaker(
        rng,
        multiplier_percent=policy.multiplier_percent,
        max_rejection_percent=policy.max_rejection_percent,
        slow_call_rate_threshold=policy.slow_call_rate_threshold,
        slow_call_duration_ms=max(1, policy.slow_call_duration_threshold_ns // MS),
        sliding_window_type=_WINDOWS[policy.sliding_window_type],
        sliding_window_size=policy.sliding_window_size,
        minimum_number_of_calls=policy.minimum_number_of_calls,
    )


def _fast(policy: CircuitBreaker) -> Breaker:
    return Breaker(
        failure_rate_threshold=policy.failure_rate_threshold,
        slow_call_rate_threshold=policy.slow_call_rate_threshold,
        slow_call_duration_ms=max(1, policy.slow_call_duration_threshold_ns // MS),
        sliding_window_type=_WINDOWS[policy.sliding_window_type],
        sliding_window_size=policy.sliding_window_size,
        minimum_number_of_calls=policy.minimum_number_of_calls,
        wait_duration_in_open_state_ms=max(1, policy.wait_duration_in_open_state_ns // MS),
        permitted_number_of_calls_in_half_open_state=policy.permitted_number_of_calls_in_half_open_state,
        max_wait_duration_in_half_open_state_ms=_ms_or_none(policy.max_wait_duration_in_half_open_state_ns),
    )


def _ms_or_none(duration_ns: int) -> int:
    """0 sets no limit, so less than a millisecond is one."""
    return max(1, duration_ns // MS) if duration_ns else 0


def outcome_of(code: int, policy: CircuitBreaker) -> Outcome:
    """What a call that ended with `code` says of who was called.

    CANCELLED says nothing, whatever the policy's `record_codes` are, as the caller's own cancellations end with it; so
    do `ignore_codes`, which go before `record_codes`. Other codes that are not recorded are successes.
    """
    if code == StatusCode.CANCELLED or code in policy.ignore_codes:
        return Outcome.CANCELLED
    return Outcome.FAILURE if code in policy.record_codes else Outcome.SUCCESS


def outcomes_of(policy: CircuitBreaker) -> tuple[Outcome, ...]:
    """`outcome_of` each code, by its number: what a hot path looks up."""
    return tuple(outcome_of(code, policy) for code in StatusCode)
