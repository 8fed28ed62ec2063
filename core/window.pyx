# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Sliding windows: how many of the last calls, or of the last seconds' calls, failed or were slow.

Each call changes sums by what comes in and by what goes out, so that recording and asking cost the same for any size.
"""

from typing import NamedTuple

import cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

SLIDING_WINDOW_SIZE_MAX = 100_000
"""Calls of a count-based window, seconds of a time-based one."""

cdef int64_t NS_PER_SECOND = 1_000_000_000

cdef enum:
    FAILED_BIT = 1
    SLOW_BIT = 2


class Counts(NamedTuple):
    """What a window holds, in calls. `slow_failed` are in both `slow` and `failed`."""

    total: int
    failed: int
    slow: int
    slow_failed: int


cdef inline void _add(Sums* sums, bint failed, bint slow) noexcept nogil:
    sums.total += 1
    sums.failed += failed
    sums.slow += slow
    sums.slow_failed += failed & slow


cdef inline void _subtract(Sums* sums, const Sums* gone) noexcept nogil:
    sums.total -= gone.total
    sums.failed -= gone.failed
    sums.slow -= gone.slow
    sums.slow_failed -= gone.slow_failed


cdef int64_t _checked_size(int64_t size) except -1:
    if not 1 <= size <= SLIDING_WINDOW_SIZE_MAX:
        raise ValueError(f"size is in [1, {SLIDING_WINDOW_SIZE_MAX}]: {size}")
    return size


cdef class Window:
    """What the sliding windows have in common. Made as a CountWindow or a TimeWindow."""

    cdef void record_call(self, bint failed, bint slow, int64_t now_ns) noexcept:
        pass

    cdef void advance(self, int64_t now_ns) noexcept:
        """Drop what is too old at now_ns."""

    cdef void clear(self) noexcept:
        pass

    def record(self, bint failed, bint slow, int64_t now_ns):
        """Add a call that ended at `now_ns`, which does not go back (one that does counts as the latest)."""
        self.record_call(failed, slow, now_ns)

    def counts(self, int64_t now_ns):
        """The calls in the window at `now_ns`."""
        self.advance(now_ns)
        return Counts(self.sums.total, self.sums.failed, self.sums.slow, self.sums.slow_failed)


@cython.final
cdef class CountWindow(Window):
    """The last `size` calls, in one byte each. ValueError unless size is in [1, SLIDING_WINDOW_SIZE_MAX]."""

    cdef uint8_t* _calls  # FAILED_BIT and SLOW_BIT of each
    cdef int64_t _next

    def __cinit__(self, int64_t size):
        self._size = _checked_size(size)
        self._calls = <uint8_t*>PyMem_Calloc(size, 1)
        if self._calls is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._calls)

    cdef void record_call(self, bint failed, bint slow, int64_t now_ns) noexcept:
        cdef uint8_t gone = self._calls[self._next]
        if self.sums.total == <uint64_t>self._size:
            self.sums.total -= 1
            self.sums.failed -= gone & FAILED_BIT
            self.sums.slow -= gone >> 1
            self.sums.slow_failed -= gone == (FAILED_BIT | SLOW_BIT)
        self._calls[self._next] = <uint8_t>(failed | (slow << 1))
        _add(&self.sums, failed, slow)
        self._next = self._next + 1 if self._next + 1 < self._size else 0

    cdef void clear(self) noexcept:
        # The calls need no clearing: they are looked at only when `total` says that the ring is full again.
        memset(&self.sums, 0, sizeof(Sums))
        self._next = 0


@cython.final
cdef class TimeWindow(Window):
    """The calls of the last `size` seconds, in one bucket a second; the second that has begun is one of them.

    ValueError unless size is in [1, SLIDING_WINDOW_SIZE_MAX].
    """

    cdef Sums* _buckets
    cdef int64_t _second  # the newest one
    cdef int64_t _at  # and where its bucket is

    def __cinit__(self, int64_t size):
        self._size = _checked_size(size)
        self._buckets = <Sums*>PyMem_Calloc(size, sizeof(Sums))
        if self._buckets is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._buckets)

    cdef void advance(self, int64_t now_ns) noexcept:
        cdef int64_t second = now_ns // NS_PER_SECOND
        if second <= self._second:
            return
        if second - self._second >= self._size:
            self.clear()
        else:
            while self._second < second:  # at most one step for each second that has passed
                self._second += 1
                self._at = self._at + 1 if self._at + 1 < self._size else 0
                _subtract(&self.sums, &self._buckets[self._at])
                memset(&self._buckets[self._at], 0, sizeof(Sums))
        self._second = second

    cdef void record_call(self, bint failed, bint slow, int64_t now_ns) noexcept:
        self.advance(now_ns)
        _add(&self._buckets[self._at], failed, slow)
        _add(&self.sums, failed, slow)

    cdef void clear(self) noexcept:
        if self.sums.total:
            memset(self._buckets, 0, self._size * sizeof(Sums))
        memset(&self.sums, 0, sizeof(Sums))
