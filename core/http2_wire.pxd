"""libnghttp2's callbacks as methods for Cython callers: see http2_wire.pyx."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from trunkline.core.http2_stream cimport Stream
from trunkline.core.nghttp2 cimport (
    nghttp2_frame, nghttp2_frame_hd, nghttp2_option, nghttp2_session, nghttp2_session_get_stream_user_data,
)


cdef class Wire:
    cdef nghttp2_session* _session
    cdef object _failure

    cdef int _open(self, const nghttp2_option* option) except -1
    cdef ssize_t _receive(self, const uint8_t* data, size_t length) except? -1
    cdef bytes _send(self, size_t limit, ssize_t* error)
    cdef int _raise(self) except -1
    cdef int _begin(self, int32_t stream_id) except -1
    cdef int _header(
        self, Stream stream, const uint8_t* name, size_t name_length, const uint8_t* value, size_t value_length
    ) except -1
    cdef int _frame_begins(self, const nghttp2_frame_hd* head) except -1
    cdef int _frame(self, const nghttp2_frame* frame) except -1
    cdef int _invalid_frame(self, const nghttp2_frame* frame) except -1
    cdef int _data(self, Stream stream, const uint8_t* data, size_t length) except -1
    cdef int _sent(self, const nghttp2_frame* frame) except -1
    cdef int _not_sent(self, const nghttp2_frame* frame) except -1
    cdef int _pulled(self, Stream stream) except -1
    cdef int _closed(self, Stream stream, uint32_t code) except -1


cdef inline object stream_of(nghttp2_session* wire, int32_t stream_id):
    """The stream with this id, or None."""
    cdef void* found = nghttp2_session_get_stream_user_data(wire, stream_id)
    return None if found == NULL else <object>found
