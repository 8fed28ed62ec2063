"""Pickers for Cython callers."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from trunkline.core.clock cimport Rng
from trunkline.core.tournament cimport uint128_t


cdef struct Schedule:
    # Who is due next: each has a deadline, and after its turn another, a step later. Ties go to who has waited longest.
    uint32_t count
    uint64_t order
    double* steps  # 1 / weight; infinite for weight 0, so that it never comes
    uint128_t* nodes


cdef struct Cell:
    uint64_t threshold  # in 2**-64: under it the cell's own index is picked, else `other`
    uint32_t other


@cython.final
cdef class RoundRobin:
    cdef Schedule _schedule
    cdef uint32_t _count
    cdef uint32_t _next
    cdef bint _plain

    cdef uint32_t next_index(self) noexcept
    cdef void _skip(self, uint32_t* weights, uint64_t total, uint64_t start) noexcept


@cython.final
cdef class Random:
    cdef Rng _rng
    cdef uint32_t _count

    cdef uint32_t next_index(self) noexcept


@cython.final
cdef class WeightedRandom:
    cdef Rng _rng
    cdef Cell* _cells
    cdef uint32_t _count

    cdef uint32_t next_index(self) noexcept
    cdef int _build(self, uint32_t* weights, uint64_t total) except -1
    cdef void _pair_up(self, uint32_t* weights, uint64_t total, uint64_t* left, uint32_t* waiting) noexcept


@cython.final
cdef class LeastRequest:
    cdef Rng _rng
    cdef Schedule _schedule
    cdef uint32_t* _active  # its own counts
    cdef uint32_t** _counts  # those that it goes by
    cdef uint32_t* _slots  # where in these each index is; NULL when they are in order
    cdef double _bias
    cdef uint32_t _count
    cdef uint32_t _choices
    cdef bint _plain

    cdef uint32_t next_index(self) noexcept
    # Go by counts that somebody else keeps, who keeps the memory, too, as long as this picks; `started` and `finished`
    # say nothing any more.
    cdef void count_elsewhere(self, uint32_t** counts, uint32_t* slots) noexcept
    cdef int _take_over(self, active) except -1
    cdef uint32_t _load(self, uint32_t at) noexcept
    cdef uint32_t _least_of_some(self) noexcept
    cdef double _step(self, uint32_t at) noexcept
    cdef uint32_t _in_turn(self) noexcept
