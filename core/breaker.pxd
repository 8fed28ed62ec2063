"""The breaker for Cython callers."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from trunkline.core.window cimport Window

cdef enum:
    # trunkline.core.breaker.State
    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3
    DISABLED = 4
    FORCED_OPEN = 5
    METRICS_ONLY = 6

cdef enum:
    # trunkline.core.breaker.Outcome
    SUCCESS = 1
    FAILURE = 2
    CANCELLED = 3

cdef enum:
    # A permit from `begin`: in the upper bits when, in ticks of 1,024 ns modulo 104 days, in the lower the generation
    # modulo a million. One int holds both, so that a call costs no object.
    TICK_BITS = 10
    GENERATION_BITS = 20
    GENERATION_MASK = (1 << 20) - 1


@cython.final
cdef class Breaker:
    cdef Window _window
    cdef Window _closed_window
    cdef Window _half_open_window
    cdef double _failure_rate_threshold
    cdef double _slow_call_rate_threshold
    cdef int64_t _slow_ns
    cdef int64_t _wait_ns
    cdef int64_t _half_open_wait_ns
    cdef uint64_t _minimum
    cdef uint64_t _permitted
    cdef uint64_t _slots
    cdef uint64_t _not_permitted
    cdef int64_t _generation
    cdef int64_t _since_ns
    cdef int _state

    # As `admit` and `record` do, without their checks.
    cdef int64_t admitted(self, int64_t now_ns) noexcept
    cdef void recorded(self, int64_t permit, int outcome, int64_t duration_ns, int64_t now_ns) noexcept

    # Not for others.
    cdef void _enter(self, int state, int64_t now_ns) noexcept
    cdef int64_t _admit_half_open(self, int64_t now_ns) noexcept
    cdef void _give_back(self) noexcept
    cdef uint64_t _least_calls(self) noexcept
    cdef bint _over_threshold(self) noexcept
    cdef int64_t _refuse(self) noexcept
    cdef void _count(self, int outcome, int64_t duration_ns, int64_t now_ns) noexcept
