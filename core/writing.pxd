"""Writing messages as protobuf serializes them, fields in their order, from the last byte to the first.

Backwards, so that a message's length is known when it is put before it. Fields that have their default are left out, as
protobuf does; `put_bytes` and what is called `always` write what is there, empty or not. Tags are of one byte. Source:
protobuf.dev/programming-guides/encoding. MemoryError when there is none.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from trunkline.core cimport protowire


cdef enum:
    _ROOM = 480  # most instances and heads fit into so much


cdef struct Out:
    uint8_t* room
    uint8_t* at   # the first byte that is written
    uint8_t* end


cdef inline int open_out(Out* out) except -1:
    """`free_out` must follow."""
    out.room = <uint8_t*>PyMem_Malloc(_ROOM)
    if out.room == NULL:
        raise MemoryError
    out.at = out.end = out.room + _ROOM
    return 0


cdef inline void free_out(Out* out) noexcept:
    PyMem_Free(out.room)


cdef inline bytes taken(Out* out):
    """What is written."""
    return PyBytes_FromStringAndSize(<const char*>out.at, out.end - out.at)


cdef inline Py_ssize_t written(Out* out) noexcept:
    """How much is written: a mark for `put_message`."""
    return out.end - out.at


cdef inline int _need(Out* out, Py_ssize_t size) except -1:
    cdef Py_ssize_t used, room
    cdef uint8_t* more
    if out.at - out.room >= size:
        return 0
    used = out.end - out.at
    room = 2 * (used + size)
    more = <uint8_t*>PyMem_Malloc(room)
    if more == NULL:
        raise MemoryError
    memcpy(more + room - used, out.at, used)
    PyMem_Free(out.room)
    out.room = more
    out.end = more + room
    out.at = out.end - used
    return 0


cdef inline int put_number_always(Out* out, uint8_t tag, uint64_t value) except -1:
    _need(out, 11)
    out.at -= protowire.varint_size(value)
    protowire.put_varint(out.at, value)
    out.at -= 1
    out.at[0] = tag
    return 0


cdef inline int put_number(Out* out, uint8_t tag, uint64_t value) except -1:
    return put_number_always(out, tag, value) if value else 0


cdef inline int put_fixed(Out* out, uint8_t tag, uint64_t value) except -1:
    if value == 0:
        return 0
    _need(out, 9)
    out.at -= 8
    memcpy(out.at, &value, 8)
    out.at -= 1
    out.at[0] = tag
    return 0


cdef inline int _put_span(Out* out, uint8_t tag, const char* data, Py_ssize_t size) except -1:
    _need(out, size)
    out.at -= size
    memcpy(out.at, data, size)
    return put_number_always(out, tag, size)


cdef inline int put_bytes(Out* out, uint8_t tag, bytes data) except -1:
    return _put_span(out, tag, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline int put_text_always(Out* out, uint8_t tag, str value) except -1:
    """UnicodeEncodeError when it is no text."""
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(value, &size)
    return _put_span(out, tag, data, size)


cdef inline int put_text(Out* out, uint8_t tag, str value) except -1:
    """UnicodeEncodeError when it is no text."""
    return put_text_always(out, tag, value) if value else 0


cdef inline int put_message(Out* out, uint8_t tag, Py_ssize_t mark) except -1:
    """What was written since `mark` is a message in this field."""
    return put_number_always(out, tag, written(out) - mark)
