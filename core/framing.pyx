"""gRPC's length-prefixed messages, both ways: bytes as they come to whole messages, and messages to bytes as they go.

A message is a byte that says whether it is compressed, its length in 4 bytes, big-endian, and itself.
Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (Length-Prefixed-Message).
"""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** bytes, Py_ssize_t size) except -1

cdef enum:
    _PREFIX_BYTES = 5
    _ROOM_FIRST = 64 * 1024
    _LEAVE_BEHIND = 64

PREFIX_BYTES = _PREFIX_BYTES


@cython.final
cdef class Compressed:
    """A message that came with the compressed flag: `data` is what the call's encoding must undo."""

    def __init__(self, bytes data not None):
        self.data = data


cdef inline bytes _prefix_of(Py_ssize_t length, bint compressed):
    cdef bytes prefix = PyBytes_FromStringAndSize(NULL, _PREFIX_BYTES)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(prefix)
    if length > 0xFFFFFFFF:
        raise OverflowError(f"a message of {length} bytes has no length prefix")
    at[0] = compressed
    at[1] = <uint8_t>(length >> 24)
    at[2] = <uint8_t>(length >> 16)
    at[3] = <uint8_t>(length >> 8)
    at[4] = <uint8_t>length
    return prefix


cdef inline Py_ssize_t _length_in(bytes prefix):
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(prefix)
    return (<Py_ssize_t>at[1] << 24) | (<Py_ssize_t>at[2] << 16) | (<Py_ssize_t>at[3] << 8) | at[4]


@cython.final
cdef class Inbox:
    """Assembles messages of at most `message_max` bytes from pieces of any size.

    `unread_bytes` are in whole messages that nobody has taken, `partial_bytes` in the one that is coming. Room for that
    one grows with what has come, so that a length which is only claimed costs nothing. After a fault nothing is taken
    any more: FAULT_FLAG, the first byte was neither 0 nor 1; FAULT_TOO_LONG, longer than `message_max`
    (`too_long_bytes`).
    """

    def __cinit__(self, uint32_t message_max):
        self._message_max = message_max
        self._messages = []

    def feed(self, data not None):
        """Take in bytes of any length; how many messages they completed."""
        cdef const uint8_t[::1] view = data
        return self._feed(&view[0], view.shape[0]) if view.shape[0] else 0

    def take(self):
        """The oldest message: bytes, or Compressed. None when there is none."""
        return self._take()

    def __len__(self):
        """Whole messages that nobody has taken."""
        return self._count()

    @property
    def is_between(self):
        """Whether the last byte that came was the last of a message: a stream may end here."""
        return self._is_between()

    cdef Py_ssize_t _count(self) noexcept:
        return len(self._messages) - self._first

    cdef bint _is_between(self) noexcept:
        return self._prefix_at == 0

    cdef Py_ssize_t _feed(self, const uint8_t* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t completed = 0
        cdef Py_ssize_t taken
        while length and self.fault == FAULT_NONE:
            if self._prefix_at < _PREFIX_BYTES:
                self._prefix[self._prefix_at] = data[0]
                self._prefix_at += 1
                data += 1
                length -= 1
                if self._prefix_at < _PREFIX_BYTES:
                    continue
                self._begin_body()
            elif self._body_at < self._body_length:
                taken = min(length, self._body_length - self._body_at)
                self._grow(self._body_at + taken)
                memcpy(PyBytes_AS_STRING(self._body) + self._body_at, data, taken)
                self._body_at += taken
                self.partial_bytes += taken
                data += taken
                length -= taken
            if self.fault == FAULT_NONE and self._body_at == self._body_length:
                self._finish_body()
                completed += 1
        return completed

    cdef int _begin_body(self) except -1:
        cdef uint32_t size = (
            (<uint32_t>self._prefix[1] << 24) | (<uint32_t>self._prefix[2] << 16)
            | (<uint32_t>self._prefix[3] << 8) | self._prefix[4]
        )
        if self._prefix[0] > 1:
            self.fault = FAULT_FLAG
        elif size > self._message_max:
            self.fault = FAULT_TOO_LONG
            self.too_long_bytes = size
        else:
            self._body_length = size
            self._body_room = min(<Py_ssize_t>size, <Py_ssize_t>_ROOM_FIRST)
            self._body_at = 0
            self._body = PyBytes_FromStringAndSize(NULL, self._body_room)
        return 0

    cdef int _grow(self, Py_ssize_t wanted) except -1:
        """Make room for `wanted` bytes, at least twice what there was."""
        if wanted > self._body_room:
            self._resize(min(self._body_length, max(wanted, 2 * self._body_room)))
        return 0

    cdef int _resize(self, Py_ssize_t room) except -1:
        cdef PyObject* body = <PyObject*>self._body
        Py_INCREF(self._body)
        self._body = None  # the only reference is ours now, as _PyBytes_Resize demands
        _PyBytes_Resize(&body, room)
        self._body = <object>body
        Py_XDECREF(body)
        self._body_room = room
        return 0

    cdef int _finish_body(self) except -1:
        self._messages.append(Compressed(self._body) if self._prefix[0] else self._body)
        self._body = None
        self._prefix_at = 0
        self.unread_bytes += self._body_length
        self.partial_bytes = 0
        self._body_at = 0
        self._body_length = -1
        return 0

    cdef object _take(self):
        cdef object message
        if self._first == len(self._messages):
            return None
        message = self._messages[self._first]
        self._messages[self._first] = None
        self._first += 1
        if self._first == len(self._messages) or self._first >= _LEAVE_BEHIND:
            del self._messages[:self._first]
            self._first = 0
        if type(message) is Compressed:
            self.unread_bytes -= len((<Compressed>message).data)
        else:
            self.unread_bytes -= PyBytes_GET_SIZE(message)
        return message


@cython.final
cdef class Outbox:
    """What one stream has to send. Bodies are kept by reference: those who get the same bytes share them.

    A message that is pushed goes as it is. Pieces that are offered wait unframed until they are pulled; then as many as
    there are become one message, so that what gathers while the peer is slow goes in few messages.
    """

    def __cinit__(self):
        self._framed = []
        self._pieces = []

    def push(self, bytes message not None, bint compressed=False):
        """A whole message, behind everything that waits. OverflowError above 4 GiB."""
        self._push(message, compressed)

    def offer(self, bytes piece not None):
        """A piece of a message, behind everything that waits."""
        self._offer(piece)

    def pull(self, Py_ssize_t length, Py_ssize_t message_max):
        """At most `length` of the bytes that are due; pieces become messages of at most `message_max` bytes each, but a
        longer piece goes alone."""
        cdef bytes data
        self._gather(message_max)
        data = PyBytes_FromStringAndSize(NULL, max(0, min(length, self.framed_bytes)))
        self._pull(<uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return data

    def drop(self):
        """Let go what waits, but for the rest of a message that is half pulled: the peer could not tell its end."""
        self._drop(0)

    def clear(self):
        """Let everything go."""
        self._clear()

    cdef int _drop(self, Py_ssize_t promised) except -1:
        """The same; the next `promised` bytes count as begun."""
        cdef Py_ssize_t left = self._message_left
        cdef Py_ssize_t at = self._framed_first
        cdef Py_ssize_t offset = self._offset
        cdef Py_ssize_t taken
        cdef Py_ssize_t kept_bytes = 0
        cdef list kept
        while left > 0 or kept_bytes < promised:
            if left == 0:
                left = _PREFIX_BYTES + _length_in(self._framed[at])
            taken = PyBytes_GET_SIZE(self._framed[at]) - offset
            left -= taken
            kept_bytes += taken
            offset = 0
            at += 1
        kept = self._framed[self._framed_first:at]
        left, offset = self._message_left, self._offset
        self._clear()
        self._framed = kept
        self._offset = offset
        self._message_left = left
        self.framed_bytes = kept_bytes
        return 0

    cdef int _push(self, bytes message, bint compressed) except -1:
        cdef bytes prefix = _prefix_of(PyBytes_GET_SIZE(message), compressed)
        if self._pieces:
            self._gather_all()
        self._framed.append(prefix)
        if PyBytes_GET_SIZE(message):  # an empty body has no bytes that could be pulled
            self._framed.append(message)
        self.framed_bytes += _PREFIX_BYTES + PyBytes_GET_SIZE(message)
        return 0

    cdef int _offer(self, bytes piece) except -1:
        self._pieces.append(piece)
        self._has_empty_piece |= PyBytes_GET_SIZE(piece) == 0
        self.piece_bytes += PyBytes_GET_SIZE(piece)
        return 0

    cdef int _gather_all(self) except -1:
        """Frame all pieces, because a message comes behind them."""
        while self._pieces:
            self._gather_one(1 << 30)
        return 0

    cdef int _gather(self, Py_ssize_t limit) except -1:
        """Frame pieces as one message, if nothing framed waits."""
        if self.framed_bytes == 0 and self._pieces:
            self._gather_one(limit)
        return 0

    cdef int _gather_one(self, Py_ssize_t limit) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self._pieces[0])
        cdef Py_ssize_t count = len(self._pieces)
        cdef Py_ssize_t at = 1
        while at < count and size + PyBytes_GET_SIZE(self._pieces[at]) <= limit:
            size += PyBytes_GET_SIZE(self._pieces[at])
            at += 1
        self._framed.append(_prefix_of(size, False))
        if self._has_empty_piece:
            self._framed.extend([piece for piece in self._pieces[:at] if piece])
        elif at == count:
            self._framed.extend(self._pieces)
        else:
            self._framed.extend(self._pieces[:at])
        del self._pieces[:at]
        self.framed_bytes += _PREFIX_BYTES + size
        self.piece_bytes -= size
        return 0

    cdef int _pull(self, uint8_t* to, Py_ssize_t length) except -1:
        """Copy exactly `length` bytes, which must be framed."""
        cdef bytes first
        cdef Py_ssize_t taken
        assert length <= self.framed_bytes
        self.framed_bytes -= length
        while length:
            first = <bytes>self._framed[self._framed_first]
            if self._message_left == 0:
                self._message_left = _PREFIX_BYTES + _length_in(first)
            taken = min(length, PyBytes_GET_SIZE(first) - self._offset)
            memcpy(to, PyBytes_AS_STRING(first) + self._offset, taken)
            to += taken
            length -= taken
            self._offset += taken
            self._message_left -= taken
            if self._offset == PyBytes_GET_SIZE(first):
                self._offset = 0
                self._framed_first += 1
        if self.framed_bytes == 0:
            self._framed.clear()
            self._framed_first = 0
        elif self._framed_first >= _LEAVE_BEHIND:
            del self._framed[:self._framed_first]
            self._framed_first = 0
        return 0

    cdef void _clear(self):
        self._framed.clear()
        self._pieces.clear()
        self._framed_first = self._offset = self._message_left = 0
        self.framed_bytes = self.piece_bytes = 0
        self._has_empty_piece = False
