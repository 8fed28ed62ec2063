"""The table for Cython callers."""

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from trunkline.core.tournament cimport uint128_t


cdef struct Walk:  # one host's way through the table
    uint64_t skip
    uint64_t next  # the place it looks at next
    double weight
    double target
    uint32_t host


@cython.final
cdef class Maglev:
    # The hash h is owned by the host in place h % _size. One of the two is there: half as wide for all but very many
    # hosts, so that a table of the usual size fits into a core's own cache beside what a call touches.
    cdef uint32_t* _table
    cdef uint16_t* _narrow
    cdef uint64_t _size

    cdef int _build(self, list addresses, uint32_t* shares, uint64_t total) except -1
    cdef int _plan(self, Walk* walks, list order, list addresses, uint32_t* shares, uint64_t total) except -1
    cdef int _fill(self, Walk* walks, uint32_t count, uint128_t* nodes) except -1
    cdef int _narrow_table(self) except -1

    cdef inline uint32_t _host_at(self, uint64_t place) noexcept nogil:
        return self._narrow[place] if self._table == NULL else self._table[place]
