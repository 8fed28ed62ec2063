# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""What is done for each call: limits, breakers, the choice of an endpoint, and the count of what is in flight.

Memory is set aside when pools change; a call takes a ticket and nothing that grows with the number of endpoints.
"""

from collections.abc import Sequence

import cython
from cpython.list cimport PyList_GET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint32_t, uint64_t

from trunkline.core.breaker cimport CANCELLED
from trunkline.core.clock cimport Rng
from trunkline.core.in_flight cimport InFlight, Ticket, _Group, admit, record
from trunkline.core.maglev cimport Maglev
from trunkline.core.ring cimport Ring
from trunkline.core.selection cimport LeastRequest, Random, RoundRobin, WeightedRandom
from trunkline.core.weights cimport read_weights

cdef enum:
    # trunkline.core.policy.Algorithm
    ROUND_ROBIN = 1
    RANDOM = 2
    WEIGHTED_RANDOM = 3
    LEAST_REQUEST = 4
    RING_HASH = 5
    MAGLEV = 6

cdef enum:
    TRIES = 8  # picks before all are looked at one by one
    WALK = 64  # places of a ring or table, likewise

cdef enum:
    GUARDED = 1  # by limits and breakers of endpoints
    BALANCED = 2  # by the bound on the load of hashing
    NOT_TRIED = 4
    ONLY_OTHERS = 8  # NOT_TRIED gives way to nothing

MAX_REQUESTS = "max_requests"
MAX_REQUESTS_PER_ENDPOINT = "max_requests_per_endpoint"
CIRCUIT_BREAKER = "circuit_breaker"
ENDPOINT_CIRCUIT_BREAKER = "endpoint_circuit_breaker"


@cython.final
cdef class LevelPicker:
    """One level of a pool: what picks from those that are equally near.

    `load` is its percent of the pool's calls; `slots`, `weights` and `hosts` are of each. Only what hashes asks for
    `hosts`. `load_balancing` is a trunkline.core.policy.LoadBalancingPolicy.

    ValueError: nobody is in it, or a table cannot be made of them.
    """

    cdef InFlight _in_flight
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
    cdef _Group _group

    def __cinit__(
        self, InFlight in_flight not None, Rng rng not None, load_balancing, uint32_t load, slots, weights, hosts=()
    ):
        cdef uint32_t at
        self._in_flight = in_flight
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
            self._slots[at] = in_flight.checked(slots[at])
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
        if active == 0:
            return True  # whatever the bound, which is a division
        cdef uint64_t calls = ((self._group.total + 1) * self._factor + 99) // 100
        cdef uint64_t bound = (calls * self._weights[at] + self._weight - 1) // self._weight
        return active < bound

    cdef inline uint64_t _entries(self):
        if self._algorithm == RING_HASH:
            return self._count + self._ring._size
        return self._count + (self._maglev._size if self._algorithm == MAGLEV else 0)


@cython.final
cdef class CallChain:
    """Sends calls to the endpoints of one pool.

    `levels` are LevelPickers over the same InFlight, nearest first; their percents add up to 100.

    What an endpoint's limit, its breaker or the bound of hashing does not let through goes to another: the next picks,
    then whoever is found when all are looked at. With hashing the next one is the next on the ring or in the table, so
    a key that is sent away is always sent to the same one.

    `spare` makes the chain (or None) of those who are held back as long as the breakers of the others let anything
    through. It is asked once, when they first do not.

    ValueError: no levels, one over another InFlight, or percents that do not add up to 100.
    """

    cdef InFlight _in_flight
    cdef Rng _rng
    cdef list _pickers
    cdef bint _hashes
    cdef str _refusal
    cdef object _make_reserve
    cdef CallChain _reserve

    def __cinit__(self, InFlight in_flight not None, Rng rng not None, levels: Sequence, spare=None):
        self._in_flight = in_flight
        self._rng = rng
        self._pickers = list(levels)
        self._refusal = ""
        self._make_reserve = spare
        cdef uint64_t load = 0
        for level in self._pickers:
            load += (<LevelPicker?>level)._load
            if (<LevelPicker>level)._in_flight is not in_flight:
                raise ValueError("a level counts other calls")
        if load != 100:
            raise ValueError("the levels' calls are 100 percent")
        self._hashes = (<LevelPicker>self._pickers[0])._algorithm >= RING_HASH

    def begin(self, hash=None, avoid=None, other=None):
        """Let a call through: a Ticket; None when it is refused, and `refusal` says why.

        `hash` is that of its key, a uint64; None sends it anywhere. `avoid` are slots (a container) that are taken only
        when there is no other. `other` gives another chain (or None), which is asked before any of them is.
        """
        cdef InFlight calls = self._in_flight
        cdef int64_t now_ns = calls._clock.now_ns()
        cdef int64_t permit = -1
        cdef int64_t endpoint_permit = -1
        cdef int64_t slot
        cdef int guards = GUARDED if other is None else GUARDED | ONLY_OTHERS
        calls._number += 1
        if calls._max_requests and calls._total >= calls._max_requests:
            self._refusal = MAX_REQUESTS
            return None
        if calls._breaker is not None:
            permit = admit(calls._breaker, now_ns)
            if permit < 0:
                self._refusal = CIRCUIT_BREAKER
                return None
        try:
            slot = self._find(hash, avoid, now_ns, &endpoint_permit, guards)
            if slot < 0:
                slot = self._find_elsewhere(hash, avoid, now_ns, &endpoint_permit, other)
        except BaseException:
            if permit >= 0:
                record(calls._breaker, permit, CANCELLED, 0, now_ns)
            raise
        if slot < 0:
            if permit >= 0:
                record(calls._breaker, permit, CANCELLED, 0, now_ns)
            return None
        calls.count(<uint32_t>slot, 1)
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

    cdef int64_t _find_elsewhere(
        self, object hash, object avoid, int64_t now_ns, int64_t* permit, object other
    ) except -2:
        """A slot of another chain or of those who are held back, or -1 when they refuse, too."""
        cdef CallChain chain = self
        cdef CallChain asked
        cdef int64_t slot = -1
        if other is not None:
            asked = other()
            if asked is not None:
                chain = asked
            slot = chain._find(hash, avoid, now_ns, permit, GUARDED)
        if slot < 0 and chain._refusal == ENDPOINT_CIRCUIT_BREAKER:
            if chain._make_reserve is not None:
                make, chain._make_reserve = chain._make_reserve, None
                chain._reserve = make()
            if chain._reserve is not None:
                slot = chain._reserve._find(hash, avoid, now_ns, permit, GUARDED)
        self._refusal = chain._refusal
        return slot

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
        """Its endpoints and the entries of its tables, with those that are held back."""
        reserve = 0 if self._reserve is None else self._reserve.entries
        return sum((<LevelPicker>picker)._entries() for picker in self._pickers) + reserve

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
        cdef LevelPicker picker = <LevelPicker>PyList_GET_ITEM(self._pickers, first)
        if picker._algorithm == RING_HASH:
            found = self._along_ring(picker, hashed, avoid, now_ns, permit, rules)
        elif picker._algorithm == MAGLEV:
            found = self._along_table(picker, hashed, avoid, now_ns, permit, rules)
        else:
            found = self._by_turns(picker, avoid, now_ns, permit, rules)
        return found if found >= 0 else self._scan(first, hashed, avoid, now_ns, permit, rules)

    cdef inline Py_ssize_t _level(self, uint64_t percent) noexcept:
        cdef Py_ssize_t at = 0
        cdef uint64_t sum = (<LevelPicker>PyList_GET_ITEM(self._pickers, 0))._load
        while sum <= percent:
            at += 1
            sum += (<LevelPicker>PyList_GET_ITEM(self._pickers, at))._load
        return at

    cdef inline int64_t _by_turns(
        self, LevelPicker picker, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        cdef uint32_t at
        cdef int _try
        for _try in range(TRIES):
            at = picker._next()
            if self._takes(picker, at, avoid, now_ns, permit, rules):
                return picker._slots[at]
        return -1

    cdef int64_t _along_ring(
        self, LevelPicker picker, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
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
        self, LevelPicker picker, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
    ) except -2:
        cdef Maglev maglev = picker._maglev
        cdef uint64_t place = hash % maglev._size
        cdef uint32_t last = 0xFFFFFFFF
        cdef uint32_t at
        cdef uint64_t _step
        for _step in range(min(<uint64_t>WALK, maglev._size)):
            at = maglev._host_at(place)
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
        cdef int kept = rules & NOT_TRIED if rules & ONLY_OTHERS else 0
        self._refusal = MAX_REQUESTS_PER_ENDPOINT
        for dropped in (0, NOT_TRIED, NOT_TRIED | BALANCED):
            for at in range(levels):
                picker = <LevelPicker>PyList_GET_ITEM(self._pickers, (first + at) % levels)
                found = self._scan_level(picker, hash, avoid, now_ns, permit, rules & ~dropped | kept)
                if found >= 0:
                    return found
        return -1

    cdef int64_t _scan_level(
        self, LevelPicker picker, uint64_t hash, object avoid, int64_t now_ns, int64_t* permit, int rules
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
        self, LevelPicker picker, uint32_t at, object avoid, int64_t now_ns, int64_t* permit, int rules
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
        return not calls._guarded or self._admits(slot, now_ns, permit)

    cdef bint _admits(self, uint32_t slot, int64_t now_ns, int64_t* permit) except -1:
        cdef InFlight calls = self._in_flight
        breaker = calls._breakers[<Py_ssize_t>slot]
        if breaker is None:
            return True
        # A breaker that refuses by chance would let through in the end whom it is asked for often enough.
        if calls._refused[slot] != calls._number:
            permit[0] = admit(breaker, now_ns)
            if permit[0] >= 0:
                return True
            calls._refused[slot] = calls._number
        self._refusal = ENDPOINT_CIRCUIT_BREAKER
        return False
