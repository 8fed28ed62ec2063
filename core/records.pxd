"""Records for Cython callers."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef class Version:
    cdef readonly uint64_t writer
    cdef readonly uint64_t epoch
    cdef readonly uint64_t sequence


cdef class Draft:
    cdef readonly str topic
    cdef readonly bytes body
    cdef readonly str key
    cdef readonly str id
    cdef readonly str namespace
    cdef readonly uint32_t schema
    cdef readonly Version version
    cdef readonly Version expects
    cdef readonly str author
    cdef readonly str reason
    cdef readonly str traceparent


cdef class Record(Draft):
    cdef readonly int64_t offset
    cdef readonly int64_t time_ns


cdef str shown(object value, tuple names, tuple fields)
cdef Version version_of(uint64_t writer, uint64_t epoch, uint64_t sequence)
