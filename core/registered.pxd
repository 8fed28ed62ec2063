"""What a registry holds of an instance, for Cython callers."""

from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef class RegisteredInstance:
    cdef readonly object instance
    cdef readonly object status
    cdef readonly str status_reason
    cdef readonly uint64_t created_revision
    cdef readonly uint64_t modified_revision
    cdef readonly int64_t registered_at_ns
    cdef tuple _fields(self)


cdef class Lease:
    cdef readonly uint64_t id
    cdef uint8_t _secret_hash[32]
    cdef readonly int64_t ttl_ms
    cdef readonly uint64_t keeper
    cdef int64_t _lapsed_revision  # below 0: it has not lapsed
    cdef readonly int64_t lapsed_ns
    cdef int set_secret_hash(self, const uint8_t* hash, Py_ssize_t size) except -1
    cdef tuple _fields(self)


cdef class Entry:
    cdef readonly RegisteredInstance registered
    cdef readonly Lease lease
    cdef readonly str probe_failure
    cdef readonly object override
    cdef tuple _fields(self)
