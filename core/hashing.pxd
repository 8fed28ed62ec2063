"""xxHash64 for Cython callers, after the public specification of the algorithm.

Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md (XXH64).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef inline uint64_t _rotated(uint64_t x, int by) noexcept nogil:
    return (x << by) | (x >> (64 - by))


cdef inline uint64_t _read_4(const uint8_t* at) noexcept nogil:
    # Byte by byte, so that it holds on any machine; compilers make one load of it.
    return <uint32_t>at[0] | (<uint32_t>at[1] << 8) | (<uint32_t>at[2] << 16) | (<uint32_t>at[3] << 24)


cdef inline uint64_t _read_8(const uint8_t* at) noexcept nogil:
    return _read_4(at) | (_read_4(at + 4) << 32)


cdef inline uint64_t _absorbed(uint64_t lane, uint64_t word) noexcept nogil:
    lane += word * 0xC2B2AE3D27D4EB4FULL
    return _rotated(lane, 31) * 0x9E3779B185EBCA87ULL


cdef inline uint64_t _merged(uint64_t hash, uint64_t lane) noexcept nogil:
    return (hash ^ _absorbed(0, lane)) * 0x9E3779B185EBCA87ULL + 0x85EBCA77C2B2AE63ULL


cdef inline uint64_t _stripes(const uint8_t** at, const uint8_t* end, uint64_t seed) noexcept nogil:
    """Take all whole stripes of 32 bytes into four lanes, move `at` behind them, and join the lanes."""
    cdef uint64_t lane_1 = seed + 0x9E3779B185EBCA87ULL + 0xC2B2AE3D27D4EB4FULL
    cdef uint64_t lane_2 = seed + 0xC2B2AE3D27D4EB4FULL
    cdef uint64_t lane_3 = seed
    cdef uint64_t lane_4 = seed - 0x9E3779B185EBCA87ULL
    cdef uint64_t hash
    cdef const uint8_t* here = at[0]
    while end - here >= 32:
        lane_1 = _absorbed(lane_1, _read_8(here))
        lane_2 = _absorbed(lane_2, _read_8(here + 8))
        lane_3 = _absorbed(lane_3, _read_8(here + 16))
        lane_4 = _absorbed(lane_4, _read_8(here + 24))
        here += 32
    at[0] = here
    hash = _rotated(lane_1, 1) + _rotated(lane_2, 7) + _rotated(lane_3, 12) + _rotated(lane_4, 18)
    hash = _merged(hash, lane_1)
    hash = _merged(hash, lane_2)
    hash = _merged(hash, lane_3)
    return _merged(hash, lane_4)


cdef inline uint64_t xxh64_raw(const uint8_t* data, size_t size, uint64_t seed) noexcept nogil:
    """XXH64 of `size` bytes at `data`, which may be NULL when `size` is 0."""
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + size
    cdef uint64_t hash
    if size >= 32:
        hash = _stripes(&at, end, seed)
    else:
        hash = seed + 0x27D4EB2F165667C5ULL
    hash += size
    while end - at >= 8:
        hash ^= _absorbed(0, _read_8(at))
        hash = _rotated(hash, 27) * 0x9E3779B185EBCA87ULL + 0x85EBCA77C2B2AE63ULL
        at += 8
    if end - at >= 4:
        hash ^= _read_4(at) * 0x9E3779B185EBCA87ULL
        hash = _rotated(hash, 23) * 0xC2B2AE3D27D4EB4FULL + 0x165667B19E3779F9ULL
        at += 4
    while at < end:
        hash ^= at[0] * 0x27D4EB2F165667C5ULL
        hash = _rotated(hash, 11) * 0x9E3779B185EBCA87ULL
        at += 1
    hash = (hash ^ (hash >> 33)) * 0xC2B2AE3D27D4EB4FULL
    hash = (hash ^ (hash >> 29)) * 0x165667B19E3779F9ULL
    return hash ^ (hash >> 32)
