"""libnghttp2's callbacks as methods, and its output in one piece. What is done with either is http2.pyx's affair."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Realloc
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from trunkline.core cimport nghttp2_memory
from trunkline.core.framing cimport Outbox
from trunkline.core.http2_stream cimport Stream
from trunkline.core.nghttp2 cimport *

cdef enum:
    _FRAME_HEAD_BYTES = 9
    _OUT_BYTES_FIRST = 320 * 1024

# What a turn has produced lies here until it is given away: one buffer for all sessions, none of which sends meanwhile.
cdef uint8_t* _out = NULL
cdef size_t _out_room = 0
cdef size_t _out_size = 0
cdef size_t _out_limit = 0
cdef nghttp2_session_callbacks* _callbacks = NULL


cdef class Wire:
    """One libnghttp2 session. A subclass says what its callbacks do; `_receive` and `_send` raise what those raised."""

    cdef int _open(self, const nghttp2_option* option) except -1:
        if nghttp2_session_server_new3(&self._session, _callbacks, <void*>self, option, &nghttp2_memory.counted):
            raise MemoryError
        return 0

    def __dealloc__(self):
        nghttp2_session_del(self._session)

    @property
    def wants_write(self):
        """Whether `send` has something to give."""
        return self._session != NULL and nghttp2_session_want_write(self._session) != 0

    cdef ssize_t _receive(self, const uint8_t* data, size_t length) except? -1:
        """Feed bytes; the library's error, or how many it took."""
        cdef ssize_t taken = nghttp2_session_mem_recv(self._session, data, length)
        self._raise()
        return taken

    cdef bytes _send(self, size_t limit, ssize_t* error):
        """What is to be written, about `limit` bytes at most."""
        global _out_size, _out_limit
        cdef const uint8_t* data = NULL
        cdef ssize_t size = 1
        _out_size = 0
        _out_limit = limit
        while size > 0 and _out_size < limit:
            size = nghttp2_session_mem_send(self._session, &data)
            if size > 0:
                _put(data, size)
        self._raise()
        error[0] = min(size, 0)
        return PyBytes_FromStringAndSize(<char*>_out, _out_size)

    cdef int _raise(self) except -1:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return 0

    cdef int _begin(self, int32_t stream_id) except -1:
        """A request's headers begin."""
        return 0

    cdef int _header(
        self, Stream stream, const uint8_t* name, size_t name_length, const uint8_t* value, size_t value_length
    ) except -1:
        """A header of a request or of its trailers."""
        return 0

    cdef int _frame_begins(self, const nghttp2_frame_hd* head) except -1:
        """A frame's head has come."""
        return 0

    cdef int _frame(self, const nghttp2_frame* frame) except -1:
        """A whole frame has come."""
        return 0

    cdef int _invalid_frame(self, const nghttp2_frame* frame) except -1:
        """A frame has come for which the library will reset its stream or end the connection."""
        return 0

    cdef int _data(self, Stream stream, const uint8_t* data, size_t length) except -1:
        """Some of a stream's data has come."""
        return 0

    cdef int _sent(self, const nghttp2_frame* frame) except -1:
        """A frame is on its way."""
        return 0

    cdef int _not_sent(self, const nghttp2_frame* frame) except -1:
        """A frame could not be sent: the library refused it."""
        return 0

    cdef int _pulled(self, Stream stream) except -1:
        """Some of what waited on a stream is on its way."""
        return 0

    cdef int _closed(self, Stream stream, uint32_t code) except -1:
        """A stream is over."""
        return 0


cdef int _make_room(size_t more) except -1:
    """Room for so many bytes behind what goes out."""
    global _out, _out_room
    cdef size_t room = max(<size_t>_OUT_BYTES_FIRST, 2 * (_out_size + more))
    cdef uint8_t* larger
    if _out_size + more > _out_room:
        larger = <uint8_t*>PyMem_Realloc(_out, room)
        if larger == NULL:
            raise MemoryError
        _out = larger
        _out_room = room
    return 0


cdef int _put(const uint8_t* data, size_t size) except -1:
    """Put bytes at the end of what goes out."""
    global _out_size
    _make_room(size)
    memcpy(_out + _out_size, data, size)
    _out_size += size
    return 0


cdef int _failed(void* session, BaseException error) noexcept:
    """What a callback raised is raised again when the library returns."""
    (<Wire>session)._failure = error
    return NGHTTP2_ERR_CALLBACK_FAILURE


cdef int _on_begin_headers(nghttp2_session* wire, const nghttp2_frame* frame, void* session) noexcept:
    try:
        return (<Wire>session)._begin(frame.hd.stream_id) if frame.headers.cat == NGHTTP2_HCAT_REQUEST else 0
    except BaseException as error:
        return _failed(session, error)


cdef int _on_begin_frame(nghttp2_session* wire, const nghttp2_frame_hd* head, void* session) noexcept:
    try:
        return (<Wire>session)._frame_begins(head)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_header(
    nghttp2_session* wire, const nghttp2_frame* frame, const uint8_t* name, size_t name_length, const uint8_t* value,
    size_t value_length, uint8_t flags, void* session,
) noexcept:
    try:
        stream = stream_of(wire, frame.hd.stream_id)
        if stream is not None:
            return (<Wire>session)._header(<Stream>stream, name, name_length, value, value_length)
        return 0
    except BaseException as error:
        return _failed(session, error)


cdef int _on_frame(nghttp2_session* wire, const nghttp2_frame* frame, void* session) noexcept:
    try:
        return (<Wire>session)._frame(frame)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_invalid_frame(nghttp2_session* wire, const nghttp2_frame* frame, int code, void* session) noexcept:
    try:
        return (<Wire>session)._invalid_frame(frame)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_unknown_frame(nghttp2_session* wire, void** payload, const nghttp2_frame_hd* head, void* session) noexcept:
    """It was counted when it began: there is nothing in it for us."""
    return NGHTTP2_ERR_CANCEL


cdef int _on_data(
    nghttp2_session* wire, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t length, void* session
) noexcept:
    try:
        stream = stream_of(wire, stream_id)
        if stream is None:
            nghttp2_session_consume_connection(wire, length)
            return 0
        return (<Wire>session)._data(<Stream>stream, data, length)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_stream_close(nghttp2_session* wire, int32_t stream_id, uint32_t code, void* session) noexcept:
    try:
        stream = stream_of(wire, stream_id)
        return 0 if stream is None else (<Wire>session)._closed(<Stream>stream, code)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_sent(nghttp2_session* wire, const nghttp2_frame* frame, void* session) noexcept:
    try:
        return (<Wire>session)._sent(frame)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_not_sent(nghttp2_session* wire, const nghttp2_frame* frame, int code, void* session) noexcept:
    try:
        return (<Wire>session)._not_sent(frame)
    except BaseException as error:
        return _failed(session, error)


cdef int _on_send_data(
    nghttp2_session* wire, nghttp2_frame* frame, const uint8_t* head, size_t length, nghttp2_data_source* source,
    void* session,
) noexcept:
    """Write a DATA frame's head, then the stream's bytes from where they lie."""
    global _out_size
    cdef Stream stream = <Stream>source.ptr
    cdef Outbox outbox = stream._outbox
    if _out_size >= _out_limit:
        return NGHTTP2_ERR_WOULDBLOCK
    try:
        _make_room(_FRAME_HEAD_BYTES + length)
        memcpy(_out + _out_size, head, _FRAME_HEAD_BYTES)
        outbox._pull(_out + _out_size + _FRAME_HEAD_BYTES, length)
        _out_size += _FRAME_HEAD_BYTES + length
        stream.sent_bytes += length
        stream._promised_bytes = 0
        return (<Wire>session)._pulled(stream)
    except BaseException as error:
        return _failed(session, error)


if nghttp2_session_callbacks_new(&_callbacks):
    raise MemoryError
nghttp2_session_callbacks_set_on_begin_headers_callback(_callbacks, _on_begin_headers)
nghttp2_session_callbacks_set_on_begin_frame_callback(_callbacks, _on_begin_frame)
nghttp2_session_callbacks_set_on_header_callback(_callbacks, _on_header)
nghttp2_session_callbacks_set_on_frame_recv_callback(_callbacks, _on_frame)
nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(_callbacks, _on_invalid_frame)
nghttp2_session_callbacks_set_unpack_extension_callback(_callbacks, _on_unknown_frame)
nghttp2_session_callbacks_set_on_data_chunk_recv_callback(_callbacks, _on_data)
nghttp2_session_callbacks_set_on_stream_close_callback(_callbacks, _on_stream_close)
nghttp2_session_callbacks_set_on_frame_send_callback(_callbacks, _on_sent)
nghttp2_session_callbacks_set_on_frame_not_send_callback(_callbacks, _on_not_sent)
nghttp2_session_callbacks_set_send_data_callback(_callbacks, _on_send_data)
