"""The calls in flight, for Cython callers."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from trunkline.core.breaker cimport Breaker
from trunkline.core.clock cimport Clock


cdef inline int64_t admit(object breaker, int64_t now_ns) except -2:
    if type(breaker) is Breaker:
        return (<Breaker>breaker).admitted(now_ns)
    return breaker.admit(now_ns)


cdef inline int record(object breaker, int64_t permit, int outcome, int64_t duration_ns, int64_t now_ns) except -1:
    if type(breaker) is Breaker:
        (<Breaker>breaker).recorded(permit, outcome, duration_ns, now_ns)
    else:
        breaker.record(permit, outcome, duration_ns, now_ns)
    return 0


@cython.final
cdef class _Group:
    cdef uint8_t* _inside
    cdef uint32_t _size
    cdef uint64_t total

    cdef void count(self, uint32_t slot, int by) noexcept


@cython.final
cdef class InFlight:
    cdef uint32_t* _active
    cdef uint8_t* _leaving
    cdef uint64_t* _refused  # the last call that an endpoint's breaker refused, by its number
    cdef uint64_t _number
    cdef uint32_t _size
    cdef uint32_t _room
    cdef uint64_t _total
    cdef uint64_t _max_requests
    cdef uint64_t _max_per_endpoint
    cdef Clock _clock
    cdef object _breaker
    cdef list _breakers
    cdef list _groups
    cdef list _free
    cdef uint32_t _guarded  # endpoints that have a breaker

    cdef uint32_t checked(self, Py_ssize_t slot) except? 0xFFFFFFFF
    cdef int count(self, uint32_t slot, int by) except -1
    # Count the calls at these endpoints together from now on, until forget_chains.
    cdef _Group group(self, uint32_t* slots, uint32_t count)

    # Not for others.
    cdef int _grow(self) except -1
    cdef int _set_free(self, uint32_t slot) except -1
    cdef int _guard(self, uint32_t slot, object breaker) except -1


@cython.final
cdef class Ticket:
    cdef InFlight _in_flight
    cdef object _breaker
    cdef object _endpoint_breaker
    cdef int64_t _permit
    cdef int64_t _endpoint_permit
    cdef readonly int64_t started_ns
    cdef readonly uint32_t slot
    cdef bint _ended
