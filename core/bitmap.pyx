"""Bitmaps of offsets: what a subscription has done, in one bit each.

Bit i of byte b stands for the offset first + 8 b + i. Bytes of nothing but zeros at the end are left out.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset


cdef bytes _trimmed(bytes bits):
    return bits.rstrip(b"\0")


def all_but(uint64_t first, uint64_t end, missing):
    """Every offset from `first` to below `end` but the missing ones; of those, others are passed over."""
    cdef Py_ssize_t count = <Py_ssize_t>(end - first) if end > first else 0
    cdef bytes bits = PyBytes_FromStringAndSize(NULL, (count + 7) // 8)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(bits)
    cdef uint64_t offset, place
    memset(at, 0xFF, count // 8)
    if count % 8:
        at[count // 8] = <uint8_t>((1 << (count % 8)) - 1)
    for offset in missing:
        if first <= offset < end:
            place = offset - first
            at[place >> 3] &= ~<uint8_t>(1 << (place & 7))
    return _trimmed(bits)


def only(uint64_t first, uint64_t end, offsets):
    """These offsets alone, of those from `first` to below `end`."""
    cdef Py_ssize_t count = <Py_ssize_t>(end - first) if end > first else 0
    cdef bytes bits = PyBytes_FromStringAndSize(NULL, (count + 7) // 8)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(bits)
    cdef uint64_t offset, place
    memset(at, 0, (count + 7) // 8)
    for offset in offsets:
        if first <= offset < end:
            place = offset - first
            at[place >> 3] |= <uint8_t>(1 << (place & 7))
    return _trimmed(bits)
