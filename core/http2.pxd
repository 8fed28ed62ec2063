"""HTTP/2 sessions of a gRPC server for Cython callers: see http2.pyx."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from trunkline.core.guards cimport Bucket
from trunkline.core.http2_stream cimport Account, Stream
from trunkline.core.http2_wire cimport Wire
from trunkline.core.nghttp2 cimport nghttp2_option


cdef class Limits:
    cdef readonly uint32_t streams_max
    cdef readonly uint32_t header_bytes_max
    cdef readonly uint32_t message_bytes_max
    cdef readonly int32_t stream_window_bytes
    cdef readonly int32_t connection_window_bytes
    cdef readonly Py_ssize_t unread_bytes_max
    cdef readonly double resets_per_s_max
    cdef readonly double settings_per_s_max
    cdef readonly double empty_frames_per_s_max
    cdef readonly int64_t ping_interval_ns_min
    cdef nghttp2_option* _option


cdef class Session(Wire):
    cdef readonly Limits limits
    cdef readonly dict streams
    cdef readonly str cut_by
    cdef readonly bint is_greeted
    cdef readonly bint is_leaving
    cdef readonly int error
    cdef readonly int64_t headers_since_ns
    cdef readonly int64_t pings_answered
    cdef readonly int64_t requests
    cdef Account _account
    cdef list _changed
    cdef list _relieved
    cdef bytes _last_path
    cdef int64_t _now_ns
    cdef Bucket _resets
    cdef Bucket _settings
    cdef Bucket _empty_frames
    cdef int32_t _headers_of
    cdef int _continuations
    cdef int64_t _last_ping_ns
    cdef int _ping_strikes

    cdef int _cut(self, str limit, uint32_t code) except -1
    cdef int _await_headers(self, int32_t stream_id) except -1
    cdef int _change(self, Stream stream) except -1
    cdef bytes _path_of(self, const uint8_t* value, size_t length)
    cdef int _spend(self, Bucket* bucket, str limit, double per_s) except -1
    cdef int _ping_came(self) except -1
