"""Length-prefixed messages for Cython callers: see framing.pyx."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum Fault:
    FAULT_NONE = 0
    FAULT_FLAG = 1
    FAULT_TOO_LONG = 2


cdef class Compressed:
    cdef readonly bytes data


cdef class Inbox:
    cdef readonly Py_ssize_t unread_bytes
    cdef readonly Py_ssize_t partial_bytes
    cdef readonly int fault
    cdef readonly uint32_t too_long_bytes
    cdef uint32_t _message_max
    cdef list _messages
    cdef Py_ssize_t _first
    cdef object _body
    cdef Py_ssize_t _body_length
    cdef Py_ssize_t _body_room
    cdef Py_ssize_t _body_at
    cdef uint8_t[5] _prefix
    cdef int _prefix_at

    cdef Py_ssize_t _feed(self, const uint8_t* data, Py_ssize_t length) except -1
    cdef int _begin_body(self) except -1
    cdef int _grow(self, Py_ssize_t wanted) except -1
    cdef int _resize(self, Py_ssize_t room) except -1
    cdef int _finish_body(self) except -1
    cdef object _take(self)
    cdef Py_ssize_t _count(self) noexcept
    cdef bint _is_between(self) noexcept


cdef class Outbox:
    cdef readonly Py_ssize_t framed_bytes
    cdef readonly Py_ssize_t piece_bytes
    cdef list _framed
    cdef Py_ssize_t _framed_first
    cdef Py_ssize_t _offset
    cdef list _pieces
    cdef bint _has_empty_piece
    cdef Py_ssize_t _message_left

    cdef int _drop(self, Py_ssize_t promised) except -1
    cdef int _push(self, bytes message, bint compressed) except -1
    cdef int _offer(self, bytes piece) except -1
    cdef int _gather(self, Py_ssize_t limit) except -1
    cdef int _pull(self, uint8_t* to, Py_ssize_t length) except -1
    cdef int _gather_all(self) except -1
    cdef int _gather_one(self, Py_ssize_t limit) except -1
    cdef void _clear(self)
