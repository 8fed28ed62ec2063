# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# distutils: extra_compile_args=-ffp-contract=off
"""Maglev hashing as Envoy builds its table, so that our pickers and Envoy's send a key to the same host.

Sources: Eisenbud et al., Maglev: A Fast and Reliable Software Network Load Balancer (NSDI 2016), section 3.4;
https://www.envoyproxy.io/docs, "Supported load balancers", "Maglev"; and what its tests say.
"""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from trunkline.core.hashing cimport xxh64_raw
from trunkline.core.tournament cimport index_of, move_winner, start_tournament, turn, uint128_t, when_of
from trunkline.core.weights cimport addresses_of, read_weights

TABLE_SIZE_MAX = 5_000_011
"""The largest table_size, as in Envoy; a prime."""

cdef enum:
    EMPTY = 0xFFFFFF  # no index: there are fewer hosts than that
    NARROW_HOSTS_MAX = 0x10000


cdef bint _is_prime(int64_t n) noexcept nogil:
    cdef int64_t divisor = 2
    if n < 2:
        return False
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 1
    return True


cdef inline uint64_t _next_round(Walk* walk, uint64_t round) noexcept nogil:
    """The first round after `round` in which the host's turns so far are no more than its share."""
    # In doubles as Envoy computes it: round * weight < target means 'not yet'.
    cdef uint64_t least = round + 1
    cdef double estimate = ceil(walk.target / walk.weight)
    if estimate <= least:
        round = least
    else:
        round = <uint64_t>estimate
    while round > least and not (round - 1) * walk.weight < walk.target:
        round -= 1
    while round * walk.weight < walk.target:
        round += 1
    return round


@cython.final
cdef class Maglev:
    """A Maglev table over `hosts` (addresses, "host:port"), each filling places in proportion to its weight.

    The hosts, in the order of their addresses' bytes, take turns; the heaviest in every round, another each time that
    its share has grown to one more place, one of weight 0 never. At its turn a host takes the first free place of its
    permutation of the table, which XXH64 of its address with seeds 0 and 1 decides. A key belongs to the host at its
    hash modulo `table_size`. A host that is listed twice takes turns for both.

    `table_size` is a prime, at most TABLE_SIZE_MAX; with fewer places than hosts, the last hosts have none.

    ValueError: no hosts, an empty address, lists of different lengths, all weights zero or one out of range, or another
    table_size.
    """

    def __cinit__(self, hosts, weights, *, int64_t table_size=65_537):
        cdef uint64_t total = 0
        cdef uint32_t* shares = read_weights(weights, &total)
        try:
            addresses = addresses_of(hosts, len(weights))
            if table_size > TABLE_SIZE_MAX or not _is_prime(table_size):
                raise ValueError(f"table_size is a prime of at most {TABLE_SIZE_MAX}: {table_size}")
            self._size = <uint64_t>table_size
            self._build(addresses, shares, total)
            if len(addresses) <= NARROW_HOSTS_MAX:
                self._narrow_table()
        finally:
            PyMem_Free(shares)

    def __dealloc__(self):
        PyMem_Free(self._table)
        PyMem_Free(self._narrow)

    cdef int _build(self, list addresses, uint32_t* shares, uint64_t total) except -1:
        cdef list order = sorted(host for host in range(len(addresses)) if shares[<uint32_t>host])
        order.sort(key=addresses.__getitem__)
        cdef uint32_t count = <uint32_t>len(order)
        cdef uint64_t place
        self._table = <uint32_t*>PyMem_Malloc(self._size * sizeof(uint32_t))
        cdef Walk* walks = <Walk*>PyMem_Malloc(count * sizeof(Walk))
        cdef uint128_t* nodes = <uint128_t*>PyMem_Malloc(3 * <size_t>count * sizeof(uint128_t))
        try:
            if self._table is NULL or walks is NULL or nodes is NULL:
                raise MemoryError
            for place in range(self._size):
                self._table[place] = EMPTY
            self._plan(walks, order, addresses, shares, total)
            self._fill(walks, count, nodes)
        finally:
            PyMem_Free(walks)
            PyMem_Free(nodes)
        return 0

    cdef int _plan(self, Walk* walks, list order, list addresses, uint32_t* shares, uint64_t total) except -1:
        """Where each host begins and how it goes on, in the order of turns."""
        cdef uint32_t at
        cdef uint32_t host
        cdef bytes address
        cdef const uint8_t* data
        for at in range(<uint32_t>len(order)):
            host = order[at]
            address = addresses[host]
            data = <const uint8_t*>PyBytes_AS_STRING(address)
            walks[at].host = host
            walks[at].next = xxh64_raw(data, PyBytes_GET_SIZE(address), 0) % self._size
            walks[at].skip = xxh64_raw(data, PyBytes_GET_SIZE(address), 1) % (self._size - 1) + 1
            walks[at].weight = shares[host] / <double>total
            walks[at].target = 0.0
        return 0

    cdef int _fill(self, Walk* walks, uint32_t count, uint128_t* nodes) except -1:
        """Let the hosts take places until none is free."""
        cdef uint128_t* turns = nodes + count
        cdef uint64_t round
        cdef uint64_t _taken
        cdef uint32_t at
        cdef Walk* walk
        cdef double heaviest = 0.0
        for at in range(count):
            heaviest = max(heaviest, walks[at].weight)
            turns[count + at] = turn(1, 0, at)
        # From turn to turn, not through all hosts each round: with very uneven weights most rounds are one host's.
        start_tournament(nodes, turns, count)
        for _taken in range(self._size):
            at = index_of(nodes[0])
            round = when_of(nodes[0])
            walk = &walks[at]
            while self._table[walk.next] != EMPTY:
                walk.next += walk.skip
                if walk.next >= self._size:
                    walk.next -= self._size
            self._table[walk.next] = walk.host
            walk.target += heaviest
            move_winner(nodes, count, turn(_next_round(walk, round), 0, at))
        return 0

    cdef int _narrow_table(self) except -1:
        cdef uint64_t place
        self._narrow = <uint16_t*>PyMem_Malloc(self._size * sizeof(uint16_t))
        if self._narrow is NULL:
            raise MemoryError
        for place in range(self._size):
            self._narrow[place] = <uint16_t>self._table[place]
        PyMem_Free(self._table)
        self._table = NULL
        return 0

    def locate(self, uint64_t hash):
        """The index of the host that owns `hash`; OverflowError unless it is in [0, 2**64)."""
        return self._host_at(hash % self._size)

    def locate_key(self, bytes key not None):
        """The index of the host that owns the XXH64 of `key`."""
        cdef uint64_t hash = xxh64_raw(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), 0)
        return self._host_at(hash % self._size)

    def table(self):
        """All places in their order, as indexes of hosts."""
        return [self._host_at(place) for place in range(self._size)]

    @property
    def size(self):
        """How many places there are."""
        return self._size
