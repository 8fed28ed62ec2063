"""Sliding windows for Cython callers."""

from libc.stdint cimport int64_t, uint64_t


cdef struct Sums:
    uint64_t total
    uint64_t failed
    uint64_t slow
    uint64_t slow_failed


cdef class Window:
    cdef Sums sums  # as of the last record_call or advance
    cdef int64_t _size

    cdef void record_call(self, bint failed, bint slow, int64_t now_ns) noexcept
    cdef void advance(self, int64_t now_ns) noexcept
    cdef void clear(self) noexcept
