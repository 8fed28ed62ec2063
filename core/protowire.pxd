"""Reading protobuf's binary form as upb reads it: the same bytes are accepted, the same are refused.

Functions that return int give 0, or -1 for bytes that are not well-formed. `at` is moved behind what was read, and
nothing at or behind `end` is touched. Source: protobuf.dev/programming-guides/encoding. The limits are those of upb,
the parser of Python's protobuf, stricter than the encoding's: a tag or a length has at most 5 bytes and 32 bits, a
varint at most 10 bytes, of which excess bits are dropped. (A length of 32 bits is beyond the end of anything read.)
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    GROUP = 3
    GROUP_END = 4
    FIXED32 = 5
    DEPTH_MAX = 100  # how deep messages and groups may lie in each other


cdef inline int read_varint(const uint8_t** at, const uint8_t* end, uint64_t* value) noexcept nogil:
    cdef const uint8_t* p = at[0]
    cdef uint64_t found = 0
    cdef int shift = 0
    while p < end and shift < 70:
        found |= <uint64_t>(p[0] & 0x7F) << shift
        if p[0] < 0x80:
            value[0] = found
            at[0] = p + 1
            return 0
        p += 1
        shift += 7
    return -1


cdef inline int read_varint_32(const uint8_t** at, const uint8_t* end, uint32_t* value) noexcept nogil:
    """Read a varint of at most 5 bytes whose value must have at most 32 bits."""
    cdef const uint8_t* p = at[0]
    cdef uint64_t found
    if p < end and p[0] < 0x80:
        value[0] = p[0]
        at[0] = p + 1
        return 0
    if read_varint(at, end, &found) < 0 or at[0] - p > 5 or found >> 32 != 0:
        return -1
    value[0] = <uint32_t>found
    return 0


cdef inline int read_tag(const uint8_t** at, const uint8_t* end, uint32_t* tag) noexcept nogil:
    """Read field number and wire type; 0 is no field number."""
    if read_varint_32(at, end, tag) < 0 or tag[0] < 8:
        return -1
    return 0


cdef inline int read_size(const uint8_t** at, const uint8_t* end, Py_ssize_t* size) noexcept nogil:
    """Read a length, so many bytes of which must be there."""
    cdef uint32_t found
    if read_varint_32(at, end, &found) < 0 or <Py_ssize_t>found > end - at[0]:
        return -1
    size[0] = found
    return 0


cdef inline int skip_value(const uint8_t** at, const uint8_t* end, uint32_t tag, int depth) noexcept nogil:
    """Skip the value behind `tag`. `depth` says how many groups may lie in each other."""
    cdef uint64_t ignored
    cdef Py_ssize_t size
    cdef int wire_type = tag & 7
    if wire_type == VARINT:
        return read_varint(at, end, &ignored)
    if wire_type == BYTES:
        if read_size(at, end, &size) < 0:
            return -1
    elif wire_type == FIXED64:
        size = 8
    elif wire_type == FIXED32:
        size = 4
    elif wire_type == GROUP:
        return skip_group(at, end, tag, depth - 1)
    else:
        return -1
    if size > end - at[0]:
        return -1
    at[0] += size
    return 0


cdef inline int skip_group(const uint8_t** at, const uint8_t* end, uint32_t tag, int depth) noexcept nogil:
    cdef uint32_t inner
    if depth < 0:
        return -1
    while True:
        if read_tag(at, end, &inner) < 0:
            return -1
        if inner == tag + 1:  # the same field, GROUP_END
            return 0
        if skip_value(at, end, inner, depth) < 0:
            return -1


cdef inline Py_ssize_t varint_size(uint64_t value) noexcept nogil:
    """How many bytes the shortest encoding has."""
    cdef Py_ssize_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    """Write the shortest encoding; gives the byte behind it."""
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1


cdef inline bint utf8_is_valid(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """Whether the bytes are UTF-8: shortest forms only, no surrogates, up to U+10FFFF (RFC 3629)."""
    cdef const uint8_t* end = p + size
    cdef uint64_t eight
    while True:
        while end - p >= 8:
            memcpy(&eight, p, 8)
            if eight & 0x8080808080808080ULL:
                break
            p += 8
        while p < end and p[0] < 0x80:
            p += 1
        if p == end:
            return True
        size = _sequence_size(p, end)
        if size == 0:
            return False
        p += size


cdef inline Py_ssize_t _sequence_size(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Length of the sequence of more than one byte at `p`, 0 if there is no valid one (Unicode, table 3-7)."""
    cdef uint8_t lead = p[0]
    cdef uint8_t low = 0x80
    cdef uint8_t high = 0xBF
    cdef Py_ssize_t size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    cdef Py_ssize_t i
    if lead < 0xC2 or lead > 0xF4 or end - p < size:
        return 0
    if lead == 0xE0:
        low = 0xA0
    elif lead == 0xED:
        high = 0x9F
    elif lead == 0xF0:
        low = 0x90
    elif lead == 0xF4:
        high = 0x8F
    if p[1] < low or p[1] > high:
        return 0
    for i in range(2, size):
        if p[i] & 0xC0 != 0x80:
            return 0
    return size
