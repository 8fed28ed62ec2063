"""HTTP/2 for a gRPC server, without I/O: bytes in, streams that changed and bytes out. Frames, header compression and
flow control are libnghttp2's; here are gRPC's messages, and the limits that keep one peer from hurting others.

Sources: RFC 9113 (HTTP/2), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, and for pings
https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md (server enforcement).
"""

import cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from trunkline.core.callheaders cimport (
    HEADER_ACCEPT_ENCODING, HEADER_CONTENT_TYPE, HEADER_ENCODING, HEADER_METHOD, HEADER_OTHER, HEADER_PATH, HEADER_TE,
    HEADER_TIMEOUT, is_grpc_type, is_text, kind_of, strip_blanks, timeout_ns,
)
from trunkline.core.framing cimport Inbox, Outbox
from trunkline.core.guards cimport spend
from trunkline.core.http2_stream cimport Account, Budget, Stream
from trunkline.core.http2_wire cimport Wire, stream_of
from trunkline.core.nghttp2 cimport *

cdef enum:
    _PING_STRIKES_MAX = 2
    _HEADER_OVERHEAD_BYTES = 32  # RFC 9113, 6.5.2
    _HEADERS_HARD_FACTOR = 4
    _CONTINUATIONS_MAX = 8
    _UNSENT_FRAMES_MIN = 10_000
    _UNSENT_FRAMES_PER_STREAM = 4
    _BURST_S = 2  # a limit of so many a second lets twice as many come at once

NO_ERROR = NGHTTP2_NO_ERROR
CANCEL = NGHTTP2_CANCEL
ENHANCE_YOUR_CALM = NGHTTP2_ENHANCE_YOUR_CALM
BAD_PREFACE = NGHTTP2_ERR_BAD_CLIENT_MAGIC
LIBRARY = (<bytes>nghttp2_version(0).version_str).decode()

# Streams take turns: by default the library would send each to its end before the next (RFC 9218, 4.2).
cdef nghttp2_extpri _in_turn = nghttp2_extpri(urgency=3, inc=1)


@cython.final
cdef class Limits:
    """Bounds of sessions, made once for all of them. Meanings and defaults: the transport's configuration."""

    def __cinit__(
        self, *, uint32_t streams_max, uint32_t header_bytes_max, uint32_t message_bytes_max,
        int32_t stream_window_bytes, int32_t connection_window_bytes, Py_ssize_t unread_bytes_max,
        double resets_per_s_max, double settings_per_s_max, double empty_frames_per_s_max,
        int64_t ping_interval_ns_min,
    ):
        self.streams_max = streams_max
        self.header_bytes_max = header_bytes_max
        self.message_bytes_max = message_bytes_max
        self.stream_window_bytes = stream_window_bytes
        self.connection_window_bytes = connection_window_bytes
        self.unread_bytes_max = unread_bytes_max
        self.resets_per_s_max = resets_per_s_max
        self.settings_per_s_max = settings_per_s_max
        self.empty_frames_per_s_max = empty_frames_per_s_max
        self.ping_interval_ns_min = ping_interval_ns_min
        if nghttp2_option_new(&self._option):
            raise MemoryError
        nghttp2_option_set_no_auto_window_update(self._option, 1)
        nghttp2_option_set_no_closed_streams(self._option, 1)
        # The library's own guard is the second line: ours counts with the time that it is given, and says why it cut.
        nghttp2_option_set_stream_reset_rate_limit(
            self._option, <unsigned long long>(4 * resets_per_s_max), <unsigned long long>(2 * resets_per_s_max)
        )
        # gRPC lets values begin and end with blanks, which servers may take away (PROTOCOL-HTTP2, Custom-Metadata).
        nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(self._option, 1)
        nghttp2_option_set_max_continuations(self._option, _CONTINUATIONS_MAX + 1)
        for kind in range(NGHTTP2_CONTINUATION + 1, 256):  # else we would not hear of them, nor could count them
            nghttp2_option_set_user_recv_extension_type(self._option, kind)

    def __dealloc__(self):
        nghttp2_option_del(self._option)


@cython.final
cdef class Session(Wire):
    """A server's end of one connection.

    `receive` and `send` are to be called in turn by its owner; the methods of its streams only queue what `send` gives.
    `cut_by` names the limit that the peer went over: send what is left, then close the connection.
    """

    def __init__(self, Limits limits not None, Budget budget not None):
        cdef nghttp2_settings_entry[4] settings
        if self._session != NULL:
            raise TypeError("a session begins once")
        self.limits = limits
        self.streams = {}
        self.cut_by = ""
        self._account = Account.__new__(Account)
        self._account._budget = budget
        self._account._unread_bytes_max = limits.unread_bytes_max
        self._changed = []
        self._relieved = []
        self._last_path = b""
        self._open(limits._option)
        self._account._wire, self._account._session = self._session, self
        settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        settings[0].value = limits.streams_max
        settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        settings[1].value = limits.stream_window_bytes
        settings[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        settings[2].value = limits.header_bytes_max
        settings[3].settings_id = NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
        settings[3].value = 1
        nghttp2_submit_settings(self._session, 0, settings, 4)
        nghttp2_session_set_local_window_size(self._session, 0, 0, limits.connection_window_bytes)

    @property
    def is_over(self):
        """Whether nothing more will come or go: close the connection."""
        return self._session == NULL or self.error != 0 or (
            not nghttp2_session_want_read(self._session) and not nghttp2_session_want_write(self._session)
        )

    @property
    def is_quiet(self):
        """Whether there is nothing to see to behind a `send`: nobody has room again, nothing waits, nothing ends."""
        return (
            self._session != NULL and self.error == 0 and not self.cut_by and not self.is_leaving and not self._relieved
            and nghttp2_session_want_write(self._session) == 0 and nghttp2_session_want_read(self._session) != 0
        )

    def receive(self, bytes data not None, int64_t now_ns):
        """Take in what the peer sent; the streams on which something happened, each once, in order.

        A fault of the peer is answered as RFC 9113 says, in what `send` gives next; after one that cannot be answered
        `error` is not 0 (BAD_PREFACE: it does not speak HTTP/2).
        """
        cdef ssize_t taken
        cdef size_t unsent_max = _UNSENT_FRAMES_MIN + _UNSENT_FRAMES_PER_STREAM * <size_t>self.limits.streams_max
        cdef list changed
        cdef Stream stream
        self._now_ns = now_ns
        if self._session != NULL and self.error == 0 and not self.cut_by and PyBytes_GET_SIZE(data):
            taken = self._receive(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            if taken < 0:
                self.error = <int>taken
            # Answers to frames that cost the peer nothing: one that takes none of them must not make ever more.
            if nghttp2_session_get_outbound_queue_size(self._session) > unsent_max:
                self._cut("unsent_frames_max", NGHTTP2_ENHANCE_YOUR_CALM)
        changed = self._changed
        self._changed = []
        for stream in changed:
            stream._is_changed = False
        return changed

    def send(self, size_t limit):
        """What is to be written next, about `limit` bytes at most; empty when there is nothing more, or not yet."""
        cdef ssize_t error = 0
        cdef bytes data = b""
        if self._session != NULL and self.error != NGHTTP2_ERR_NOMEM:
            data = self._send(limit, &error)
            self.error = <int>error or self.error
        return data

    def relieved(self):
        """The streams that wanted room and have it now, each once."""
        cdef list relieved = self._relieved
        if relieved:
            self._relieved = []
        return relieved

    def ping(self, bytes payload not None):
        """Ask whether the peer is there; `pings_answered` counts its answers. ValueError unless it is 8 bytes."""
        if PyBytes_GET_SIZE(payload) != 8:
            raise ValueError("a ping has 8 bytes")
        if self._session != NULL:
            nghttp2_submit_ping(self._session, 0, <const uint8_t*>PyBytes_AS_STRING(payload))

    def give_notice(self):
        """Ask the peer to make no more calls here; those that are on their way are still taken (RFC 9113, 6.8)."""
        if self._session != NULL:
            nghttp2_submit_shutdown_notice(self._session)

    def leave(self, uint32_t code=NGHTTP2_NO_ERROR, bytes text=b""):
        """GOAWAY: calls that have begun go on, further ones are not taken."""
        if self._session != NULL and not self.is_leaving:
            self.is_leaving = True
            nghttp2_submit_goaway(
                self._session, 0, nghttp2_session_get_last_proc_stream_id(self._session), code,
                <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text),
            )

    def cut(self, str limit not None, uint32_t code=NGHTTP2_ENHANCE_YOUR_CALM):
        """Tell the peer which limit it went over, and take nothing more of it."""
        self._cut(limit, code)

    def close(self):
        """The connection is gone: the streams that were open, all of them closed now."""
        cdef Stream stream
        cdef list left = list(self.streams.values())
        for stream in left:
            self._closed(stream, NGHTTP2_CANCEL)
        self._changed = []
        self._relieved = []
        nghttp2_session_del(self._session)
        self._session, self._account._wire, self._account._session = NULL, NULL, None
        return left

    cdef int _cut(self, str limit, uint32_t code) except -1:
        cdef bytes text = limit.encode()
        if not self.cut_by and self._session != NULL:
            self.cut_by = limit
            nghttp2_submit_goaway(
                self._session, 0, nghttp2_session_get_last_proc_stream_id(self._session), code,
                <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text),
            )
        return 0

    cdef int _change(self, Stream stream) except -1:
        if not stream._is_changed:
            stream._is_changed = True
            self._changed.append(stream)
        return 0

    cdef int _begin(self, int32_t stream_id) except -1:
        if self.cut_by:
            return 0
        cdef Stream stream = Stream.__new__(Stream)
        self._await_headers(stream_id)
        stream.id = stream_id
        stream.inbox = Inbox.__new__(Inbox, self.limits.message_bytes_max)
        stream._outbox = Outbox.__new__(Outbox)
        stream._account = self._account
        self.streams[stream_id] = stream
        nghttp2_session_set_stream_user_data(self._session, stream_id, <void*>stream)
        return 0

    cdef int _header(
        self, Stream stream, const uint8_t* name, size_t name_length, const uint8_t* value, size_t value_length
    ) except -1:
        cdef int kind
        stream._header_bytes += <uint32_t>(name_length + value_length + _HEADER_OVERHEAD_BYTES)
        if stream._header_bytes > self.limits.header_bytes_max:
            stream.headers_too_large = True
            if stream._header_bytes > _HEADERS_HARD_FACTOR * self.limits.header_bytes_max:
                stream.reset(NGHTTP2_ENHANCE_YOUR_CALM)
                self._cut("header_bytes_max", NGHTTP2_ENHANCE_YOUR_CALM)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE  # the library need not look at the rest
            return 0
        if stream.is_requested:
            return 0  # trailers of a request: gRPC has none
        strip_blanks(&value, &value_length)
        kind = kind_of(name, name_length)
        if kind == HEADER_OTHER:
            stream.headers.append((
                PyBytes_FromStringAndSize(<char*>name, name_length),
                PyBytes_FromStringAndSize(<char*>value, value_length),
            ))
        elif kind == HEADER_PATH:
            stream.path = self._path_of(value, value_length)
        elif kind == HEADER_METHOD:
            if not is_text(value, value_length, b"POST", 4):
                stream.method = PyBytes_FromStringAndSize(<char*>value, value_length)
        elif kind == HEADER_CONTENT_TYPE:
            stream.is_grpc = is_grpc_type(value, value_length)
        elif kind == HEADER_TE:
            stream.has_te = is_text(value, value_length, b"trailers", 8)
        elif kind == HEADER_TIMEOUT:
            stream.timeout_ns = timeout_ns(value, value_length)
        elif kind == HEADER_ENCODING:
            stream.encoding = PyBytes_FromStringAndSize(<char*>value, value_length)
        elif kind == HEADER_ACCEPT_ENCODING:
            stream.accept_encoding = PyBytes_FromStringAndSize(<char*>value, value_length)
        return 0

    cdef bytes _path_of(self, const uint8_t* value, size_t length):
        """The path; the same object when it is the last one's, as it mostly is."""
        if not is_text(value, length, PyBytes_AS_STRING(self._last_path), PyBytes_GET_SIZE(self._last_path)):
            self._last_path = PyBytes_FromStringAndSize(<char*>value, length)
        return self._last_path

    cdef int _frame_begins(self, const nghttp2_frame_hd* head) except -1:
        if head.type == NGHTTP2_HEADERS:
            self._continuations = 0
            if stream_of(self._session, head.stream_id) is not None:
                self._await_headers(head.stream_id)
        elif head.type == NGHTTP2_CONTINUATION:
            self._continuations += 1
            if self._continuations > _CONTINUATIONS_MAX:
                self._cut("continuations_max", NGHTTP2_ENHANCE_YOUR_CALM)
        elif head.type == NGHTTP2_PRIORITY or head.type > NGHTTP2_CONTINUATION:  # of which no more is heard
            if head.type == NGHTTP2_PRIORITY and head.stream_id == 0:  # RFC 9113, 6.3
                nghttp2_session_terminate_session(self._session, NGHTTP2_PROTOCOL_ERROR)
            self._spend(&self._empty_frames, "empty_frames_per_s_max", self.limits.empty_frames_per_s_max)
        return 0

    cdef int _await_headers(self, int32_t stream_id) except -1:
        """A block of headers that concerns somebody begins: not one that the library will pass over."""
        self.headers_since_ns = self._now_ns
        self._headers_of = stream_id
        return 0

    cdef int _invalid_frame(self, const nghttp2_frame* frame) except -1:
        """A frame that makes us reset a stream costs what a reset costs."""
        stream = stream_of(self._session, frame.hd.stream_id)
        if stream is not None:
            (<Stream>stream)._is_reset = True
        self.headers_since_ns = 0
        return self._spend(&self._resets, "resets_per_s_max", self.limits.resets_per_s_max)

    cdef int _data(self, Stream stream, const uint8_t* data, size_t length) except -1:
        return self._change(stream) if stream._took(data, length) else 0

    cdef int _pulled(self, Stream stream) except -1:
        if stream._outbox.framed_bytes + stream._outbox.piece_bytes <= stream._room_at:
            stream._room_at = -1
            self._relieved.append(stream)
        return 0

    cdef int _frame(self, const nghttp2_frame* frame) except -1:
        cdef Stream stream
        cdef uint8_t kind = frame.hd.type
        cdef bint ends = frame.hd.flags & NGHTTP2_FLAG_END_STREAM
        if kind == NGHTTP2_HEADERS or kind == NGHTTP2_DATA:
            self.headers_since_ns = 0
            if kind == NGHTTP2_DATA and frame.hd.length == frame.data.padlen and not ends:
                self._spend(&self._empty_frames, "empty_frames_per_s_max", self.limits.empty_frames_per_s_max)
            stream = <Stream>stream_of(self._session, frame.hd.stream_id)
            if stream is None or self.cut_by:
                return 0
            if not stream.is_requested:
                stream.is_requested = True
                self.requests += 1
                nghttp2_session_change_extpri_stream_priority(self._session, stream.id, &_in_turn, 1)
                self._change(stream)
            if ends:
                stream.is_ended = True
                self._change(stream)
        elif kind == NGHTTP2_PING:
            if frame.hd.flags & NGHTTP2_FLAG_ACK:
                self.pings_answered += 1
            else:
                self._ping_came()
        elif kind == NGHTTP2_SETTINGS:
            self.is_greeted = True
            self._spend(&self._settings, "settings_per_s_max", self.limits.settings_per_s_max)
        elif kind == NGHTTP2_RST_STREAM:
            self._spend(&self._resets, "resets_per_s_max", self.limits.resets_per_s_max)
        elif kind != NGHTTP2_WINDOW_UPDATE:
            self._spend(&self._empty_frames, "empty_frames_per_s_max", self.limits.empty_frames_per_s_max)
        return 0

    cdef int _spend(self, Bucket* bucket, str limit, double per_s) except -1:
        if not spend(bucket, per_s, _BURST_S * per_s, self._now_ns):
            self._cut(limit, NGHTTP2_ENHANCE_YOUR_CALM)
        return 0

    cdef int _ping_came(self) except -1:
        """Pings are for connections on which nothing goes: too many since we last sent something, and it is cut."""
        if self._last_ping_ns and self._now_ns - self._last_ping_ns < self.limits.ping_interval_ns_min:
            self._ping_strikes += 1
            if self._ping_strikes > _PING_STRIKES_MAX:
                self._cut("too_many_pings", NGHTTP2_ENHANCE_YOUR_CALM)  # the text that gRPC clients look for
        self._last_ping_ns = self._now_ns
        return 0

    cdef int _sent(self, const nghttp2_frame* frame) except -1:
        """A frame is on its way."""
        cdef Stream stream
        if frame.hd.type == NGHTTP2_RST_STREAM and frame.rst_stream.error_code != NGHTTP2_NO_ERROR:
            stream = <Stream>stream_of(self._session, frame.hd.stream_id)
            if stream is not None and not stream._is_reset:  # by the library: a body is not as long as was said
                self._spend(&self._resets, "resets_per_s_max", self.limits.resets_per_s_max)
        if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
            return 0
        self._ping_strikes = 0
        self._last_ping_ns = 0
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            stream = <Stream>stream_of(self._session, frame.hd.stream_id)
            if stream is not None and not stream.is_ended:  # it need not send the rest (RFC 9113, 8.1)
                nghttp2_submit_rst_stream(self._session, 0, stream.id, NGHTTP2_NO_ERROR)
        return 0

    cdef int _not_sent(self, const nghttp2_frame* frame) except -1:
        """Headers that are too long for a block: the peer must not wait for them."""
        if frame.hd.type == NGHTTP2_HEADERS:
            nghttp2_submit_rst_stream(self._session, 0, frame.hd.stream_id, NGHTTP2_INTERNAL_ERROR)
        return 0

    cdef int _closed(self, Stream stream, uint32_t code) except -1:
        stream.is_closed = True
        stream.reset_code = code
        if stream.id == self._headers_of:
            self.headers_since_ns = 0
        self.streams.pop(stream.id, None)
        stream._tell_account()
        stream._outbox._clear()
        stream._promised_bytes = 0
        self._account._give_back()
        if stream.is_requested and (code or not stream._is_finishing):
            self._change(stream)
        else:
            stream.call = None
        return 0
