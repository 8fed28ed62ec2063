"""The ring for Cython callers."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t


cdef struct Point:
    uint64_t hash
    uint32_t owner


@cython.final
cdef class Ring:
    cdef Point* _points
    cdef uint32_t* _starts
    cdef uint32_t _size
    cdef int _shift

    # The number of the point that owns a hash. Behind the last point comes the first.
    cdef uint32_t place_of(self, uint64_t hash) noexcept nogil
    cdef int _build(self, list addresses, uint32_t* shares, uint64_t total, double minimum, double maximum) except -1
    cdef uint32_t _add_points(self, bytes address, uint32_t host, uint32_t size, uint32_t until) except 0
    cdef int _index_starts(self) except -1
    cdef uint32_t _owner_of(self, uint64_t hash) noexcept nogil
