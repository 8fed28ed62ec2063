# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""A circuit breaker that sheds a share of calls, which grows with the failures and falls with them.

Client-side throttling of 'Handling Overload' in Google's 'Site Reliability Engineering':
https://sre.google/sre-book/handling-overload/ . Windows, outcomes and states are those of `trunkline.core.breaker`.
"""

import cython
from libc.stdint cimport int64_t, uint64_t

from trunkline.core.breaker cimport (
    CANCELLED,
    CLOSED,
    DISABLED,
    FAILURE,
    FORCED_OPEN,
    GENERATION_BITS,
    GENERATION_MASK,
    SUCCESS,
    TICK_BITS,
)
from trunkline.core.clock cimport Clock, Rng
from trunkline.core.window cimport Sums, Window

from trunkline.core.breaker import DURATION_MS_MAX, Snapshot, State, WindowType
from trunkline.core.window import SLIDING_WINDOW_SIZE_MAX, Counts, CountWindow, TimeWindow

MULTIPLIER_PERCENT_MAX = 10_000
"""The largest multiplier that can be set: a hundred calls for each good one."""

cdef int64_t NS_PER_MS = 1_000_000

cdef int64_t TICK_MASK = (1LL << 43) - 1

_STATES = {int(state): state for state in (State.CLOSED, State.DISABLED, State.FORCED_OPEN, State.METRICS_ONLY)}


cdef int64_t _within(str name, int64_t value, int64_t least, int64_t most) except -1:
    if not least <= value <= most:
        raise ValueError(f"{name} is in [{least}, {most}]: {value}")
    return value


@cython.final
cdef class SheddingBreaker:
    """Tolerates failures up to a share, then refuses by chance. Used as a `Breaker`: a permit before, a report after.

    The sliding window holds the calls that were asked for, refused ones included. With K = `multiplier_percent` / 100
    a call is refused with the chance max(0, (asked - K x well) / (asked + 1)), at most `max_rejection_percent`, so that
    some calls always find out when it is over. So nothing is refused while at least 1 / K of the calls end well, nor
    while fewer than `minimum_number_of_calls` (at most the window's size, if that is count-based) are in the window. As
    refused calls are in it, too, a backend that can do only so many gets about K times as many, and one that is well
    again gets its calls back little by little: about K times as many with each window.

    A call counts when it has ended or was refused: calls under way, and those that were cancelled, count as neither.
    One that took longer than `slow_call_duration_ms` did not end well if `slow_call_rate_threshold` is under 100; at
    100, the default, slow calls are only counted.

    It is always CLOSED, unless set by hand: FORCED_OPEN lets nothing through, DISABLED and METRICS_ONLY let all
    through, and DISABLED records nothing. A result counts only in the state in which its call was permitted. Time is
    monotonic nanoseconds, given by the caller. Not to be shared by threads.

    ValueError: a setting out of range.
    """

    cdef Rng _rng
    cdef Window _asked  # in the window's words, `failed` did not end well, `slow` was refused
    cdef Window _ended  # what is told of the calls that were let through
    cdef int64_t _multiplier
    cdef int64_t _max_rejection
    cdef int64_t _slow_ns
    cdef bint _slow_is_bad
    cdef uint64_t _minimum
    cdef uint64_t _not_permitted
    cdef int64_t _generation
    cdef int64_t _since_ns
    cdef int _state

    def __cinit__(
        self,
        Rng rng not None,
        *,
        int64_t multiplier_percent=200,
        int64_t max_rejection_percent=95,
        double slow_call_rate_threshold=100.0,
        int64_t slow_call_duration_ms=60_000,
        sliding_window_type=WindowType.COUNT_BASED,
        int64_t sliding_window_size=100,
        int64_t minimum_number_of_calls=100,
    ):
        cdef bint by_count = WindowType(sliding_window_type) is WindowType.COUNT_BASED
        if not 0.0 < slow_call_rate_threshold <= 100.0:
            raise ValueError(f"slow_call_rate_threshold is in (0, 100]: {slow_call_rate_threshold}")
        _within("sliding_window_size", sliding_window_size, 1, SLIDING_WINDOW_SIZE_MAX)
        self._rng = rng
        self._multiplier = _within("multiplier_percent", multiplier_percent, 100, MULTIPLIER_PERCENT_MAX)
        self._max_rejection = _within("max_rejection_percent", max_rejection_percent, 1, 100)
        self._slow_ns = NS_PER_MS * _within("slow_call_duration_ms", slow_call_duration_ms, 1, DURATION_MS_MAX)
        self._slow_is_bad = slow_call_rate_threshold < 100.0
        self._minimum = _within("minimum_number_of_calls", minimum_number_of_calls, 1, SLIDING_WINDOW_SIZE_MAX)
        if by_count:
            self._minimum = min(self._minimum, <uint64_t>sliding_window_size)
        self._asked = CountWindow(sliding_window_size) if by_count else TimeWindow(sliding_window_size)
        self._ended = CountWindow(sliding_window_size) if by_count else TimeWindow(sliding_window_size)
        self._state = CLOSED

    cdef inline int64_t _excess(self) noexcept:
        """How many hundredths of calls are too many; the chance is that by a hundred times (asked + 1)."""
        cdef Sums* sums = &self._asked.sums
        if sums.total < self._minimum:
            return 0
        cdef int64_t asked = sums.total
        cdef int64_t excess = 100 * asked - self._multiplier * <int64_t>(sums.total - sums.failed)
        return max(0, min(excess, self._max_rejection * (asked + 1)))

    cdef bint _admitted(self, int64_t now_ns) noexcept:
        cdef uint64_t excess
        if self._state == CLOSED:
            self._asked.advance(now_ns)
            excess = <uint64_t>self._excess()
            if excess == 0 or self._rng.next_below(100 * (self._asked.sums.total + 1)) >= excess:
                return True
            self._asked.record_call(True, True, now_ns)
        elif self._state != FORCED_OPEN:
            return True
        self._not_permitted += 1
        return False

    def admit(self, int64_t now_ns):
        """Ask for a call at `now_ns`: a permit (an int, not negative) to give to `record`, or -1 when it is refused."""
        return self._generation if self._admitted(now_ns) else -1

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
        if permit == self._generation:
            self._count(outcome, duration_ns, now_ns)

    def begin(self, Clock clock not None):
        """Ask for a call now: a permit (an int, not negative) to give to `end`, or -1 when it is refused."""
        cdef int64_t now_ns = clock.now_ns()
        if not self._admitted(now_ns):
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

    cdef inline void _count(self, int outcome, int64_t duration_ns, int64_t now_ns) noexcept:
        """Take in the end of a call that was permitted in this state."""
        if self._state == DISABLED or outcome == CANCELLED:
            return
        cdef bint failed = outcome == FAILURE
        cdef bint slow = duration_ns > self._slow_ns
        self._asked.record_call(failed or (slow and self._slow_is_bad), False, now_ns)
        self._ended.record_call(failed, slow, now_ns)

    def transition_to(self, state, int64_t now_ns):
        """Go to `state` by hand, with empty windows: CLOSED, or DISABLED, FORCED_OPEN, METRICS_ONLY, which stay.

        ValueError: another State, or none.
        """
        if State(state) not in _STATES.values():
            raise ValueError(f"a breaker that sheds is never {State(state).name}")
        self._state = state
        self._generation += 1
        self._since_ns = now_ns
        self._not_permitted = 0
        self._asked.clear()
        self._ended.clear()

    def snapshot(self, int64_t now_ns):
        """State, rates and counts at `now_ns`, as a Snapshot; `counts` and rates are of the calls let through.

        `rejection_rate` is the chance in percent that the next call is refused, in METRICS_ONLY the one there would be.
        """
        self._asked.advance(now_ns)
        self._ended.advance(now_ns)
        cdef Sums* sums = &self._ended.sums
        cdef bint enough = sums.total > 0 and self._asked.sums.total >= self._minimum
        cdef double rejection_rate = <double>self._excess() / (self._asked.sums.total + 1)
        return Snapshot(
            state=_STATES[self._state],
            generation=self._generation,
            since_ns=self._since_ns,
            retry_at_ns=None,
            failure_rate=100.0 * sums.failed / sums.total if enough else None,
            slow_call_rate=100.0 * sums.slow / sums.total if enough else None,
            counts=Counts(sums.total, sums.failed, sums.slow, sums.slow_failed),
            not_permitted=self._not_permitted,
            rejection_rate=100.0 if self._state == FORCED_OPEN else rejection_rate,
        )

    @property
    def state(self):
        """The State: CLOSED unless set by hand."""
        return _STATES[self._state]

    @property
    def generation(self):
        """How often the state has changed."""
        return self._generation
