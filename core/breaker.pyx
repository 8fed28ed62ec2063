# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""A circuit breaker: a state machine on sliding windows of outcomes.

Names, defaults and behaviour are Resilience4j's: https://resilience4j.readme.io/docs/circuitbreaker
"""

from enum import IntEnum
from typing import NamedTuple

import cython
from libc.stdint cimport int64_t, uint64_t

from trunkline.core.clock cimport Clock
from trunkline.core.window cimport Sums

from trunkline.core.window import SLIDING_WINDOW_SIZE_MAX, Counts, CountWindow, TimeWindow

DURATION_MS_MAX = 86_400_000
"""The longest duration that can be set, a day."""

cdef int64_t NS_PER_MS = 1_000_000


class State(IntEnum):
    """CLOSED lets all calls through, OPEN none, HALF_OPEN a few; the others are set by hand and stay.

    DISABLED lets all through and records nothing, FORCED_OPEN lets none through, METRICS_ONLY lets all through and
    records them.
    """

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3
    DISABLED = 4
    FORCED_OPEN = 5
    METRICS_ONLY = 6


class Outcome(IntEnum):
    """How a call ended. CANCELLED says nothing about who was called, so it counts as neither."""

    SUCCESS = 1
    FAILURE = 2
    CANCELLED = 3


class WindowType(IntEnum):
    """What a sliding window is measured in: calls or seconds."""

    COUNT_BASED = 1
    TIME_BASED = 2


class Snapshot(NamedTuple):
    """A breaker as it is. Rates are in percent; None while there are fewer calls than the minimum.

    `generation` counts the state's changes; `since_ns` is when the last was; `retry_at_ns`, when OPEN, is when calls
    are tried again, else None; `not_permitted` are the calls refused since that change. `rejection_rate` is the chance
    in percent that a SheddingBreaker refuses the next call; a Breaker has none.
    """

    state: State
    generation: int
    since_ns: int
    retry_at_ns: int | None
    failure_rate: float | None
    slow_call_rate: float | None
    counts: Counts
    not_permitted: int
    rejection_rate: float | None = None


cdef int64_t TICK_MASK = (1LL << 43) - 1

_STATES = {int(state): state for state in State}


cdef double _rate(str name, double value) except -1.0:
    if not 0.0 < value <= 100.0:
        raise ValueError(f"{name} is in (0, 100]: {value}")
    return value


cdef int64_t _duration_ns(str name, int64_t value_ms, int64_t least_ms) except -1:
    if not least_ms <= value_ms <= DURATION_MS_MAX:
        raise ValueError(f"{name} is in [{least_ms}, {DURATION_MS_MAX}]: {value_ms}")
    return NS_PER_MS * value_ms


cdef int64_t _calls(str name, int64_t value) except -1:
    if not 1 <= value <= SLIDING_WINDOW_SIZE_MAX:
        raise ValueError(f"{name} is in [1, {SLIDING_WINDOW_SIZE_MAX}]: {value}")
    return value


@cython.final
cdef class Breaker:
    """Stops calling what fails. Two steps: ask for a permit before a call, report with it after the call.

    `admit` and `record` are told the time; `begin` and `end` read a clock themselves, at half the cost.

    CLOSED: all calls pass and are recorded in the sliding window. When that holds `minimum_number_of_calls` (at most
    its size, if it is count-based) and the share of failed or of slow calls has reached its threshold, in percent, the
    breaker becomes OPEN.

    OPEN: no call passes until `wait_duration_in_open_state_ms` has gone by; the next call then makes it HALF_OPEN.

    HALF_OPEN: `permitted_number_of_calls_in_half_open_state` calls pass. When all are recorded, it becomes OPEN or
    CLOSED by the same thresholds. When they take longer than `max_wait_duration_in_half_open_state_ms` (0: no limit),
    it becomes OPEN.

    A call is slow when it took longer than `slow_call_duration_ms`. A result counts only in the state in which its call
    was permitted. Time is monotonic nanoseconds, given by the caller. Not to be shared by threads.

    ValueError: a setting out of range.
    """

    def __cinit__(
        self,
        *,
        double failure_rate_threshold=50.0,
        double slow_call_rate_threshold=100.0,
        int64_t slow_call_duration_ms=60_000,
        sliding_window_type=WindowType.COUNT_BASED,
        int64_t sliding_window_size=100,
        int64_t minimum_number_of_calls=100,
        int64_t wait_duration_in_open_state_ms=60_000,
        int64_t permitted_number_of_calls_in_half_open_state=10,
        int64_t max_wait_duration_in_half_open_state_ms=0,
    ):
        cdef bint by_count = WindowType(sliding_window_type) is WindowType.COUNT_BASED
        self._failure_rate_threshold = _rate("failure_rate_threshold", failure_rate_threshold)
        self._slow_call_rate_threshold = _rate("slow_call_rate_threshold", slow_call_rate_threshold)
        self._slow_ns = _duration_ns("slow_call_duration_ms", slow_call_duration_ms, 1)
        self._wait_ns = _duration_ns("wait_duration_in_open_state_ms", wait_duration_in_open_state_ms, 1)
        self._half_open_wait_ns = _duration_ns(
            "max_wait_duration_in_half_open_state_ms", max_wait_duration_in_half_open_state_ms, 0
        )
        sliding_window_size = _calls("sliding_window_size", sliding_window_size)
        self._minimum = _calls("minimum_number_of_calls", minimum_number_of_calls)
        self._permitted = _calls(
            "permitted_number_of_calls_in_half_open_state", permitted_number_of_calls_in_half_open_state
        )
        if by_count:
            self._minimum = min(self._minimum, <uint64_t>sliding_window_size)
        self._closed_window = CountWindow(sliding_window_size) if by_count else TimeWindow(sliding_window_size)
        self._half_open_window = CountWindow(permitted_number_of_calls_in_half_open_state)
        self._window = self._closed_window
        self._state = CLOSED

    cdef void _enter(self, int state, int64_t now_ns) noexcept:
        self._state = state
        self._generation += 1
        self._since_ns = now_ns
        self._not_permitted = 0
        self._slots = self._permitted
        self._window = self._half_open_window if state == HALF_OPEN else self._closed_window
        self._window.clear()

    cdef uint64_t _least_calls(self) noexcept:
        return self._permitted if self._state == HALF_OPEN else self._minimum

    cdef bint _over_threshold(self) noexcept:
        cdef Sums* sums = &self._window.sums
        return (
            100.0 * sums.failed >= self._failure_rate_threshold * sums.total
            or 100.0 * sums.slow >= self._slow_call_rate_threshold * sums.total
        )

    cdef int64_t _refuse(self) noexcept:
        self._not_permitted += 1
        return -1

    cdef int64_t _admit_half_open(self, int64_t now_ns) noexcept:
        if self._half_open_wait_ns and now_ns - self._since_ns >= self._half_open_wait_ns:
            self._enter(OPEN, now_ns)
            return self._refuse()
        if self._slots == 0:
            return self._refuse()
        self._slots -= 1
        return self._generation

    cdef int64_t admitted(self, int64_t now_ns) noexcept:
        if self._state == CLOSED or self._state == DISABLED or self._state == METRICS_ONLY:
            return self._generation
        if self._state == OPEN and now_ns - self._since_ns >= self._wait_ns:
            self._enter(HALF_OPEN, now_ns)
        if self._state == HALF_OPEN:
            return self._admit_half_open(now_ns)
        return self._refuse()

    def admit(self, int64_t now_ns):
        """Ask for a call at `now_ns`: a permit (an int, not negative) to give to `record`, or -1 when it is refused."""
        return self.admitted(now_ns)

    def record(self, int64_t permit, int outcome, int64_t duration_ns, int64_t now_ns):
        """Report how a permitted call ended: an Outcome, how long it took, and when. Exactly once for each permit.

        ValueError: a permit that this breaker did not give, no Outcome, or a negative duration.
        """
        if permit < 0 or permit > self._generation:
            raise ValueError(f"this breaker gave no permit {permit}")
        if outcome < SUCCESS or outcome > CANCELLED:
            raise ValueError(f"{outcome} is no Outcome")
        if duration_ns < 0:
            raise ValueError(f"a call took {duration_ns} ns")
        self.recorded(permit, outcome, duration_ns, now_ns)

    cdef void recorded(self, int64_t permit, int outcome, int64_t duration_ns, int64_t now_ns) noexcept:
        if permit == self._generation:
            self._count(outcome, duration_ns, now_ns)

    def begin(self, Clock clock not None):
        """Ask for a call now: a permit (an int, not negative) to give to `end`, or -1 when it is refused."""
        cdef int64_t now_ns = clock.now_ns()
        if self.admitted(now_ns) < 0:
            return -1
        return ((now_ns >> TICK_BITS) & TICK_MASK) << GENERATION_BITS | (self._generation & GENERATION_MASK)

    def end(self, int64_t permit, int outcome, Clock clock not None):
        """Report that the call of a permit from `begin` has ended now, with an Outcome. Exactly once for each permit.

        How long it took is known to about a microsecond. ValueError: a refused permit or no Outcome.
        """
        if permit < 0:
            raise ValueError(f"this breaker gave no permit {permit}")
        if outcome < SUCCESS or outcome > CANCELLED:
            raise ValueError(f"{outcome} is no Outcome")
        cdef int64_t now_ns = clock.now_ns()
        cdef int64_t took = ((now_ns >> TICK_BITS) - (permit >> GENERATION_BITS)) & TICK_MASK
        if (permit & GENERATION_MASK) == (self._generation & GENERATION_MASK):
            self._count(outcome, took << TICK_BITS, now_ns)

    cdef void _count(self, int outcome, int64_t duration_ns, int64_t now_ns) noexcept:
        """Take in the end of a call that was permitted in this state."""
        if self._state == DISABLED:
            return
        if outcome == CANCELLED:
            self._give_back()
            return
        self._window.record_call(outcome == FAILURE, duration_ns > self._slow_ns, now_ns)
        if self._state == METRICS_ONLY or self._window.sums.total < self._least_calls():
            return
        if self._over_threshold():
            self._enter(OPEN, now_ns)
        elif self._state == HALF_OPEN:
            self._enter(CLOSED, now_ns)

    cdef void _give_back(self) noexcept:
        # Never more slots than calls are missing, even if someone reports a call twice.
        if self._state == HALF_OPEN and self._slots + self._window.sums.total < self._permitted:
            self._slots += 1

    def transition_to(self, state, int64_t now_ns):
        """Go to `state` by hand, whatever the present one is, with an empty window; ValueError unless it is a State.

        DISABLED, FORCED_OPEN and METRICS_ONLY stay until another is set.
        """
        self._enter(State(state), now_ns)

    def snapshot(self, int64_t now_ns):
        """State, rates and counts at `now_ns`, as a Snapshot."""
        self._window.advance(now_ns)
        cdef Sums* sums = &self._window.sums
        cdef bint enough = sums.total >= self._least_calls()
        return Snapshot(
            state=_STATES[self._state],
            generation=self._generation,
            since_ns=self._since_ns,
            retry_at_ns=self._since_ns + self._wait_ns if self._state == OPEN else None,
            failure_rate=100.0 * sums.failed / sums.total if enough else None,
            slow_call_rate=100.0 * sums.slow / sums.total if enough else None,
            counts=Counts(sums.total, sums.failed, sums.slow, sums.slow_failed),
            not_permitted=self._not_permitted,
        )

    @property
    def state(self):
        """The State. OPEN stays until a call is admitted after the wait."""
        return _STATES[self._state]

    @property
    def generation(self):
        """How often the state has changed."""
        return self._generation
