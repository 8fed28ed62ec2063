"""Reading messages that protobuf serialized: each field stands once, and texts are UTF-8. ValueError where none is."""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from libc.string cimport memcpy

from trunkline.core cimport protowire


cdef struct Span:
    const uint8_t* at  # NULL when absent
    Py_ssize_t size


cdef inline str text(Span span):
    return PyUnicode_DecodeUTF8(<const char*>span.at, span.size, NULL) if span.size else ""


cdef inline int read_tag(const uint8_t** at, const uint8_t* end, uint32_t* tag) except -1:
    if protowire.read_tag(at, end, tag) < 0:
        raise ValueError("no message")
    return 0


cdef inline int read_span(const uint8_t** at, const uint8_t* end, Span* into) except -1:
    if protowire.read_size(at, end, &into.size) < 0:
        raise ValueError("no message")
    into.at = at[0]
    at[0] += into.size
    return 0


cdef inline int read_number(const uint8_t** at, const uint8_t* end, uint64_t* into) except -1:
    if protowire.read_varint(at, end, into) < 0:
        raise ValueError("no message")
    return 0


cdef inline int read_fixed(const uint8_t** at, const uint8_t* end, uint64_t* into) except -1:
    if end - at[0] < 8:
        raise ValueError("no message")
    memcpy(into, at[0], 8)
    at[0] += 8
    return 0


cdef inline int skip(const uint8_t** at, const uint8_t* end, uint32_t tag) except -1:
    if protowire.skip_value(at, end, tag, protowire.DEPTH_MAX) < 0:
        raise ValueError("no message")
    return 0
