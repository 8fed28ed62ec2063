"""The table for Cython callers."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from trunkline.core.tournament cimport uint128_t


cdef struct Walk:  # one host's way through the table
    uint64_t skip
    uint64_t next  # the place it looks at next
    double weight
    double target
    uint32_t host


@cython.final
cdef class Maglev:
    cdef uint32_t* _table  # the hash h is owned by the host in place h % _size
    cdef uint64_t _size

    cdef int _build(self, list addresses, uint32_t* shares, uint64_t total) except -1
    cdef int _plan(self, Walk* walks, list order, list addresses, uint32_t* shares, uint64_t total) except -1
    cdef int _fill(self, Walk* walks, uint32_t count, uint128_t* nodes) except -1
    cdef uint32_t _owner_of(self, uint64_t hash) noexcept nogil
