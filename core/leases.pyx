"""When leases run out. Soft state: nothing here is a record, and after a start each lease has its full time.

One structure times them all: buckets of leases by deadline. Renewing only moves a lease's own deadline; the bucket that
still lists it finds that out when its time comes, and lists it where it belongs.
"""

import sys

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from trunkline.core.clock cimport Rng
from trunkline.core.messages cimport Span, read_span, read_tag

from trunkline.core.model import TTL_MS_MAX as _TTL_MS_MAX

cdef enum:
    _JITTER_MS_MAX = 500
    _BUCKET_NS = 64_000_000
    _SLICE_LEASES = 5_000
    _SLAB = 4_096  # leases that get their room together
    _SLOTS_MIN = 64
    _NOBODY = 0xFFFFFFFF
    _IDS_MAX = 10_000  # of one request, as the rules have it

JITTER_MS_MAX = _JITTER_MS_MAX
BUCKET_NS = _BUCKET_NS
SLICE_LEASES = _SLICE_LEASES

cdef int64_t _longest_ms = _TTL_MS_MAX
cdef int64_t _FOR_EVER_MS = 100 * 365 * 86_400 * 1_000


def read_lease_ids(bytes data not None):
    """The ids that a serialized KeepAliveRequest names, as protobuf writes it; None when it is not plain.

    What is unusual, or too much, is left to protobuf and the rules, which say what is wrong with it.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef Span ids
    cdef uint32_t tag
    cdef uint64_t lease_id
    cdef list found = []
    if at == end:
        return found
    try:
        read_tag(&at, end, &tag)
        if tag != 0x0A:
            return None
        read_span(&at, end, &ids)
    except ValueError:
        return None
    if at != end or ids.size % 8 or ids.size > 8 * _IDS_MAX:
        return None
    at = ids.at
    while at < end:
        memcpy(&lease_id, at, 8)
        found.append(lease_id)
        at += 8
    return found


cdef class _Group:
    """Leases that are counted together. Known by name as long as it has any."""

    cdef str name
    cdef Py_ssize_t leases


cdef struct Timed:  # listed in exactly one bucket, as long as it is no free place
    uint64_t id
    int64_t deadline_ns
    int64_t span_ns  # how long it lives after a renewal
    int64_t ttl_ms
    PyObject* group  # a _Group; NULL once the lease is dropped or granted anew
    uint32_t next    # of the same bucket, whose last leads to its first; of the free places, or _NOBODY


cdef inline uint64_t _mixed(uint64_t x) noexcept nogil:
    """Spread x over 64 bits: the finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EBULL
    return x ^ (x >> 31)


@cython.final
cdef class LeaseTable:
    """Deadlines of the leases that a node keeps and that have not lapsed; 48 bytes each, and 8 to 16 to find it.

    Times are monotonic nanoseconds and do not go back. After each renewal a lease lives for its TTL and a jitter that
    was drawn when it was granted: under 1 s less what expiry takes, so that leases granted together do not run out
    together. Room that many leases once took is kept for the next ones. MemoryError when there is none.
    """

    cdef Rng _rng
    cdef uint64_t _seed         # nobody can choose ids that crowd one part of the table
    cdef int64_t _jitter_ns
    cdef int64_t _shifted_ns    # how long the server has stood still: deadlines count time without it
    cdef Timed** _slabs
    cdef uint32_t _slabs_made
    cdef uint32_t _places       # ever used
    cdef uint32_t _free         # first of the free ones among them
    cdef uint32_t* _slots       # linear probing, never more than half full: 0 is free, else a lease's place + 1
    cdef uint64_t _mask
    cdef uint32_t _known
    cdef dict _buckets          # number -> place of the last lease listed
    cdef dict _groups           # name -> _Group

    def __cinit__(self, Rng rng not None, *, int64_t jitter_ms_max=_JITTER_MS_MAX):
        if not 0 < jitter_ms_max < 1_000:
            raise ValueError(f"jitter must be under 1 s: {jitter_ms_max} ms")
        self._rng = rng
        self._seed = _mixed(rng._s0)  # not drawn: what it decides nobody sees
        self._jitter_ns = jitter_ms_max * 1_000_000
        self._free = _NOBODY
        self._mask = _SLOTS_MIN - 1
        self._buckets = {}
        self._groups = {}
        self._slots = <uint32_t*>PyMem_Calloc(_SLOTS_MIN, sizeof(uint32_t))
        if self._slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t slab
        for slab in range(self._slabs_made):
            PyMem_Free(self._slabs[slab])
        PyMem_Free(self._slabs)
        PyMem_Free(self._slots)

    def __len__(self):
        return self._known

    def __contains__(self, uint64_t lease_id):
        return self._find(lease_id) != NULL

    # Granting and dropping.

    def grant(self, uint64_t lease_id, *, int64_t ttl_ms, int64_t now_ns, str group not None=""):
        """Time a lease from now on; one that is known begins anew with this TTL. `silent` counts by group."""
        self._grant(lease_id, ttl_ms, now_ns - self._shifted_ns, group)

    def grant_many(self, leases, *, int64_t now_ns):
        """The same for many: id, TTL in ms and group of each."""
        cdef int64_t base_ns = now_ns - self._shifted_ns
        for lease_id, ttl_ms, group in leases:
            self._grant(lease_id, ttl_ms, base_ns, group)

    cdef int _grant(self, uint64_t lease_id, int64_t ttl_ms, int64_t base_ns, str name) except -1:
        cdef _Group group
        cdef Timed* timed
        cdef uint32_t place
        self._drop(lease_id)
        if <uint64_t>self._known * 2 >= self._mask + 1:
            self._grow()
        place = self._room()
        timed = self._at(place)
        group = <_Group>self._groups.get(name)
        if group is None:
            group = _Group()
            group.name = name
            self._groups[name] = group
        group.leases += 1
        timed.id = lease_id
        timed.ttl_ms = min(ttl_ms, _FOR_EVER_MS)
        timed.span_ns = timed.ttl_ms * 1_000_000 + 1 + <int64_t>self._rng.next_below(self._jitter_ns)
        timed.deadline_ns = base_ns + timed.span_ns
        timed.group = <PyObject*>group
        self._insert(place)
        self._known += 1
        return self._list(place, timed.deadline_ns // _BUCKET_NS)

    def drop(self, uint64_t lease_id):
        """Time it no longer; nothing happens if it is not there."""
        self._drop(lease_id)

    cdef int _drop(self, uint64_t lease_id) except -1:
        """Its place is free when its bucket finds that out."""
        cdef uint32_t* slot = self._slot(lease_id)
        cdef Timed* timed
        cdef _Group group
        if slot[0] == 0:
            return 0
        timed = self._at(slot[0] - 1)
        group = <_Group>timed.group
        timed.group = NULL
        self._remove(slot - self._slots)
        self._known -= 1
        group.leases -= 1
        if group.leases == 0:
            del self._groups[group.name]
        return 0

    # Times.

    def renew(self, lease_ids, int64_t now_ns):
        """Give leases their full time from now.

        Gives how many are renewed, which are not in the table, and the shortest TTL of those renewed in ms: the longest
        there is when none was.
        """
        cdef int64_t base_ns = now_ns - self._shifted_ns
        cdef int64_t shortest_ms = _longest_ms
        cdef Py_ssize_t renewed = 0
        cdef list missing = []
        cdef Timed* timed
        for lease_id in lease_ids:
            timed = self._find(lease_id)
            if timed == NULL:
                missing.append(lease_id)
                continue
            timed.deadline_ns = base_ns + timed.span_ns
            renewed += 1
            if timed.ttl_ms < shortest_ms:
                shortest_ms = timed.ttl_ms
        return renewed, missing, shortest_ms

    def deadline_ns(self, uint64_t lease_id):
        """When a lease runs out as things stand; None if it is not in the table."""
        cdef Timed* timed = self._find(lease_id)
        return None if timed == NULL else timed.deadline_ns + self._shifted_ns

    def silent_ns(self, uint64_t lease_id, int64_t now_ns):
        """How long ago a lease was renewed, less the server's own stalls; None if it is not in the table."""
        cdef Timed* timed = self._find(lease_id)
        return None if timed == NULL else now_ns - self._shifted_ns - (timed.deadline_ns - timed.span_ns)

    def count_silent(self, dict counts not None, int64_t now_ns, *, int64_t percent):
        """How many leases of each group were not renewed for at least this part of their TTL, into `counts`.

        Looks at every lease that was there at the beginning, SLICE_LEASES of them at a step.
        """
        cdef int64_t at_ns = now_ns - self._shifted_ns
        cdef uint32_t places = self._places
        cdef uint32_t first
        for first in range(0, places, _SLICE_LEASES):
            self._count_silent(counts, at_ns, percent * 10_000, first, min(first + _SLICE_LEASES, places))
            yield

    cdef int _count_silent(self, dict counts, int64_t at_ns, int64_t per_ms, uint32_t first, uint32_t end) except -1:
        cdef Timed* timed
        cdef uint32_t place
        cdef str name
        for place in range(first, end):
            timed = self._at(place)
            if timed.group != NULL and at_ns - timed.deadline_ns + timed.span_ns >= timed.ttl_ms * per_ms:
                name = (<_Group>timed.group).name
                counts[name] = counts.get(name, 0) + 1
        return 0

    def shift(self, int64_t by_ns):
        """The server stood still for so long: every deadline moves by that."""
        if by_ns < 0:
            raise ValueError(f"time does not go back: {by_ns}")
        self._shifted_ns += by_ns

    def due(self, int64_t now_ns, *, Py_ssize_t limit=sys.maxsize):
        """Leases that have run out, at most `limit` of them. They stay due until they are renewed or dropped."""
        cdef int64_t at_ns = now_ns - self._shifted_ns
        cdef int64_t last = at_ns // _BUCKET_NS
        cdef list due = []
        cdef uint32_t again = _NOBODY  # listed when all are taken out: what is still due goes into the last bucket
        cdef uint32_t again_end = _NOBODY
        cdef uint32_t place, end, following
        cdef Timed* timed
        for bucket in sorted([number for number in self._buckets if number <= last]):
            end = self._buckets.pop(bucket)
            following = self._at(end).next
            while True:
                place = following
                if len(due) >= limit:
                    self._at(end).next = place
                    self._buckets[bucket] = end
                    break
                timed = self._at(place)
                following = timed.next
                if timed.group == NULL:
                    timed.next = self._free
                    self._free = place
                else:
                    if timed.deadline_ns <= at_ns:
                        due.append(timed.id)
                    timed.next = _NOBODY
                    if again == _NOBODY:
                        again = place
                    else:
                        self._at(again_end).next = place
                    again_end = place
                if place == end:
                    break
            if bucket in self._buckets:
                break
        while again != _NOBODY:
            place = again
            again = self._at(place).next
            self._list(place, max(self._at(place).deadline_ns // _BUCKET_NS, last))
        return due

    cdef int _list(self, uint32_t place, int64_t bucket) except -1:
        cdef uint32_t last
        known = self._buckets.get(bucket)
        if known is None:
            self._at(place).next = place
        else:
            last = known
            self._at(place).next = self._at(last).next
            self._at(last).next = place
        self._buckets[bucket] = place
        return 0

    # Places.

    cdef inline Timed* _at(self, uint32_t place) noexcept:
        return &self._slabs[place // _SLAB][place % _SLAB]

    cdef uint32_t _room(self) except? 0:
        cdef uint32_t place = self._free
        cdef Timed** slabs
        if place != _NOBODY:
            self._free = self._at(place).next
            return place
        if self._places == self._slabs_made * _SLAB:
            slabs = <Timed**>PyMem_Realloc(self._slabs, (self._slabs_made + 1) * sizeof(Timed*))
            if slabs == NULL:
                raise MemoryError
            self._slabs = slabs
            slabs[self._slabs_made] = <Timed*>PyMem_Malloc(_SLAB * sizeof(Timed))
            if slabs[self._slabs_made] == NULL:
                raise MemoryError
            self._slabs_made += 1
        self._places += 1
        return self._places - 1

    # From an id to its place.

    cdef inline uint64_t _home(self, uint64_t lease_id) noexcept:
        return _mixed(lease_id ^ self._seed) & self._mask

    cdef uint32_t* _slot(self, uint64_t lease_id) noexcept:
        """Where the lease is, or would be."""
        cdef uint64_t at = self._home(lease_id)
        while self._slots[at] != 0 and self._at(self._slots[at] - 1).id != lease_id:
            at = (at + 1) & self._mask
        return &self._slots[at]

    cdef Timed* _find(self, uint64_t lease_id) noexcept:
        cdef uint32_t slot = self._slot(lease_id)[0]
        return NULL if slot == 0 else self._at(slot - 1)

    cdef void _insert(self, uint32_t place) noexcept:
        self._slot(self._at(place).id)[0] = place + 1

    cdef void _remove(self, uint64_t hole) noexcept:
        """Whatever stands behind the hole and not in its home moves up, so that no search ends too early."""
        cdef uint64_t at = hole
        cdef uint64_t home
        while True:
            at = (at + 1) & self._mask
            if self._slots[at] == 0:
                break
            home = self._home(self._at(self._slots[at] - 1).id)
            if ((at - home) & self._mask) >= ((at - hole) & self._mask):
                self._slots[hole] = self._slots[at]
                hole = at
        self._slots[hole] = 0

    cdef int _grow(self) except -1:
        cdef uint64_t size = self._mask + 1
        cdef uint32_t* old = self._slots
        cdef uint32_t* slots = <uint32_t*>PyMem_Calloc(2 * size, sizeof(uint32_t))
        cdef uint64_t at
        if slots == NULL:
            raise MemoryError
        self._slots = slots
        self._mask = 2 * size - 1
        for at in range(size):
            if old[at] != 0:
                self._insert(old[at] - 1)
        PyMem_Free(old)
        return 0
