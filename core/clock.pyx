"""Time and chance as objects, so that everything that needs them can be given others."""

import cython
from libc.stdint cimport int64_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef extern from *:
    ctypedef unsigned long long uint128_t "unsigned __int128"


cdef inline int64_t _read(int which) noexcept:
    cdef timespec now
    clock_gettime(which, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef class Clock:
    """What time it is. Subclasses say; this one stands still at zero."""

    cpdef int64_t now_ns(self) except? -1:
        """Monotonic nanoseconds from an arbitrary start."""
        return 0

    cpdef int64_t time_ns(self) except? -1:
        """Nanoseconds since the epoch."""
        return 0


@cython.final
cdef class SystemClock(Clock):
    """The machine's clocks. Made only where a program starts."""

    cpdef int64_t now_ns(self) except? -1:
        return _read(CLOCK_MONOTONIC)

    cpdef int64_t time_ns(self) except? -1:
        return _read(CLOCK_REALTIME)


@cython.final
cdef class ManualClock(Clock):
    """A clock that moves when told to."""

    cdef int64_t _now_ns
    cdef int64_t _epoch_ns

    def __cinit__(self, int64_t now_ns=0, *, int64_t epoch_ns=0):
        self._now_ns = now_ns
        self._epoch_ns = epoch_ns

    def advance(self, int64_t by_ns):
        """Go forward by `by_ns` nanoseconds; ValueError when that is negative."""
        if by_ns < 0:
            raise ValueError(f"time does not go back: {by_ns}")
        self._now_ns += by_ns

    cpdef int64_t now_ns(self) except? -1:
        return self._now_ns

    cpdef int64_t time_ns(self) except? -1:
        return self._epoch_ns + self._now_ns


cdef inline uint64_t _rotl(uint64_t x, int k) noexcept nogil:
    return (x << k) | (x >> (64 - k))


cdef class Rng:
    """xoroshiro128++ (Blackman and Vigna, 2019), seeded through splitmix64. Not for secrets."""

    def __cinit__(self, seed):
        cdef uint64_t state = <uint64_t>(seed & 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t words[2]
        cdef uint64_t z
        cdef int i
        for i in range(2):
            state += <uint64_t>0x9E3779B97F4A7C15
            z = state
            z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
            z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
            words[i] = z ^ (z >> 31)
        self._s0 = words[0]
        self._s1 = words[1] | 1

    cdef uint64_t next_u64(self) noexcept:
        cdef uint64_t s0 = self._s0
        cdef uint64_t s1 = self._s1
        cdef uint64_t result = _rotl(s0 + s1, 17) + s0
        s1 ^= s0
        self._s0 = _rotl(s0, 49) ^ s1 ^ (s1 << 21)
        self._s1 = _rotl(s1, 28)
        return result

    cdef uint64_t next_below(self, uint64_t bound) noexcept:
        # Lemire, Fast Random Integer Generation in an Interval (2019): the upper half of the product is the number; the
        # lower half says whether it lies in the short interval that would make some numbers likelier.
        cdef uint128_t product = <uint128_t>self.next_u64() * bound
        cdef uint64_t short_of
        if <uint64_t>product < bound:
            short_of = (0 - bound) % bound
            while <uint64_t>product < short_of:
                product = <uint128_t>self.next_u64() * bound
        return <uint64_t>(product >> 64)

    def u64(self):
        """A uniform integer of 64 bits."""
        return self.next_u64()

    def below(self, uint64_t bound):
        """A uniform integer in [0, bound); ValueError when bound is 0."""
        if bound == 0:
            raise ValueError("bound must be positive")
        return self.next_below(bound)

    def random(self):
        """A uniform float in [0, 1) with 53 bits."""
        return (self.next_u64() >> 11) * (1.0 / 9007199254740992.0)

    def bytes(self, Py_ssize_t n):
        """n random bytes."""
        return b"".join(int(self.next_u64()).to_bytes(8, "little") for _ in range((n + 7) // 8))[:n]
