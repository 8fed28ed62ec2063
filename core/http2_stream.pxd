"""Streams of an HTTP/2 session for Cython callers: see http2_stream.pyx."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from trunkline.core.framing cimport Inbox, Outbox
from trunkline.core.nghttp2 cimport nghttp2_nv, nghttp2_session


cdef class Budget:
    cdef readonly Py_ssize_t used_bytes
    cdef readonly Py_ssize_t bytes_max


cdef class Account:
    cdef nghttp2_session* _wire
    cdef object _session  # so that it lives as long as streams of it do, unless it is closed
    cdef Budget _budget
    cdef Py_ssize_t _held_bytes
    cdef Py_ssize_t _unread_bytes
    cdef Py_ssize_t _owed_bytes
    cdef Py_ssize_t _unread_bytes_max

    cdef int _give_back(self) except -1


cdef class Stream:
    cdef readonly int32_t id
    cdef readonly bytes path
    cdef readonly bytes method
    cdef readonly bytes encoding
    cdef readonly bytes accept_encoding
    cdef readonly list headers
    cdef readonly int64_t timeout_ns
    cdef readonly bint is_grpc
    cdef readonly bint has_te
    cdef readonly bint headers_too_large
    cdef readonly bint is_requested
    cdef readonly bint is_ended
    cdef readonly bint is_closed
    cdef readonly bint is_over_budget
    cdef readonly uint32_t reset_code
    cdef readonly int64_t sent_bytes
    cdef readonly Inbox inbox
    cdef public object call
    cdef public Py_ssize_t piece_message_bytes_max
    cdef Outbox _outbox
    cdef Account _account
    cdef list _trailers
    cdef uint32_t _header_bytes
    cdef Py_ssize_t _owed_bytes
    cdef Py_ssize_t _held_bytes
    cdef Py_ssize_t _unread_bytes
    cdef size_t _promised_bytes  # of a DATA frame whose length is fixed and whose bytes have not gone
    cdef bint _is_reset
    cdef bint _is_changed
    cdef bint _is_deferred
    cdef bint _has_responded
    cdef bint _is_finishing
    cdef Py_ssize_t _room_at

    cdef int _took(self, const uint8_t* data, Py_ssize_t length) except -1
    cdef int _tell_account(self) except -1
    cdef ssize_t _due(self, size_t length, uint32_t* flags) except -1
    cdef int _wake(self) except -1
    cdef int _submit(self, const nghttp2_nv* first, size_t first_count, list headers, bint ends) except -1
