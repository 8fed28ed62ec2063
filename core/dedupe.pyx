"""Which events were published before: hashes of (source, id) within a window bounded by time and by count."""

import cython
from cpython cimport array
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    _IDS_MAX = 10_000_000
    _SAME_HASH_MAX = 8
    _SHARDS = 256
    _SHARD_SLOTS_MIN = 8
    _CHUNK_ENTRIES = 4096
    _PLACE_BITS = 24
    _PLACE_MASK = (1 << 24) - 1

IDS_MAX = _IDS_MAX
SAME_HASH_MAX = _SAME_HASH_MAX

assert _IDS_MAX <= _PLACE_MASK

cdef array.array _U32 = array.array("I")
cdef array.array _I64 = array.array("q")


cdef struct Entry:
    uint64_t low
    uint64_t high
    int64_t offset
    int64_t time_ns


cdef struct Shard:  # a table of its own, with linear probing, never more than half full
    uint32_t* slots  # 0 is free, else 8 bits of the hash, the first of them set, and the entry's place
    uint32_t mask
    uint32_t used


cdef inline uint64_t _mixed(uint64_t x) noexcept nogil:
    """Spread x over 64 bits: the finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EBULL
    return x ^ (x >> 31)


cdef inline uint32_t _slot_value(uint64_t key, uint64_t place) noexcept nogil:
    return (<uint32_t>(key >> 40) | 0x80) << _PLACE_BITS | <uint32_t>place


@cython.final
cdef class DedupeWindow:
    """The latest ids of a stream and the offsets of their events.

    It holds at most `max_ids`, each until stream time is `window_ns` beyond the id's own. Entries lie in a ring in the
    order they came, in chunks that come and go with what they hold; hash tables, one per shard so that no call pays for
    growing all, lead from a hash to a place in the ring. An id takes 32 bytes in the ring and 8 to 16 in a table.

    A hash is no proof: whoever gets a hit compares source and id of the stored event. Ids with equal hashes stand side
    by side, up to SAME_HASH_MAX of them; there are more only if someone makes collisions on purpose, and those are not
    found. `seed` should be random, so that nobody can choose ids that crowd one part of a table.
    """

    cdef Shard[_SHARDS] _shards
    cdef Entry** _chunks
    cdef uint64_t _chunk_entries
    cdef uint64_t _places  # in the ring, a power of two
    cdef uint64_t _head    # number of the oldest entry, counted from the first that ever came
    cdef uint64_t _tail    # number of the next one
    cdef uint64_t _seed
    cdef int64_t _max_ids
    cdef int64_t _window_ns

    def __cinit__(self, *, int64_t max_ids, int64_t window_ns, uint64_t seed=0):
        if not 1 <= max_ids <= _IDS_MAX:
            raise ValueError(f"max_ids must be in [1, {_IDS_MAX}]: {max_ids}")
        if window_ns < 0:
            raise ValueError(f"window_ns must not be negative: {window_ns}")
        self._max_ids = max_ids
        self._window_ns = window_ns
        self._seed = seed
        self._places = 1
        while self._places < <uint64_t>max_ids:
            self._places *= 2
        self._chunk_entries = min(<uint64_t>_CHUNK_ENTRIES, self._places)
        self._chunks = <Entry**>PyMem_Calloc(self._places // self._chunk_entries, sizeof(Entry*))
        if self._chunks == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef size_t i
        if self._chunks != NULL:
            for i in range(self._places // self._chunk_entries):
                PyMem_Free(self._chunks[i])
            PyMem_Free(self._chunks)
        for i in range(<size_t>_SHARDS):
            PyMem_Free(self._shards[i].slots)

    def __len__(self):
        """How many ids the window holds."""
        return self._tail - self._head

    def find_many(self, const uint64_t[::1] id_hashes not None, Py_ssize_t count):
        """Look `count` events up, two words of hash each; gives an array of typecode q with one answer per event.

        None when all answers would be -1.

        -1: not here. At least 0: the offset of the newest event with this hash. -2 - j: event j of the same call, the
        last one before, has this hash; j's own answer leads on. Call `expire` first. ValueError when the lengths do not
        fit.
        """
        cdef array.array found
        cdef array.array own
        cdef uint64_t slots = 2
        cdef Py_ssize_t i
        cdef int64_t earlier
        cdef bint is_any = False
        if count < 0 or id_hashes.shape[0] != 2 * count:
            raise ValueError(f"{count} events have {2 * count} words of hash, not {id_hashes.shape[0]}")
        if count == 1 and self._newest(id_hashes[0], id_hashes[1]) < 0:  # what most requests are
            return None
        while slots < <uint64_t>count * 2:
            slots *= 2
        found = array.clone(_I64, count, False)
        own = array.clone(_U32, slots, True)
        for i in range(count):
            earlier = self._earlier(id_hashes, i, own.data.as_uints, slots - 1)
            if earlier >= 0:
                found.data.as_longlongs[i] = -2 - earlier
            else:
                found.data.as_longlongs[i] = self._newest(id_hashes[2 * i], id_hashes[2 * i + 1])
            is_any = is_any or found.data.as_longlongs[i] != -1
        return found if is_any else None

    def candidates(self, uint64_t low, uint64_t high):
        """The offsets of all events with this hash, newest first."""
        cdef uint64_t key = self._key(low, high)
        cdef Shard* shard = &self._shards[key >> 56]
        cdef uint64_t at = key & shard.mask
        cdef list found = []
        cdef Entry* entry
        if shard.slots != NULL:
            while shard.slots[at]:
                entry = self._entry(shard.slots[at] & _PLACE_MASK)
                if entry.low == low and entry.high == high:
                    found.append(entry.offset)
                at = (at + 1) & shard.mask
        return sorted(found, reverse=True)

    def add_many(self, const uint64_t[::1] id_hashes not None, int64_t first_offset, int64_t time_ns):
        """Take in events with consecutive offsets from `first_offset` on, two words of hash each, all of one time.

        What grows too old by it and what is too much goes. ValueError when offset or time goes back, or half a hash is
        given.
        """
        cdef Py_ssize_t count = id_hashes.shape[0] // 2
        cdef Py_ssize_t i
        cdef Entry* last
        if id_hashes.shape[0] % 2:
            raise ValueError("an event has two words of hash")
        if first_offset < 0:
            raise ValueError(f"an offset must not be negative: {first_offset}")
        if self._tail > self._head:
            last = self._entry((self._tail - 1) & (self._places - 1))
            if first_offset <= last.offset or time_ns < last.time_ns:
                raise ValueError(f"offset {first_offset} at {time_ns} ns after {last.offset} at {last.time_ns} ns")
        self.expire(time_ns)
        for i in range(max(0, count - self._max_ids), count):
            if self._tail - self._head == <uint64_t>self._max_ids:
                self._drop_oldest()
            self._append(id_hashes[2 * i], id_hashes[2 * i + 1], first_offset + i, time_ns)

    def take_back(self, int64_t first_offset):
        """Forget the events from `first_offset` on, whose append failed; gives how many were here.

        What their arrival had pushed out does not come back.
        """
        cdef uint64_t before = self._tail
        cdef uint64_t place
        while self._tail > self._head:
            place = (self._tail - 1) & (self._places - 1)
            if self._entry(place).offset < first_offset:
                break
            self._unlink(place)
            self._tail -= 1
        return before - self._tail

    def expire(self, int64_t now_ns):
        """Forget what is `window_ns` old at stream time `now_ns`; gives how many ids that were."""
        cdef uint64_t before = self._head
        while self._head < self._tail:
            if now_ns - self._entry(self._head & (self._places - 1)).time_ns < self._window_ns:
                break
            self._drop_oldest()
        return self._head - before

    cdef inline Entry* _entry(self, uint64_t place) noexcept:
        return &self._chunks[place // self._chunk_entries][place % self._chunk_entries]

    cdef inline uint64_t _key(self, uint64_t low, uint64_t high) noexcept:
        return _mixed(low ^ _mixed(high ^ self._seed))

    cdef int64_t _earlier(
        self, const uint64_t[::1] id_hashes, Py_ssize_t i, uint32_t* slots, uint64_t mask
    ) noexcept:
        """The last event before `i` with its hash, or -1; event i takes its place in `slots`."""
        cdef uint64_t low = id_hashes[2 * i]
        cdef uint64_t high = id_hashes[2 * i + 1]
        cdef uint64_t at = self._key(low, high) & mask
        cdef int64_t earlier = -1
        while slots[at]:
            if id_hashes[2 * (slots[at] - 1)] == low and id_hashes[2 * (slots[at] - 1) + 1] == high:
                earlier = slots[at] - 1
                break
            at = (at + 1) & mask
        slots[at] = <uint32_t>i + 1
        return earlier

    cdef int64_t _newest(self, uint64_t low, uint64_t high) noexcept:
        cdef uint64_t key = self._key(low, high)
        cdef Shard* shard = &self._shards[key >> 56]
        cdef uint64_t at = key & shard.mask
        cdef uint32_t mark = _slot_value(key, 0)
        cdef int64_t newest = -1
        cdef Entry* entry
        if shard.slots == NULL:
            return -1
        while shard.slots[at]:
            if shard.slots[at] & ~<uint32_t>_PLACE_MASK == mark:
                entry = self._entry(shard.slots[at] & _PLACE_MASK)
                if entry.low == low and entry.high == high and entry.offset > newest:
                    newest = entry.offset
            at = (at + 1) & shard.mask
        return newest

    cdef int _append(self, uint64_t low, uint64_t high, int64_t offset, int64_t time_ns) except -1:
        cdef uint64_t place = self._tail & (self._places - 1)
        cdef uint64_t chunk = place // self._chunk_entries
        cdef Entry* entry
        if self._chunks[chunk] == NULL:
            self._chunks[chunk] = <Entry*>PyMem_Malloc(self._chunk_entries * sizeof(Entry))
            if self._chunks[chunk] == NULL:
                raise MemoryError
        entry = self._entry(place)
        entry.low = low
        entry.high = high
        entry.offset = offset
        entry.time_ns = time_ns
        self._link(place, entry)
        self._tail += 1
        return 0

    cdef int _drop_oldest(self) except -1:
        cdef uint64_t chunk = (self._head & (self._places - 1)) // self._chunk_entries
        self._unlink(self._head & (self._places - 1))
        self._head += 1
        if self._head % self._chunk_entries == 0 and self._tail - self._head <= self._places - self._chunk_entries:
            PyMem_Free(self._chunks[chunk])  # nothing lies in it, neither old nor new
            self._chunks[chunk] = NULL
        return 0

    cdef int _link(self, uint64_t place, Entry* entry) except -1:
        """Let the table lead to the entry, unless as many of its hash are there as may be."""
        cdef uint64_t key = self._key(entry.low, entry.high)
        cdef Shard* shard = &self._shards[key >> 56]
        cdef uint32_t mark = _slot_value(key, 0)
        cdef uint64_t at
        cdef Entry* other
        cdef int same = 0
        if shard.slots == NULL or 2 * (shard.used + 1) > shard.mask + 1:
            self._grow(shard)
        at = key & shard.mask
        while shard.slots[at]:
            if shard.slots[at] & ~<uint32_t>_PLACE_MASK == mark:  # else no need to fetch the entry from far away
                other = self._entry(shard.slots[at] & _PLACE_MASK)
                if other.low == entry.low and other.high == entry.high:
                    same += 1
            at = (at + 1) & shard.mask
        if same < _SAME_HASH_MAX:
            shard.slots[at] = _slot_value(key, place)
            shard.used += 1
        return 0

    cdef int _grow(self, Shard* shard) except -1:
        cdef uint32_t* old = shard.slots
        cdef uint64_t old_slots = 0 if old == NULL else <uint64_t>shard.mask + 1
        cdef uint64_t slots = 2 * old_slots if old_slots else _SHARD_SLOTS_MIN
        cdef uint32_t* new = <uint32_t*>PyMem_Calloc(slots, sizeof(uint32_t))
        cdef uint64_t i
        cdef uint64_t at
        cdef Entry* entry
        if new == NULL:
            raise MemoryError
        shard.slots = new
        shard.mask = <uint32_t>(slots - 1)
        for i in range(old_slots):
            if old[i]:
                entry = self._entry(old[i] & _PLACE_MASK)
                at = self._key(entry.low, entry.high) & shard.mask
                while new[at]:
                    at = (at + 1) & shard.mask
                new[at] = old[i]
        PyMem_Free(old)
        return 0

    cdef int _unlink(self, uint64_t place) noexcept:
        """Take the entry out of the table and close the gap, so that nothing behind it is cut off."""
        cdef Entry* entry = self._entry(place)
        cdef uint64_t key = self._key(entry.low, entry.high)
        cdef Shard* shard = &self._shards[key >> 56]
        cdef uint64_t gap = key & shard.mask
        cdef uint64_t at
        cdef uint64_t home
        if shard.slots == NULL:
            return 0
        while shard.slots[gap] != _slot_value(key, place):
            if shard.slots[gap] == 0:  # one of too many with the same hash: it never was in the table
                return 0
            gap = (gap + 1) & shard.mask
        at = gap
        while True:
            at = (at + 1) & shard.mask
            if shard.slots[at] == 0:
                break
            entry = self._entry(shard.slots[at] & _PLACE_MASK)
            home = self._key(entry.low, entry.high) & shard.mask
            if ((at - home) & shard.mask) >= ((at - gap) & shard.mask):
                shard.slots[gap] = shard.slots[at]
                gap = at
        shard.slots[gap] = 0
        shard.used -= 1
        if shard.used == 0:
            PyMem_Free(shard.slots)
            shard.slots = NULL
            shard.mask = 0
        return 0
