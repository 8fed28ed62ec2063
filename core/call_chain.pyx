# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""What is done for each call: limits, breakers, the choice of an endpoint, and the count of what is in flight.

Memory is set aside when pools change; a call takes a ticket and nothing that grows with the number of endpoints.
"""

from collections.abc import Sequence

import cython
from cpython.list cimport PyList_GET_ITEM
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from trunkline.core.breaker cimport Breaker
from trunkline.core.clock cimport Clock, Rng
from trunkline.core.maglev cimport Maglev
from trunkline.core.ring cimport Ring
from trunkline.core.selection cimport LeastRequest, Random, RoundRobin, WeightedRandom
from trunkline.core.weights cimport read_weights

SLOTS_MAX = 1_000_000
"""Endpoints that one InFlight counts at most."""

cdef enum:
    # trunkline.core.policy.Algorithm
    ROUND_ROBIN = 1
    RANDOM = 2
    WEIGHTED_RANDOM = 3
    LEAST_REQUEST = 4
    RING_HASH = 5
    MAGLEV = 6

cdef enum:
    # trunkline.core.breaker.Outcome
    SUCCESS = 1
    CANCELLED = 3

cdef enum:
    TRIES = 8  # picks before all are looked at one by one
    WALK = 64  # places of a ring or table, likewise
    LEAVING = 1

cdef enum:
    GUARDED = 1  # by limits and breakers of endpoints
    BALANCED = 2  # by the bound on the load of hashing
    NOT_TRIED = 4

MAX_REQUESTS = "max_requests"
MAX_REQUESTS_PER_ENDPOINT = "max_requests_per_endpoint"
CIRCUIT_BREAKER = "circuit_breaker"
ENDPOINT_CIRCUIT_BREAKER = "endpoint_circuit_breaker"


cdef inline int64_t _admit(object breaker, int64_t now_ns) except -2:
    if type(breaker) is Breaker:
        return (<Breaker>breaker).admitted(now_ns)
    return breaker.admit(now_ns)


cdef inline int _record(object breaker, int64_t permit, int outcome, int64_t duration_ns, int64_t now_ns) except -1:
    if type(breaker) is Breaker:
        (<Breaker>breaker).recorded(permit, outcome, duration_ns, now_ns)
    else:
        breaker.record(permit, outcome, duration_ns, now_ns)
    return 0


@cython.final
cdef class Group:
    """How many calls are in flight at some of the endpoints together."""

    cdef uint8_t* _inside
    cdef uint32_t _size
    cdef uint64_t total

    def __dealloc__(self):
        PyMem_Free(self._inside)

    cdef inline void count(self, uint32_t slot, int by) noexcept:
        if slot < self._size and self._inside[slot]:
            self.total += by


@cython.final
cdef class InFlight:
    """The calls of one caller to one service that are under way, at each endpoint and in all, and what bounds them.

    An endpoint has a slot as long as it is there and until its last call has ended. Breakers are those of
    trunkline.core.breaker, or others with their `admit` and `record`. A limit of 0 sets none. Not to be shared by
    threads.
    """

    cdef uint32_t* _active
    cdef uint8_t* _leaving
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
    cdef bint _has_breakers

    def __cinit__(self, Clock clock not None):
        self._clock = clock
        self._breakers = []
        self._groups = []
        self._free = []

    def __dealloc__(self):
        PyMem_Free(self._active)
        PyMem_Free(self._leaving)

    def acquire(self):
        """A slot for a new endpoint; MemoryError when there are SLOTS_MAX."""
        if self._free:
            return self._free.pop()
        if self._size == self._room:
            self._grow()
        self._active[self._size] = 0
        self._leaving[self._size] = 0
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
        self._room = room
        return 0

    def release(self, Py_ssize_t slot):
        """Its endpoint has gone; the slot is free when its last call has ended. IndexError when it is not in use."""
        cdef uint32_t at = self._checked(slot)
        if self._leaving[at]:
            raise IndexError(f"slot {slot} is not in use")
        self._leaving[at] = LEAVING
        if self._active[at] == 0:
            self._set_free(at)

    cdef int _set_free(self, uint32_t slot) except -1:
        self._leaving[slot] = 0
        self._breakers[slot] = None
        self._free.append(slot)
        return 0

    cdef uint32_t _checked(self, Py_ssize_t slot) except? 0xFFFFFFFF:
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
        self._breakers[self._checked(slot)] = breaker
        self._has_breakers = any(one is not None for one in self._breakers) if breaker is None else True

    @property
    def breaker(self):
        """The breaker of the service."""
        return self._breaker

    def endpoint_breaker(self, Py_ssize_t slot):
        """The breaker of an endpoint."""
        return self._breakers[self._checked(slot)]

    @property
    def total(self):
        """Calls in flight."""
        return self._total

    def active(self, Py_ssize_t slot):
        """Calls in flight at an endpoint."""
        return self._active[self._checked(slot)]

    def full(self, Py_ssize_t slot):
        """Whether an endpoint has as many calls as it may have."""
        return self._max_per_endpoint != 0 and self._active[self._checked(slot)] >= self._max_per_endpoint

    def started(self, Py_ssize_t slot):
        """Count a call that no limit and no breaker was asked for."""
        self._count(self._checked(slot), 1)

    def finished(self, Py_ssize_t slot):
        """It has ended. ValueError when none is in flight there."""
        if self._active[self._checked(slot)] == 0:
            raise ValueError(f"no call is in flight at slot {slot}")
        self._count(<uint32_t>slot, -1)

    cdef inline int _count(self, uint32_t slot, int by) except -1:
        cdef Py_ssize_t at
        self._active[slot] += by
        self._total += by
        for at in range(len(self._groups)):
            (<Group>PyList_GET_ITEM(self._groups, at)).count(slot, by)
        if by < 0 and self._leaving[slot] and self._active[slot] == 0:
            self._set_free(slot)
        return 0

    cdef Group group(self, uint32_t* slots, uint32_t count):
        """Count the calls at these endpoints together from now on."""
        cdef Group made = Group()
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

    cdef InFlight _in_flight
    cdef object _breaker
    cdef object _endpoint_breaker
    cdef int64_t _permit
    cdef int64_t _endpoint_permit
    cdef readonly int64_t started_ns
    cdef readonly uint32_t slot
    cdef bint _ended

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
        self._in_flight._count(self.slot, -1)
        if self._endpoint_breaker is not None:
            _record(self._endpoint_breaker, self._endpoint_permit, endpoint_outcome, took_ns, now_ns)
        if self._breaker is not None:
            _record(self._breaker, self._permit, outcome, took_ns, now_ns)
        return took_ns


@cython.final
cdef class Picker:
    """One level of a pool: a picker, and the slots of those that it picks from."""

    cdef int _algorithm
    cdef RoundRobin _round_robin
    cdef Random _random
    cdef WeightedRandom _weighted_random
    cdef LeastRequest _least_request
    cdef Ring _ring
    cdef Maglev _maglev
    cdef Rng _rng
    cdef uint32_t _count
    cdef uint32_t _load
    cdef uint32_t* _slots
    cdef uint32_t* _weights
    cdef uint64_t _weight
    cdef uint64_t _factor
    cdef Group _group

    def __cinit__(self, InFlight in_flight, Rng rng, load_balancing, uint32_t load, slots, weights, hosts):
        cdef uint32_t at
        self._algorithm = int(load_balancing.algorithm)
        self._rng = rng
        self._load = load
        self._weights = read_weights(weights, &self._weight)
        self._count = <uint32_t>len(weights)
        self._slots = <uint32_t*>PyMem_Malloc(self._count * sizeof(uint32_t))
        if self._slots is NULL:
            raise MemoryError
        if len(slots) != self._count:
            raise ValueError(f"{len(slots)} slots have {self._count} weights")
        for at in range(self._count):
            self._slots[at] = in_flight._checked(slots[at])
        self._make(in_flight, load_balancing, weights, hosts)
        if self._algorithm >= RING_HASH and load_balancing.hash_balance_factor:
            self._factor = max(100, <int>load_balancing.hash_balance_factor)
            self._group = in_flight.group(self._slots, self._count)

    def __dealloc__(self):
        PyMem_Free(self._slots)
        PyMem_Free(self._weights)

    cdef int _make(self, InFlight in_flight, load_balancing, weights, hosts) except -1:
        if self._algorithm == ROUND_ROBIN:
            # A random start: callers that learn of the same state at once should not all begin with the same one.
            self._round_robin = RoundRobin(weights, start=self._rng.next_below(self._count))
        elif self._algorithm == RANDOM:
            self._random = Random(self._count, self._rng)
        elif self._algorithm == WEIGHTED_RANDOM:
            self._weighted_random = WeightedRandom(weights, self._rng)
        elif self._algorithm == LEAST_REQUEST:
            self._least_request = LeastRequest(
                weights,
                self._rng,
                choice_count=load_balancing.choice_count,
                active_request_bias=load_balancing.active_request_bias,
            )
            self._least_request.count_elsewhere(&in_flight._active, self._slots)
        elif self._algorithm == RING_HASH:
            sizes = load_balancing.minimum_ring_size, load_balancing.maximum_ring_size
            self._ring = Ring(hosts, weights, minimum_ring_size=sizes[0], maximum_ring_size=sizes[1])
        elif self._algorithm == MAGLEV:
            self._maglev = Maglev(hosts, weights, table_size=load_balancing.table_size)
        else:
            raise ValueError(f"{load_balancing.algorithm} is no Algorithm")
        return 0

    cdef inline uint32_t _next(self) noexcept:
        if self._algorithm == ROUND_ROBIN:
            return self._round_robin.next_index()
        if self._algorithm == RANDOM:
            return self._random.next_index()
        if self._algorithm == WEIGHTED_RANDOM:
            return self._weighted_random.next_index()
        return self._least_request.next_index()

    cdef inline bint _has_room(self, uint32_t at, uint64_t active) noexcept:
        """Whether one more call keeps it within the bound: Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with
        Bounded Loads (2016), with weights as in Envoy. The bounds of all add up to more than there are calls."""
        cdef uint64_t calls = ((self._group.total + 1) * self._factor + 99) // 100
        cdef uint64_t bound = (calls * self._weights[at] + self._weight - 1) // self._weight
        return active < max(bound, <uint64_t>1)

    cdef inline uint64_t _entries(self):
        if self._algorithm == RING_HASH:
            return self._count + self._ring._size
        return self._count + (self._maglev._size if self._algorithm == MAGLEV else 0)


@cython.final
cdef class CallChain:
    """Sends calls to the endpoints of one pool.

    `levels` are (percent of the calls, slots, weights, hosts) of those that are equally near; the percents add up to
    100. `load_balancing` is a trunkline.core.policy.LoadBalancingPolicy.

    What an endpoint's limit, its breaker or the bound of hashing does not let through goes to another: the next picks,
    then whoever is found when all are looked at. With hashing the next one is the next on the ring or in the table, so
    a key that is sent away is always sent to the same one.

    ValueError: no levels, one with nobody in it, or percents that do not add up to 100.
    """

    cdef InFlight _in_flight
    cdef Rng _rng
    cdef list _pickers
    cdef bint _hashes
    cdef str _refusal

    def __cinit__(self, InFlight in_flight not None, Rng rng not None, load_balancing, levels: Sequence):
        self._in_flight = in_flight
        self._rng = rng
        self._pickers = [Picker(in_flight, rng, load_balancing, *level) for level in levels]
        self._hashes = int(load_balancing.algorithm) >= RING_HASH
        self._refusal = ""
        if sum(level[0] for level in levels) != 100:
            raise ValueError("the levels' calls are 100 percent")

    def begin(self, hash=None, avoid=None):
        """Let a call through: a Ticket; None when it is refused, and `refusal` says why.

        `hash` is that of its key, a uint64; None sends it anywhere. `avoid` are slots (a container) that are taken only
        when there is no other.
        """
        cdef InFlight calls = self._in_flight
        cdef int64_t now_ns = calls._clock.now_ns()
        cdef int64_t permit = -1
        cdef int64_t endpoint_permit = -1
        if calls._max_requests and calls._total >= calls._max_requests:
            self._refusal = MAX_REQUESTS
            return None
        if calls._breaker is not None:
            permit = _admit(calls._breaker, now_ns)
            if permit < 0:
                self._refusal = CIRCUIT_BREAKER
                return None
        cdef int64_t slot = self._find(hash, avoid, now_ns, &endpoint_permit, GUARDED)
        if slot < 0:
            if permit >= 0:
                _record(calls._breaker, permit, CANCELLED, 0, now_ns)
            return None
        calls._count(<uint32_t>slot, 1)
        cdef Ticket ticket = Ticket.__new__(Ticket)
        ticket._in_flight = calls
        ticket.slot = <uint32_t>slot
        ticket.started_ns = now_ns
        if permit >= 0:
            ticket._permit = permit
            ticket._breaker = calls._breaker
        if endpoint_permit >= 0:
            ticket._endpoint_permit = endpoint_permit
            ticket._endpoint_breaker = calls._breakers[<Py_ssize_t>slot]
        return ticket

    def pick(self, hash=None, avoid=None):
        """The slot that a call would go to if no limit and no breaker were in its way. Counts nothing."""
        cdef int64_t permit = -1
        return self._find(hash, avoid, 0, &permit, 0)

    @property
    def refusal(self):
        """Why the last call was refused that was."""
        return self._refusal

    @property
    def entries(self):
        """Its endpoints and the entries of its tables."""
        return sum((<Picker>picker)._entries() for picker in self._pickers)

    cdef int64_t _find(self, object hash, object avoid, int64_t now_ns, int64_t* permit, int guards) except -2:
        """A slot, or -1 when all refuse."""
        cdef uint64_t hashed = 0
        cdef Py_ssize_t first = 0
        cdef int64_t found
        cdef int rules = guards | BALANCED | (NOT_TRIED if avoid else 0)
        if self._hashes:
            hashed = self._rng.next_u64() if hash is None else <uint64_t>hash
        if len(self._pickers) > 1:
            first = self._level(hashed % 100 if self._hashes else self._rng.next_below(100))
        cdef Picker picker = <Picker>PyList_GET_ITEM(self._pickers, first)
        if picker._algorithm == RING_HASH:
            found = self._along_ring(picker, hashed, avoid, now_ns, permit, rules)
        elif picker._algorithm == MAGLEV:
            found = self._along_table(picker, hashed, avoid, now_ns, permit, rules)
        else:
            found = self._by_turns(picker, avoid, now_ns, permit, rules)
        return found if found >= 0 else self._scan(first, hashed, avoid, now_ns, permit, rules)

    cdef inline Py_ssize_t _level(self, uint64_t percent) noexcept:
        cdef Py_ssize_t at = 0
        cdef uint64_t sum = (<Picker>PyList_GET_ITEM(self._pickers, 0))._load
        while sum <= percent:
            at += 1
            sum += (<Picker>PyList_GET_ITEM(self._pickers, at))._load
        return at

    cdef inline int64_t _by_turns(
        self, Picker picker, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        cdef uint32_t at
        cdef int _try
        for _try in range(TRIES):
            at = picker._next()
            if self._takes(picker, at, avoid, now_ns, permit, rules):
                return picker._slots[at]
        return -1

    cdef int64_t _along_ring(
        self, Picker picker, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        cdef Ring ring = picker._ring
        cdef uint32_t place = ring.place_of(hash)
        cdef uint32_t last = 0xFFFFFFFF
        cdef uint32_t at
        cdef uint32_t _step
        for _step in range(min(<uint32_t>WALK, ring._size)):
            at = ring._points[place].owner
            if at != last and self._takes(picker, at, avoid, now_ns, permit, rules):
                return picker._slots[at]
            last = at
            place = place + 1 if place + 1 < ring._size else 0
        return -1

    cdef int64_t _along_table(
        self, Picker picker, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        cdef Maglev maglev = picker._maglev
        cdef uint64_t place = hash % maglev._size
        cdef uint32_t last = 0xFFFFFFFF
        cdef uint32_t at
        cdef uint64_t _step
        for _step in range(min(<uint64_t>WALK, maglev._size)):
            at = maglev._table[place]
            if at != last and self._takes(picker, at, avoid, now_ns, permit, rules):
                return picker._slots[at]
            last = at
            place = place + 1 if place + 1 < maglev._size else 0
        return -1

    cdef int64_t _scan(
        self, Py_ssize_t first, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        """Look at everybody, at first by all rules, in the end only by limits and breakers."""
        cdef int64_t found
        cdef Py_ssize_t levels = len(self._pickers)
        cdef Py_ssize_t at
        cdef int dropped
        self._refusal = MAX_REQUESTS_PER_ENDPOINT
        for dropped in (0, NOT_TRIED, NOT_TRIED | BALANCED):
            for at in range(levels):
                picker = <Picker>PyList_GET_ITEM(self._pickers, (first + at) % levels)
                found = self._scan_level(picker, hash, avoid, now_ns, permit, rules & ~dropped)
                if found >= 0:
                    return found
        return -1

    cdef int64_t _scan_level(
        self, Picker picker, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        cdef uint64_t start = hash if self._hashes else self._rng.next_u64()
        cdef uint32_t at = <uint32_t>(start % picker._count)
        cdef uint32_t _step
        for _step in range(picker._count):
            if picker._weights[at] and self._takes(picker, at, avoid, now_ns, permit, rules):
                return picker._slots[at]
            at = at + 1 if at + 1 < picker._count else 0
        return -1

    cdef inline bint _takes(
        self, Picker picker, uint32_t at, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -1:
        cdef InFlight calls = self._in_flight
        cdef uint32_t slot = picker._slots[at]
        cdef uint64_t active = calls._active[slot]
        if picker._factor and rules & BALANCED and not picker._has_room(at, active):
            return False
        if rules & NOT_TRIED and slot in avoid:
            return False
        if not rules & GUARDED:
            return True
        if calls._max_per_endpoint and active >= calls._max_per_endpoint:
            return False
        return not calls._has_breakers or self._admits(slot, now_ns, permit)

    cdef bint _admits(self, uint32_t slot, int64_t now_ns, int64_t* permit) except -1:
        breaker = self._in_flight._breakers[<Py_ssize_t>slot]
        if breaker is None:
            return True
        permit[0] = _admit(breaker, now_ns)
        if permit[0] >= 0:
            return True
        self._refusal = ENDPOINT_CIRCUIT_BREAKER
        return False
