"""The headers of a gRPC call that a server acts on, told apart without making objects of them.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (Requests).
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp

cdef enum Header:
    HEADER_OTHER = 0
    HEADER_METHOD = 1
    HEADER_PATH = 2
    HEADER_PSEUDO = 3
    HEADER_CONTENT_TYPE = 4
    HEADER_TE = 5
    HEADER_TIMEOUT = 6
    HEADER_ENCODING = 7
    HEADER_ACCEPT_ENCODING = 8

cdef enum:
    TIMEOUT_NONE = -1
    TIMEOUT_MALFORMED = -2


cdef inline bint is_text(const uint8_t* at, size_t length, const char* text, size_t text_length) noexcept:
    return length == text_length and memcmp(at, text, length) == 0


cdef inline bint is_blank(uint8_t character) noexcept:
    return character == c" " or character == c"\t"


cdef inline void strip_blanks(const uint8_t** value, size_t* length) noexcept:
    """Move both ends inwards over blanks."""
    while length[0] and is_blank(value[0][0]):
        value[0] += 1
        length[0] -= 1
    while length[0] and is_blank(value[0][length[0] - 1]):
        length[0] -= 1


cdef inline Header kind_of(const uint8_t* name, size_t length) noexcept:
    """Which header a name is."""
    if length and name[0] == c":":
        if is_text(name, length, b":path", 5):
            return HEADER_PATH
        return HEADER_METHOD if is_text(name, length, b":method", 7) else HEADER_PSEUDO
    if is_text(name, length, b"te", 2):
        return HEADER_TE
    if is_text(name, length, b"content-type", 12):
        return HEADER_CONTENT_TYPE
    if is_text(name, length, b"grpc-timeout", 12):
        return HEADER_TIMEOUT
    if is_text(name, length, b"grpc-encoding", 13):
        return HEADER_ENCODING
    if is_text(name, length, b"grpc-accept-encoding", 20):
        return HEADER_ACCEPT_ENCODING
    return HEADER_OTHER


cdef inline bint is_grpc_type(const uint8_t* at, size_t length) noexcept:
    """application/grpc, alone or with +proto, +json, or parameters."""
    return (
        length >= 16 and memcmp(at, <const char*>b"application/grpc", 16) == 0
        and (length == 16 or at[16] == c"+" or at[16] == c";")
    )


cdef inline int64_t timeout_ns(const uint8_t* at, size_t length) noexcept:
    """Nanoseconds of a grpc-timeout: 1 to 8 digits and a unit; TIMEOUT_MALFORMED for anything else."""
    cdef int64_t value = 0
    cdef int64_t unit
    cdef size_t i
    if length < 2 or length > 9:
        return TIMEOUT_MALFORMED
    for i in range(length - 1):
        if at[i] < c"0" or at[i] > c"9":
            return TIMEOUT_MALFORMED
        value = value * 10 + (at[i] - c"0")
    if at[length - 1] == c"n":
        unit = 1
    elif at[length - 1] == c"u":
        unit = 1_000
    elif at[length - 1] == c"m":
        unit = 1_000_000
    elif at[length - 1] == c"S":
        unit = 1_000_000_000
    elif at[length - 1] == c"M":
        unit = 60_000_000_000
    elif at[length - 1] == c"H":
        unit = 3_600_000_000_000
    else:
        return TIMEOUT_MALFORMED
    if value > (<int64_t>1 << 62) // unit:
        return <int64_t>1 << 62  # two thousand years and more: longer than anybody waits
    return value * unit
