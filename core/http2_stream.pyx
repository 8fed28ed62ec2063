"""One call on the wire: what came of it, what it has to send, and what it holds of the connection's account."""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, uint8_t, uint32_t

from trunkline.core.callheaders cimport TIMEOUT_MALFORMED, TIMEOUT_NONE
from trunkline.core.framing cimport Inbox, Outbox
from trunkline.core.nghttp2 cimport *

cdef enum:
    _PIECE_MESSAGE_BYTES_MAX = 256 * 1024

TIMEOUT_NONE_NS = TIMEOUT_NONE
TIMEOUT_MALFORMED_NS = TIMEOUT_MALFORMED

cdef list _OK_TRAILERS = [(b"grpc-status", b"0")]
cdef nghttp2_nv[3] _head  # what every response begins with


@cython.final
cdef class Budget:
    """What all sessions together may hold of received bytes that no handler has taken."""

    def __init__(self, Py_ssize_t bytes_max):
        self.bytes_max = bytes_max


@cython.final
cdef class Account:
    """One connection's received bytes, and its session's handle, NULL when that is gone.

    `_held_bytes` are in the inboxes of all its streams, `_unread_bytes` of them in whole messages; `_owed_bytes` of the
    connection's window were used and not given back.
    """

    cdef int _give_back(self) except -1:
        """Room for the connection, unless much of what came is unread. What is being assembled does not count: its end
        may be what everybody waits for."""
        if self._owed_bytes and self._wire != NULL and 2 * self._unread_bytes <= self._unread_bytes_max:
            nghttp2_session_consume_connection(self._wire, self._owed_bytes)
            self._owed_bytes = 0
        return 0


@cython.final
cdef class Stream:
    """One call on the wire. `call` is whatever its owner hangs there; pieces become messages of at most
    `piece_message_bytes_max`.

    After it `is_closed` all that is written goes nowhere, in silence: the peer has gone, or has got everything.
    """

    def __cinit__(self):
        self.timeout_ns = TIMEOUT_NONE
        self._room_at = -1
        self.piece_message_bytes_max = _PIECE_MESSAGE_BYTES_MAX
        self.headers = []

    def __init__(self):
        raise TypeError("streams are made by a session")

    @property
    def pending_bytes(self):
        """Given to the stream and not yet sent."""
        return self._outbox.framed_bytes + self._outbox.piece_bytes

    @property
    def is_plain(self):
        """Whether this is a call of gRPC with nothing to look at more closely: no fault, no compression."""
        return (
            self.is_grpc and self.has_te and self.method is None and self.encoding is None
            and not self.headers_too_large and self.timeout_ns != TIMEOUT_MALFORMED
        )

    @property
    def is_whole(self):
        """Whether the request is one message, it is here, and nothing more will come."""
        return (
            self.is_ended and not self.is_closed and self.inbox._count() == 1 and self.inbox._is_between()
            and not self.inbox.fault and not self.is_over_budget
        )

    @property
    def has_responded(self):
        """Whether the response's headers are on their way."""
        return self._has_responded

    @property
    def is_finished(self):
        """Whether the end of the response was given."""
        return self._is_finishing

    def take(self):
        """The oldest whole message: bytes, or Compressed; None when there is none. The peer gets its room back."""
        cdef object message = self.inbox._take()
        if message is not None:
            self._tell_account()
            if self._owed_bytes and not self.inbox._count() and not self.is_closed:
                nghttp2_session_consume_stream(self._account._wire, self.id, self._owed_bytes)
                self._owed_bytes = 0
            self._account._give_back()
        return message

    def respond(self, list headers=None):
        """Send the response's headers, with more than the usual ones. ValueError when they are sent already."""
        if self._has_responded:
            raise ValueError("the headers of this stream are sent")
        self._has_responded = True
        if not self.is_closed:
            self._submit(_head, 3, headers, False)

    def write(self, bytes message not None, bint compressed=False):
        """Send a message; how many bytes now wait. Headers go first if they have not gone."""
        if self.is_closed or self._is_finishing:
            return 0
        if not self._has_responded:
            self.respond()
        self._outbox._push(message, compressed)
        self._wake()
        return self._outbox.framed_bytes + self._outbox.piece_bytes

    def offer(self, pieces not None):
        """Send pieces (bytes, or a sequence of them) that become as few messages as can be; how many bytes now wait."""
        cdef bytes piece
        if self.is_closed or self._is_finishing:
            return 0
        if not self._has_responded:
            self.respond()
        if type(pieces) is bytes:
            self._outbox._offer(<bytes>pieces)
        else:
            for piece in pieces:
                self._outbox._offer(piece)
        self._wake()
        return self._outbox.framed_bytes + self._outbox.piece_bytes

    def want_room(self, Py_ssize_t low_water_bytes):
        """Name this stream among the session's `relieved` when no more than this waits, once something was sent."""
        self._room_at = low_water_bytes

    def finish(self, list trailers=None):
        """End the response behind all that waits: OK without more, or these trailers, which hold grpc-status."""
        if self._is_finishing:
            return
        self._is_finishing = True
        self._trailers = trailers
        if self.is_closed:
            return
        if self._has_responded:
            self._wake()
        else:
            self._has_responded = True
            self._submit(_head, 2, _OK_TRAILERS if trailers is None else trailers, True)

    def reply(self, bytes message not None):
        """The whole response: headers if they have not gone, this message, and OK: the hot path of a call."""
        if self.is_closed or self._is_finishing:
            return
        if not self._has_responded:
            self._has_responded = True
            self._submit(_head, 3, None, False)
        self._outbox._push(message, False)
        self._is_finishing = True
        self._wake()

    def refuse(self, list headers not None):
        """The whole response in one block of headers, :status among them; ValueError when some are sent already."""
        if self._has_responded:
            raise ValueError("the headers of this stream are sent")
        self._has_responded = self._is_finishing = True
        if not self.is_closed:
            self._submit(NULL, 0, headers, True)

    def drop_pending(self):
        """Let go what waits to be sent, but for the rest of a message that is half sent."""
        self._outbox._drop(self._promised_bytes)

    def reset(self, uint32_t code):
        """End the stream at once, both ways."""
        if not self.is_closed:
            self._is_reset = True
            self._outbox._drop(self._promised_bytes)
            nghttp2_submit_rst_stream(self._account._wire, 0, self.id, code)

    cdef int _took(self, const uint8_t* data, Py_ssize_t length) except -1:
        """Take in data; 1 when that is news to whoever reads."""
        cdef Inbox inbox = self.inbox
        cdef Account account = self._account
        cdef bint was_unread = inbox._count() > 0
        cdef Py_ssize_t completed
        if self._is_finishing or self.is_over_budget or inbox.fault or not self.is_requested:
            nghttp2_session_consume_connection(account._wire, length)  # nobody wants it any more
            nghttp2_session_consume_stream(account._wire, self.id, length)
            return 0
        completed = inbox._feed(data, length)
        self._tell_account()
        if account._held_bytes > account._unread_bytes_max or account._budget.used_bytes > account._budget.bytes_max:
            self.is_over_budget = True
        # A message that is being assembled must not wait for room; one behind others waits until those are taken.
        if was_unread:
            self._owed_bytes += length
        else:
            nghttp2_session_consume_stream(account._wire, self.id, length)
        account._owed_bytes += length
        account._give_back()
        return completed > 0 or inbox.fault or self.is_over_budget

    cdef int _tell_account(self) except -1:
        """Count what this stream holds; nothing once it is closed."""
        cdef Account account = self._account
        cdef Py_ssize_t unread = 0 if self.is_closed else self.inbox.unread_bytes
        cdef Py_ssize_t held = 0 if self.is_closed else unread + self.inbox.partial_bytes
        account._unread_bytes += unread - self._unread_bytes
        account._held_bytes += held - self._held_bytes
        account._budget.used_bytes += held - self._held_bytes
        self._unread_bytes = unread
        self._held_bytes = held
        return 0

    cdef ssize_t _due(self, size_t length, uint32_t* flags) except -1:
        """Say how many bytes go next; behind the last of them go the trailers."""
        cdef Outbox outbox = self._outbox
        cdef nghttp2_nv* block
        cdef size_t count = 0
        outbox._gather(self.piece_message_bytes_max)
        if outbox.framed_bytes > <Py_ssize_t>length:
            flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
            self._promised_bytes = length
            return length
        if self._is_finishing and outbox.piece_bytes == 0:
            block = _block(NULL, 0, _OK_TRAILERS if self._trailers is None else self._trailers, &count)
            flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
            nghttp2_submit_trailer(self._account._wire, self.id, block, count)
            PyMem_Free(block)
        elif outbox.framed_bytes == 0:
            self._is_deferred = True
            return NGHTTP2_ERR_DEFERRED
        flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
        self._promised_bytes = outbox.framed_bytes
        return outbox.framed_bytes

    cdef int _wake(self) except -1:
        if self._is_deferred:
            self._is_deferred = False
            nghttp2_session_resume_data(self._account._wire, self.id)
        return 0

    cdef int _submit(self, const nghttp2_nv* first, size_t first_count, list headers, bint ends) except -1:
        """Queue a block of headers: the first ones, then these; the body follows unless it `ends` the stream."""
        cdef nghttp2_data_provider provider
        cdef size_t count = 0
        cdef nghttp2_nv* block = _block(first, first_count, headers, &count)
        provider.source.ptr = <void*>self
        provider.read_callback = _read
        nghttp2_submit_response(self._account._wire, self.id, block, count, NULL if ends else &provider)
        PyMem_Free(block)
        return 0


cdef nghttp2_nv* _block(const nghttp2_nv* first, size_t first_count, list headers, size_t* count) except NULL:
    """Names and values for the library, which copies them; they are borrowed from the list until then."""
    cdef size_t more = 0 if headers is None else len(headers)
    cdef nghttp2_nv* block = <nghttp2_nv*>PyMem_Malloc((first_count + more + 1) * sizeof(nghttp2_nv))
    cdef size_t i
    if block == NULL:
        raise MemoryError
    try:
        for i in range(first_count):
            block[i] = first[i]
        for i in range(more):
            name, value = headers[i]
            _set(&block[first_count + i], name, value)
    except BaseException:
        PyMem_Free(block)
        raise
    count[0] = first_count + more
    return block


cdef int _set(nghttp2_nv* to, bytes name, bytes value) except -1:
    """TypeError unless both are bytes."""
    to.name = <uint8_t*>PyBytes_AS_STRING(name)
    to.namelen = PyBytes_GET_SIZE(name)
    to.value = <uint8_t*>PyBytes_AS_STRING(value)
    to.valuelen = PyBytes_GET_SIZE(value)
    to.flags = NGHTTP2_NV_FLAG_NONE
    return 0


cdef ssize_t _read(
    nghttp2_session* wire, int32_t stream_id, uint8_t* to, size_t length, uint32_t* flags, nghttp2_data_source* source,
    void* session,
) noexcept:
    """How much of the stream's next bytes may go now; they are copied when their frame is written."""
    cdef Stream stream = <Stream>source.ptr
    try:
        return stream._due(length, flags)
    except BaseException:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE


cdef void _say(nghttp2_nv* to, const char* name, size_t name_length, const char* value, size_t value_length) noexcept:
    to.name = <uint8_t*>name
    to.namelen = name_length
    to.value = <uint8_t*>value
    to.valuelen = value_length
    to.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE


_say(&_head[0], b":status", 7, b"200", 3)
_say(&_head[1], b"content-type", 12, b"application/grpc", 16)
_say(&_head[2], b"grpc-accept-encoding", 20, b"identity,deflate,gzip", 21)
