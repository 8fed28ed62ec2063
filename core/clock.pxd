from libc.stdint cimport int64_t, uint64_t


cdef class Clock:
    cpdef int64_t now_ns(self) except? -1
    cpdef int64_t time_ns(self) except? -1


cdef class Rng:
    cdef uint64_t _s0
    cdef uint64_t _s1
    cdef uint64_t next_u64(self) noexcept
    cdef uint64_t next_below(self, uint64_t bound) noexcept
