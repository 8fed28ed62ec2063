# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The calls of one caller to one service that are under way, and what bounds them."""

import cython
from cpython.list cimport PyList_GET_ITEM
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from trunkline.core.breaker cimport CANCELLED, SUCCESS
from trunkline.core.clock cimport Clock

SLOTS_MAX = 1_000_000
"""Endpoints that one InFlight counts at most."""

cdef enum:
    LEAVING = 1
    FREE = 2


@cython.final
cdef class _Group:
    """How many calls are in flight at some of the endpoints together."""

    def __dealloc__(self):
        PyMem_Free(self._inside)

    cdef void count(self, uint32_t slot, int by) noexcept:
        if slot < self._size and self._inside[slot]:
            self.total += by


@cython.final
cdef class InFlight:
    """The calls of one caller to one service that are under way, at each endpoint and in all, and what bounds them.

    An endpoint has a slot as long as it is there and until its last call has ended. Breakers are those of
    trunkline.core.breaker, or others with their `admit` and `record`. A limit of 0 sets none. Not to be shared by
    threads.
    """

    def __cinit__(self, Clock clock not None):
        self._clock = clock
        self._breakers = []
        self._groups = []
        self._free = []

    def __dealloc__(self):
        PyMem_Free(self._active)
        PyMem_Free(self._leaving)
        PyMem_Free(self._refused)

    def acquire(self):
        """A slot for a new endpoint; MemoryError when there are SLOTS_MAX."""
        cdef uint32_t slot
        if self._free:
            slot = self._free.pop()
            self._leaving[slot] = 0
            return slot
        if self._size == self._room:
            self._grow()
        self._active[self._size] = 0
        self._leaving[self._size] = 0
        self._refused[self._size] = 0
        self._breakers.append(None)
        self._size += 1
        return self._size - 1

    cdef int _grow(self) except -1:
        cdef uint32_t room = 2 * self._room if self._room else 16
        if self._room >= SLOTS_MAX:
            raise MemoryError(f"more than {SLOTS_MAX} endpoints")
        cdef uint32_t* active = <uint32_t*>PyMem_Realloc(self._active, room * sizeof(uint32_t))
        if active is NULL:
            raise MemoryError
        self._active = active
        cdef uint8_t* leaving = <uint8_t*>PyMem_Realloc(self._leaving, room)
        if leaving is NULL:
            raise MemoryError
        self._leaving = leaving
        cdef uint64_t* refused = <uint64_t*>PyMem_Realloc(self._refused, room * sizeof(uint64_t))
        if refused is NULL:
            raise MemoryError
        self._refused = refused
        self._room = room
        return 0

    def release(self, Py_ssize_t slot):
        """Its endpoint has gone; the slot is free when its last call has ended. IndexError when it is not in use."""
        cdef uint32_t at = self.checked(slot)
        if self._leaving[at]:
            raise IndexError(f"slot {slot} is not in use")
        self._leaving[at] = LEAVING
        if self._active[at] == 0:
            self._set_free(at)

    cdef int _set_free(self, uint32_t slot) except -1:
        self._leaving[slot] = FREE
        self._guard(slot, None)
        self._free.append(slot)
        return 0

    cdef uint32_t checked(self, Py_ssize_t slot) except? 0xFFFFFFFF:
        if not 0 <= slot < self._size:
            raise IndexError(f"no slot {slot} of {self._size}")
        return <uint32_t>slot

    def set_limits(self, *, uint32_t max_requests=0, uint32_t max_requests_per_endpoint=0):
        """How many may be in flight. Calls that are over already go on."""
        self._max_requests = max_requests
        self._max_per_endpoint = max_requests_per_endpoint

    def set_breaker(self, breaker):
        """The breaker of the service; None for none. Calls in flight report to the one that let them through."""
        self._breaker = breaker

    def set_endpoint_breaker(self, Py_ssize_t slot, breaker):
        """The breaker of an endpoint; None for none."""
        self._guard(self.checked(slot), breaker)

    cdef int _guard(self, uint32_t slot, object breaker) except -1:
        self._guarded += (breaker is not None) - (self._breakers[<Py_ssize_t>slot] is not None)
        self._breakers[<Py_ssize_t>slot] = breaker
        return 0

    @property
    def breaker(self):
        """The breaker of the service."""
        return self._breaker

    def endpoint_breaker(self, Py_ssize_t slot):
        """The breaker of an endpoint."""
        return self._breakers[self.checked(slot)]

    @property
    def total(self):
        """Calls in flight."""
        return self._total

    def active(self, Py_ssize_t slot):
        """Calls in flight at an endpoint."""
        return self._active[self.checked(slot)]

    def full(self, Py_ssize_t slot):
        """Whether an endpoint has as many calls as it may have."""
        return self._max_per_endpoint != 0 and self._active[self.checked(slot)] >= self._max_per_endpoint

    def started(self, Py_ssize_t slot):
        """Count a call that no limit and no breaker was asked for."""
        self.count(self.checked(slot), 1)

    def finished(self, Py_ssize_t slot):
        """It has ended. ValueError when none is in flight there."""
        if self._active[self.checked(slot)] == 0:
            raise ValueError(f"no call is in flight at slot {slot}")
        self.count(<uint32_t>slot, -1)

    cdef int count(self, uint32_t slot, int by) except -1:
        cdef Py_ssize_t at
        self._active[slot] += by
        self._total += by
        for at in range(len(self._groups)):
            (<_Group>PyList_GET_ITEM(self._groups, at)).count(slot, by)
        if by < 0 and self._leaving[slot] == LEAVING and self._active[slot] == 0:
            self._set_free(slot)
        return 0

    cdef _Group group(self, uint32_t* slots, uint32_t count):
        """Count the calls at these endpoints together from now on."""
        cdef _Group made = _Group()
        cdef uint32_t at
        made._size = self._size
        made._inside = <uint8_t*>PyMem_Calloc(max(self._size, 1), 1)
        if made._inside is NULL:
            raise MemoryError
        for at in range(count):
            made._inside[slots[at]] = 1
            made.total += self._active[slots[at]]
        self._groups.append(made)
        return made

    def forget_chains(self):
        """The chains that were made are used no more."""
        self._groups = []


@cython.final
@cython.freelist(256)
@cython.no_gc
cdef class Ticket:
    """A call that was let through: where to, and whom to tell how it ended."""

    def end(self, int outcome, int endpoint_outcome=0):
        """Report how the call ended, an Outcome; how long it took, in nanoseconds. ValueError when it was reported.

        `endpoint_outcome` is what the endpoint's breaker is told, if that counts other codes; 0 tells it the same.
        """
        if self._ended:
            raise ValueError("this call has ended already")
        if endpoint_outcome == 0:
            endpoint_outcome = outcome
        if outcome < SUCCESS or outcome > CANCELLED or endpoint_outcome < SUCCESS or endpoint_outcome > CANCELLED:
            raise ValueError(f"{outcome} or {endpoint_outcome} is no Outcome")
        self._ended = True
        cdef int64_t now_ns = self._in_flight._clock.now_ns()
        cdef int64_t took_ns = max(0, now_ns - self.started_ns)
        self._in_flight.count(self.slot, -1)
        if self._endpoint_breaker is not None:
            record(self._endpoint_breaker, self._endpoint_permit, endpoint_outcome, took_ns, now_ns)
        if self._breaker is not None:
            record(self._breaker, self._permit, outcome, took_ns, now_ns)
        return took_ns
