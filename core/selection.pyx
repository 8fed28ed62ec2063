# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# distutils: extra_compile_args=-ffp-contract=off
"""Pickers that go by turns, chance and load. Each picks an index into the list of weights that it was made of.

Weights are integers in [0, 2**31). A weight of 0 is never picked; weights that are all zero are refused.
Weighted turns are earliest deadline first, as in Envoy: https://www.envoyproxy.io/docs, "Supported load balancers".
"""

import cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_Index
from libc.math cimport INFINITY, pow
from libc.stdint cimport int64_t, uint32_t, uint64_t

from trunkline.core.clock cimport Rng
from trunkline.core.tournament cimport (
    double_of,
    index_of,
    move_winner,
    ordered_bits,
    start_tournament,
    turn,
    uint128_t,
    when_of,
)
from trunkline.core.weights cimport checked_count, read_weights

CHOICE_COUNT_MAX = 100
ACTIVE_REQUEST_BIAS_MAX = 10.0


cdef inline bint _all_equal(uint32_t* weights, uint32_t count) noexcept nogil:
    cdef uint32_t at
    for at in range(1, count):
        if weights[at] != weights[0]:
            return False
    return True


cdef int _make_schedule(Schedule* schedule, uint32_t* weights, uint32_t count) except -1:
    cdef uint32_t at
    schedule.count = count
    schedule.steps = <double*>PyMem_Malloc(count * sizeof(double))
    schedule.nodes = <uint128_t*>PyMem_Malloc(3 * <size_t>count * sizeof(uint128_t))
    if schedule.steps is NULL or schedule.nodes is NULL:
        raise MemoryError
    for at in range(count):
        schedule.steps[at] = 1.0 / weights[at] if weights[at] else INFINITY
    return 0


cdef void _free_schedule(Schedule* schedule) noexcept:
    PyMem_Free(schedule.steps)
    PyMem_Free(schedule.nodes)


cdef inline void _set_first(Schedule* schedule, uint32_t at, double deadline) noexcept nogil:
    (schedule.nodes + 2 * schedule.count)[at] = turn(ordered_bits(deadline), at, at)


cdef inline void _begin(Schedule* schedule) noexcept nogil:
    """Begin when all have their first deadline."""
    schedule.order = schedule.count
    start_tournament(schedule.nodes, schedule.nodes + schedule.count, schedule.count)


cdef inline uint32_t _due(Schedule* schedule) noexcept nogil:
    return index_of(schedule.nodes[0])


cdef inline void _put_off(Schedule* schedule, double step) noexcept nogil:
    """Give the one that is due its next deadline."""
    cdef double deadline = double_of(when_of(schedule.nodes[0])) + step
    move_winner(schedule.nodes, schedule.count, turn(ordered_bits(deadline), schedule.order, _due(schedule)))
    schedule.order += 1


@cython.final
cdef class RoundRobin:
    """By turns: plainly when all weights are equal, else in proportion and evenly spread, in O(log n) a pick.

    `start` goes on as if so many picks had been made (where several are due at once, perhaps in another order), so that
    clients that start together need not begin with the same one. It is in [0, 2**64) and may be a random number.

    ValueError: no weights, all of them zero, or one out of range.
    """

    def __cinit__(self, weights, *, uint64_t start=0):
        cdef uint64_t total = 0
        cdef uint32_t* read = read_weights(weights, &total)
        try:
            self._count = <uint32_t>len(weights)
            self._plain = _all_equal(read, self._count)
            self._next = <uint32_t>(start % self._count)
            if not self._plain:
                _make_schedule(&self._schedule, read, self._count)
                self._skip(read, total, start % total)
        finally:
            PyMem_Free(read)

    def __dealloc__(self):
        _free_schedule(&self._schedule)

    cdef void _skip(self, uint32_t* weights, uint64_t total, uint64_t start) noexcept:
        """Begin as after `start` picks: the turns that fit whole into each one's share of them; the rest by picking."""
        cdef uint64_t had
        cdef uint64_t left = start
        cdef uint32_t at
        for at in range(self._count):
            had = <uint64_t>(<uint128_t>start * weights[at] // total)
            left -= had
            _set_first(&self._schedule, at, (had + 1) * self._schedule.steps[at])
        _begin(&self._schedule)
        while left:
            self.next_index()
            left -= 1

    cdef uint32_t next_index(self) noexcept:
        cdef uint32_t picked
        if self._plain:
            picked = self._next
            self._next = picked + 1 if picked + 1 < self._count else 0
        else:
            picked = _due(&self._schedule)
            _put_off(&self._schedule, self._schedule.steps[picked])
        return picked

    def pick(self):
        """The index whose turn it is."""
        return self.next_index()


@cython.final
cdef class Random:
    """Each of n with the same chance. ValueError when n is not in [1, 1,000,000]."""

    def __cinit__(self, Py_ssize_t n, Rng rng not None):
        self._count = checked_count(n)
        self._rng = rng

    cdef uint32_t next_index(self) noexcept:
        return <uint32_t>self._rng.next_below(self._count)

    def pick(self):
        """A random index."""
        return self.next_index()


@cython.final
cdef class WeightedRandom:
    """Each with a chance in proportion to its weight, in O(1) a pick.

    Vose's alias table (A Linear Algorithm For Generating Random Numbers With a Given Distribution, 1991), built in
    integers, so that the shares are exact to 2**-64.

    ValueError: no weights, all of them zero, or one out of range.
    """

    def __cinit__(self, weights, Rng rng not None):
        cdef uint64_t total = 0
        cdef uint32_t* read = read_weights(weights, &total)
        try:
            self._rng = rng
            self._count = <uint32_t>len(weights)
            self._build(read, total)
        finally:
            PyMem_Free(read)

    def __dealloc__(self):
        PyMem_Free(self._cells)

    cdef int _build(self, uint32_t* weights, uint64_t total) except -1:
        cdef uint32_t count = self._count
        self._cells = <Cell*>PyMem_Calloc(count, sizeof(Cell))
        cdef uint64_t* left = <uint64_t*>PyMem_Malloc(count * sizeof(uint64_t))
        cdef uint32_t* waiting = <uint32_t*>PyMem_Malloc(count * sizeof(uint32_t))
        try:
            if self._cells is NULL or left is NULL or waiting is NULL:
                raise MemoryError
            self._pair_up(weights, total, left, waiting)
        finally:
            PyMem_Free(left)
            PyMem_Free(waiting)
        return 0

    cdef void _pair_up(self, uint32_t* weights, uint64_t total, uint64_t* left, uint32_t* waiting) noexcept:
        """Fill each cell with `total`: what its own index has of it, the rest from one that has more than a cell."""
        cdef uint32_t count = self._count
        cdef uint32_t poor = 0  # waiting[:poor] have less than a cell, waiting[rich:] as much or more
        cdef uint32_t rich = count
        cdef uint32_t at
        cdef uint32_t donor
        for at in range(count):
            left[at] = <uint64_t>weights[at] * count
            self._cells[at].other = at
            if left[at] < total:
                waiting[poor] = at
                poor += 1
            else:
                rich -= 1
                waiting[rich] = at
        # What is left over when the poor are used up are full cells, exactly, for these are integers.
        while poor:
            poor -= 1
            at = waiting[poor]
            donor = waiting[rich]
            self._cells[at].threshold = <uint64_t>((<uint128_t>left[at] << 64) // total)
            self._cells[at].other = donor
            left[donor] -= total - left[at]
            if left[donor] < total:
                rich += 1
                waiting[poor] = donor
                poor += 1

    cdef uint32_t next_index(self) noexcept:
        # One random number is enough: the upper half of the product is the cell, the lower half is uniform within it.
        cdef uint128_t product = <uint128_t>self._rng.next_u64() * self._count
        cdef uint32_t at = <uint32_t>(product >> 64)
        cdef Cell* cell = &self._cells[at]
        return at if <uint64_t>product < cell.threshold else cell.other

    def pick(self):
        """A random index."""
        return self.next_index()


@cython.final
cdef class LeastRequest:
    """The one with the fewest active requests of some random ones; when weights differ, weighted turns. As in Envoy.

    The caller says when a request starts and when it is finished. Of `choice_count` at random, not the least loaded of
    all: what a client knows of the load is old, and all clients would send to the same one at once. When the weights
    differ, each comes in turn as often as weight / (active + 1) ** active_request_bias says, which is worked out anew
    at each of its turns; a bias of 0 takes no notice of load.

    `active` are the requests that are under way already, when a new picker takes over from an old one.

    ValueError: no weights, all of them zero, or one out of range; `choice_count` not in [2, CHOICE_COUNT_MAX];
    `active_request_bias` not in [0, ACTIVE_REQUEST_BIAS_MAX]; `active` of another length than `weights` or with one out
    of range.
    """

    def __cinit__(
        self, weights, Rng rng not None, *, int64_t choice_count=2, double active_request_bias=1.0, active=()
    ):
        cdef uint64_t total = 0
        cdef uint32_t* read = read_weights(weights, &total)
        cdef uint32_t at
        try:
            if not 2 <= choice_count <= CHOICE_COUNT_MAX:
                raise ValueError(f"choice_count is in [2, {CHOICE_COUNT_MAX}]: {choice_count}")
            if not 0.0 <= active_request_bias <= ACTIVE_REQUEST_BIAS_MAX:
                raise ValueError(f"active_request_bias is in [0, {ACTIVE_REQUEST_BIAS_MAX}]: {active_request_bias}")
            self._rng = rng
            self._choices = <uint32_t>choice_count
            self._bias = active_request_bias
            self._count = <uint32_t>len(weights)
            self._plain = _all_equal(read, self._count)
            self._take_over(active)
            self._counts = &self._active
            if not self._plain:
                _make_schedule(&self._schedule, read, self._count)
                for at in range(self._count):
                    _set_first(&self._schedule, at, self._step(at))
                _begin(&self._schedule)
        finally:
            PyMem_Free(read)

    def __dealloc__(self):
        _free_schedule(&self._schedule)
        PyMem_Free(self._active)

    cdef int _take_over(self, active) except -1:
        cdef uint32_t at
        cdef int64_t requests
        self._active = <uint32_t*>PyMem_Calloc(self._count, sizeof(uint32_t))
        if self._active is NULL:
            raise MemoryError
        cdef tuple given = tuple(active)
        if not given:
            return 0
        if len(given) != self._count:
            raise ValueError(f"{self._count} weights, but active requests of {len(given)}")
        for at in range(self._count):
            requests = PyNumber_Index(given[at])
            if not 0 <= requests <= 0xFFFFFFFF:
                raise ValueError(f"active requests are in [0, 2**32): {requests}")
            self._active[at] = <uint32_t>requests
        return 0

    cdef void count_elsewhere(self, uint32_t** counts, uint32_t* slots) noexcept:
        cdef uint32_t at
        self._counts = counts
        self._slots = slots
        if not self._plain:
            for at in range(self._count):
                _set_first(&self._schedule, at, self._step(at))
            _begin(&self._schedule)

    cdef uint32_t _load(self, uint32_t at) noexcept:
        return self._counts[0][self._slots[at] if self._slots is not NULL else at]

    cdef uint32_t _least_of_some(self) noexcept:
        cdef uint32_t picked = <uint32_t>self._rng.next_below(self._count)
        cdef uint32_t other
        cdef uint32_t _choice
        for _choice in range(1, self._choices):
            other = <uint32_t>self._rng.next_below(self._count)
            if self._load(other) < self._load(picked):
                picked = other
        return picked

    cdef double _step(self, uint32_t at) noexcept:
        cdef double load = <double>self._load(at) + 1.0
        if self._bias != 1.0:
            load = pow(load, self._bias)
        return self._schedule.steps[at] * load

    cdef uint32_t _in_turn(self) noexcept:
        cdef uint32_t picked = _due(&self._schedule)
        _put_off(&self._schedule, self._step(picked))
        return picked

    cdef uint32_t next_index(self) noexcept:
        return self._least_of_some() if self._plain else self._in_turn()

    def pick(self):
        """The index to send the next request to. It is active only when `started` is called."""
        return self.next_index()

    def started(self, Py_ssize_t index):
        """Count one more active request; IndexError when there is no such index."""
        if not 0 <= index < self._count:
            raise IndexError(f"no index {index} of {self._count}")
        self._active[index] += 1

    def finished(self, Py_ssize_t index):
        """Count one active request less; IndexError when there is no such index, ValueError when it has none."""
        if not 0 <= index < self._count:
            raise IndexError(f"no index {index} of {self._count}")
        if self._active[index] == 0:
            raise ValueError(f"no request is active at {index}")
        self._active[index] -= 1

    def active(self, Py_ssize_t index):
        """How many requests are active; IndexError when there is no such index."""
        if not 0 <= index < self._count:
            raise IndexError(f"no index {index} of {self._count}")
        return self._active[index]
