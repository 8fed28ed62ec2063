# cython: boundscheck=False, wraparound=False, initializedcheck=False
# distutils: extra_compile_args=-ffp-contract=off
"""Ring hash as Envoy builds it, so that our pickers and Envoy's send a key to the same host.

Source: https://www.envoyproxy.io/docs, "Supported load balancers", "Ring hash"; and what its tests say.
"""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from trunkline.core.hashing cimport xxh64_raw
from trunkline.core.weights cimport addresses_of, read_weights

RING_SIZE_MAX = 8_388_608
"""The largest minimum_ring_size and maximum_ring_size, as in Envoy."""


cdef int _by_hash(const void* left, const void* right) noexcept nogil:
    cdef const Point* a = <const Point*>left
    cdef const Point* b = <const Point*>right
    if a.hash != b.hash:
        return 1 if a.hash > b.hash else -1
    return (a.owner > b.owner) - (a.owner < b.owner)


cdef inline size_t _put_decimal(uint8_t* at, uint64_t value) noexcept nogil:
    """Write `value` in decimal digits; how many."""
    cdef uint8_t digits[20]
    cdef size_t count = 0
    cdef size_t i
    while True:
        digits[count] = <uint8_t>(48 + value % 10)
        count += 1
        value //= 10
        if value == 0:
            break
    for i in range(count):
        at[i] = digits[count - 1 - i]
    return count


@cython.final
cdef class Ring:
    """A consistent-hash ring over `hosts` (addresses, "host:port"), each owning points in proportion to its weight.

    The least weighted host gets a whole number of points such that there are at least `minimum_ring_size` in all, but
    never more than `maximum_ring_size`; a host of weight 0 gets none. The i-th point of a host (from 0) is the XXH64 of
    "<address>_<i>". A key belongs to the first point that is not below its hash. Where two points are equal, as those
    of a host that is listed twice, the host listed first has it.

    Very uneven weights make long rings: a host with a millionth of the weight asks for a million points. Where that is
    too slow to build, bound it with `maximum_ring_size`.

    ValueError: no hosts, an empty address, lists of different lengths, all weights zero or one out of range, or sizes
    that are not 1 <= minimum_ring_size <= maximum_ring_size <= RING_SIZE_MAX.
    """

    def __cinit__(self, hosts, weights, *, int64_t minimum_ring_size=1024, int64_t maximum_ring_size=8_388_608):
        cdef uint64_t total = 0
        cdef uint32_t* shares = read_weights(weights, &total)
        try:
            addresses = addresses_of(hosts, len(weights))
            if not 1 <= minimum_ring_size <= maximum_ring_size <= RING_SIZE_MAX:
                asked = f"{minimum_ring_size}, {maximum_ring_size}"
                raise ValueError(f"ring sizes are 1 <= minimum <= maximum <= {RING_SIZE_MAX}: {asked}")
            self._build(addresses, shares, total, minimum_ring_size, maximum_ring_size)
        finally:
            PyMem_Free(shares)

    def __dealloc__(self):
        PyMem_Free(self._points)
        PyMem_Free(self._starts)

    cdef int _build(self, list addresses, uint32_t* shares, uint64_t total, double minimum, double maximum) except -1:
        cdef uint32_t count = <uint32_t>len(addresses)
        cdef uint32_t host
        cdef double least = 1.0
        for host in range(count):
            if shares[host]:
                least = min(least, shares[host] / <double>total)
        cdef double scale = min(ceil(least * minimum) / least, maximum)
        # Running sums, not a rounded number for each host: so the points that rounding takes from one go to the next.
        # One more than the scale is room for what adding fractions may round up.
        self._points = <Point*>PyMem_Malloc((<size_t>ceil(scale) + 1) * sizeof(Point))
        if self._points is NULL:
            raise MemoryError
        cdef double target = 0.0
        cdef uint32_t size = 0
        cdef uint32_t until
        for host in range(count):
            if shares[host] == 0:
                continue
            target += scale * (shares[host] / <double>total)
            until = <uint32_t>ceil(target)
            assert until <= ceil(scale) + 1
            size = self._add_points(addresses[host], host, size, until)
        self._size = size
        qsort(self._points, size, sizeof(Point), &_by_hash)
        return self._index_starts()

    cdef uint32_t _add_points(self, bytes address, uint32_t host, uint32_t size, uint32_t until) except 0:
        """Append the points of one host to the `size` that are there, up to `until`; how many there are then."""
        cdef size_t length = PyBytes_GET_SIZE(address)
        cdef uint8_t* key = <uint8_t*>PyMem_Malloc(length + 21)
        cdef uint32_t number = 0
        if key is NULL:
            raise MemoryError
        memcpy(key, PyBytes_AS_STRING(address), length)
        key[length] = c"_"
        while size < until:
            self._points[size].hash = xxh64_raw(key, length + 1 + _put_decimal(key + length + 1, number), 0)
            self._points[size].owner = host
            size += 1
            number += 1
        PyMem_Free(key)
        return size

    cdef int _index_starts(self) except -1:
        """For each value of a hash's upper bits, where its points start. About as many as points: a search is short."""
        cdef uint32_t bits = 1
        while bits < 31 and (<uint32_t>1 << bits) < self._size:
            bits += 1
        cdef uint64_t buckets = <uint64_t>1 << bits
        cdef uint64_t bucket
        cdef uint32_t at = 0
        self._shift = <int>(64 - bits)
        self._starts = <uint32_t*>PyMem_Malloc((buckets + 1) * sizeof(uint32_t))
        if self._starts is NULL:
            raise MemoryError
        for bucket in range(buckets):
            while at < self._size and (self._points[at].hash >> self._shift) < bucket:
                at += 1
            self._starts[bucket] = at
        self._starts[buckets] = self._size
        return 0

    cdef uint32_t place_of(self, uint64_t hash) noexcept nogil:
        cdef uint64_t bucket = hash >> self._shift
        cdef uint32_t low = self._starts[bucket]
        cdef uint32_t high = self._starts[bucket + 1]
        cdef uint32_t middle
        while low < high:
            middle = low + ((high - low) >> 1)
            if self._points[middle].hash < hash:
                low = middle + 1
            else:
                high = middle
        return low if low < self._size else 0

    cdef uint32_t _owner_of(self, uint64_t hash) noexcept nogil:
        return self._points[self.place_of(hash)].owner

    def locate(self, uint64_t hash):
        """The index of the host that owns `hash`; OverflowError unless it is in [0, 2**64)."""
        return self._owner_of(hash)

    def locate_key(self, bytes key not None):
        """The index of the host that owns the XXH64 of `key`."""
        return self._owner_of(xxh64_raw(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), 0))

    def points(self):
        """All points in their order, as (hash, index of the host)."""
        return [(self._points[at].hash, self._points[at].owner) for at in range(self._size)]

    @property
    def size(self):
        """How many points there are."""
        return self._size
