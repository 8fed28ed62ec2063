"""Events, ids and keys of a serialized publish request, found without building messages.

What an event must be is said in `cloudevent`; the request is held to the same: protobuf and the contract's rules
accept it, and no field but `events` stands twice.
"""

import cython
from cpython cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from trunkline.core.cloudevent cimport (
    REQUEST, Event, Span, check_topic, read_event, read_string, refuse, refuse_malformed, refuse_twice, shown,
)
from trunkline.core.collector cimport unseen
from trunkline.core.hashing cimport xxh64_raw
from trunkline.core.protowire cimport (
    DEPTH_MAX, put_varint, read_size, read_tag, read_varint, skip_value, varint_size,
)

from trunkline.core.cloudevent import EventScan, event_identity, scan_event  # no-cython-lint

cdef enum:
    _REQUEST_BYTES_MAX = 0x7FFFFFFF  # protobuf's own limit; it keeps positions in 32 bits
    _EVENTS_MAX = 10_000
    _LABEL_BYTES_MAX = 63
    _STREAM_BYTES_MAX = 128
    _PRODUCER_BYTES_MAX = 128
    _SYNC_MAX = 3
    _TOPICS_AT_HAND = 32
    _COPIED_BYTES_MAX = 16 << 10  # a view takes 250 bytes, two objects that are collected, and keeps the whole request
    _EVENT_TAG = 0x7A  # field 15, bytes: the same in PublishRequest and Delivery

EVENTS_MAX = _EVENTS_MAX
STREAM_DEFAULT = "events"

cdef uint64_t _SEQUENCE_MAX = 1ULL << 62
cdef uint64_t _HIGH_SEED = 0x9E3779B97F4A7C15ULL
cdef array.array _U16 = array.array("H")
cdef array.array _U32 = array.array("I")
cdef array.array _U64 = array.array("Q")


cdef struct Request:
    Span namespace
    Span stream
    uint64_t sync
    uint64_t sequence
    uint64_t expected_offset
    Span producer
    uint64_t producer_epoch
    uint64_t first_sequence
    bint has_sync
    bint has_sequence
    bint has_expected_offset
    bint has_producer_epoch
    bint has_first_sequence
    Py_ssize_t count
    Py_ssize_t payload    # bytes of all frames, each in its shortest form
    const uint8_t* first  # the first frame
    const uint8_t* behind_last
    bint scattered        # frames do not all lie behind one another, each in its shortest form


cdef struct Topic:
    Span name
    int id


@cython.final
cdef class Scan:
    """What a publish request holds: its own fields, and its events in columns."""

    cdef readonly str namespace
    cdef readonly str stream
    cdef readonly int require_sync
    cdef readonly uint64_t sequence
    cdef readonly object expected_offset
    cdef readonly str producer
    cdef readonly uint64_t producer_epoch
    cdef readonly uint64_t first_sequence
    cdef readonly Py_ssize_t count
    cdef readonly object payload
    cdef readonly array.array ends
    cdef readonly array.array topic_ids
    cdef readonly list topics
    cdef readonly array.array key_hashes
    cdef readonly array.array id_hashes


def scan_publish(bytes data not None, *, bint stream_request):
    """Scan a serialized PublishRequest, or a PublishStreamRequest with `stream_request`.

    Raises InvalidArgument, naming field ("events[3].id"), rule and value of the first fault found.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    cdef Request request
    cdef Scan scan
    memset(&request, 0, sizeof(Request))
    if end - at > _REQUEST_BYTES_MAX:
        refuse(REQUEST, "request", f"at most {_REQUEST_BYTES_MAX} bytes", f"{end - at} bytes")
    _read_request(at, end, &request, stream_request)
    _check_request(&request)
    scan = _new_scan(&request)
    _fill_columns(at, end, scan)
    if request.scattered:
        scan.payload = _gathered(at, end, request.payload)
    elif request.behind_last - request.first <= _COPIED_BYTES_MAX:
        scan.payload = data[request.first - at:request.behind_last - at]
    else:
        scan.payload = memoryview(data)[request.first - at:request.behind_last - at]
    return scan


cdef int _read_request(const uint8_t* at, const uint8_t* end, Request* request, bint stream_request) except -1:
    cdef uint32_t tag
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return refuse_malformed(REQUEST)
        if tag == _EVENT_TAG:
            _read_frame(&at, end, request)
        elif tag == 0x0A:
            read_string(&at, end, &request.namespace, REQUEST, "namespace")
        elif tag == 0x12:
            read_string(&at, end, &request.stream, REQUEST, "stream")
        elif tag == 0x18:
            _read_number(&at, end, &request.sync, &request.has_sync, "require_sync")
        elif tag == 0x20 and stream_request:
            _read_number(&at, end, &request.sequence, &request.has_sequence, "sequence")
        elif tag == 0x28:
            _read_number(&at, end, &request.expected_offset, &request.has_expected_offset, "expected_offset")
        elif tag == 0x32:
            read_string(&at, end, &request.producer, REQUEST, "producer")
        elif tag == 0x38:
            _read_number(&at, end, &request.producer_epoch, &request.has_producer_epoch, "producer_epoch")
        elif tag == 0x40:
            _read_number(&at, end, &request.first_sequence, &request.has_first_sequence, "first_sequence")
        elif skip_value(&at, end, tag, DEPTH_MAX) < 0:
            return refuse_malformed(REQUEST)
    return 0


cdef int _read_number(const uint8_t** at, const uint8_t* end, uint64_t* into, bint* seen, str field) except -1:
    if seen[0]:
        return refuse_twice(REQUEST, field)
    seen[0] = True
    if read_varint(at, end, into) < 0:
        return refuse_malformed(REQUEST)
    return 0


cdef int _read_frame(const uint8_t** at, const uint8_t* end, Request* request) except -1:
    """Note an event; `at` is behind its tag."""
    cdef const uint8_t* start = at[0] - 1
    cdef Py_ssize_t size
    cdef Py_ssize_t frame
    if request.count == _EVENTS_MAX:
        return refuse(REQUEST, "events", f"at most {_EVENTS_MAX}", "more")
    if read_size(at, end, &size) < 0:
        return refuse_malformed(REQUEST)
    at[0] += size
    frame = 1 + varint_size(size) + size
    if request.count == 0:
        request.first = start
    elif start != request.behind_last:
        request.scattered = True
    if start[0] != _EVENT_TAG or at[0] - start != frame:
        request.scattered = True
    request.behind_last = at[0]
    request.count += 1
    request.payload += frame
    return 0


cdef int _check_request(Request* request) except -1:
    cdef int32_t sync = <int32_t><uint32_t>request.sync  # as protobuf takes it: an enum has 32 bits
    if request.namespace.size == 0:
        return refuse(REQUEST, "namespace", "required", "nothing")
    if not _are_labels(request.namespace, _LABEL_BYTES_MAX, False):
        return refuse(REQUEST, "namespace", "a DNS label", shown(request.namespace))
    if request.stream.size and not _are_labels(request.stream, _STREAM_BYTES_MAX, True):
        return refuse(REQUEST, "stream", "DNS labels separated by dots", shown(request.stream))
    if not 0 <= sync <= _SYNC_MAX:
        return refuse(REQUEST, "require_sync", "a known value", f"{sync}")
    _check_numbers(request)
    if request.count == 0:
        return refuse(REQUEST, "events", "required", "none")
    return 0


cdef int _check_numbers(Request* request) except -1:
    """Hold what is said of a producer to the rules; nothing may be said without one."""
    if request.producer.size == 0:
        if request.producer_epoch:
            return refuse(REQUEST, "producer_epoch", "only with a producer", f"{request.producer_epoch}")
        if request.first_sequence:
            return refuse(REQUEST, "first_sequence", "only with a producer", f"{request.first_sequence}")
        return 0
    if not _is_id(request.producer):
        return refuse(
            REQUEST, "producer", f"letters, digits and ._:@/-, at most {_PRODUCER_BYTES_MAX} characters",
            shown(request.producer),
        )
    if not 1 <= request.first_sequence <= _SEQUENCE_MAX:
        return refuse(
            REQUEST, "first_sequence", f"between 1 and {_SEQUENCE_MAX} with a producer", f"{request.first_sequence}"
        )
    return 0


cdef bint _is_id(Span text) noexcept:
    """Whether the text has the contract's FORMAT_ID."""
    cdef Py_ssize_t i
    cdef uint8_t c
    if text.size > _PRODUCER_BYTES_MAX:
        return False
    for i in range(text.size):
        c = text.at[i]
        if not (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'-' <= c <= c':' or c == c'@' or c == c'_'):
            return False  # from '-' to ':' are '-', '.', '/', the digits and ':'
    return True


cdef bint _are_labels(Span text, Py_ssize_t bytes_max, bint dots) noexcept:
    """Whether the text is one RFC 1123 label in lower case or, with `dots`, some of them separated by dots."""
    cdef Py_ssize_t i
    cdef Py_ssize_t start = 0
    cdef uint8_t c
    if text.size > bytes_max:
        return False
    for i in range(text.size + 1):
        c = text.at[i] if i < text.size else c'.'
        if c == c'.' and (dots or i == text.size):
            if i == start or i - start > _LABEL_BYTES_MAX or text.at[start] == c'-' or text.at[i - 1] == c'-':
                return False
            start = i + 1
        elif not (c'a' <= c <= c'z' or c'0' <= c <= c'9' or c == c'-'):
            return False
    return True


cdef Scan _new_scan(Request* request):
    cdef Scan scan = Scan.__new__(Scan)
    cdef Span stream = request.stream
    scan.namespace = shown(request.namespace)
    scan.stream = stream.at[:stream.size].decode("ascii") if stream.size else STREAM_DEFAULT
    scan.require_sync = <int>request.sync
    scan.sequence = request.sequence
    scan.expected_offset = request.expected_offset if request.has_expected_offset else None
    scan.producer = request.producer.at[:request.producer.size].decode("ascii") if request.producer.size else ""
    scan.producer_epoch = request.producer_epoch
    scan.first_sequence = request.first_sequence
    scan.count = request.count
    scan.ends = unseen(array.clone(_U32, request.count, False))
    scan.topic_ids = unseen(array.clone(_U16, request.count, False))
    scan.topics = []
    scan.key_hashes = unseen(array.clone(_U64, request.count, False))
    scan.id_hashes = unseen(array.clone(_U64, 2 * request.count, False))
    return scan


cdef int _next_frame(const uint8_t** at, const uint8_t* end, Py_ssize_t* size) except -1:
    """Move `at` to the next event's bytes, in a request that was read before."""
    cdef uint32_t tag
    while True:
        if read_tag(at, end, &tag) < 0:
            return refuse_malformed(REQUEST)
        if tag == _EVENT_TAG:
            return read_size(at, end, size)
        skip_value(at, end, tag, DEPTH_MAX)


cdef int _fill_columns(const uint8_t* at, const uint8_t* end, Scan scan) except -1:
    cdef Event event
    cdef Topic[_TOPICS_AT_HAND] at_hand  # by hash, before asking the dictionary
    cdef Topic* topic
    cdef dict ids = {}
    cdef uint32_t filled = 0
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    memset(at_hand, 0, sizeof(at_hand))
    for i in range(scan.count):
        _next_frame(&at, end, &size)
        read_event(at, at + size, &event, i)
        at += size
        filled += <uint32_t>(1 + varint_size(size) + size)
        scan.ends.data.as_uints[i] = filled
        topic = &at_hand[xxh64_raw(event.topic.at, event.topic.size, 0) % _TOPICS_AT_HAND]
        if topic.name.at == NULL or not _are_equal(event.topic, topic.name):
            topic.id = _topic_id(&event, i, ids, scan.topics)
            topic.name = event.topic
        scan.topic_ids.data.as_ushorts[i] = <uint16_t>topic.id
        scan.key_hashes.data.as_ulonglongs[i] = xxh64_raw(event.key.at, event.key.size, 0) if event.key.size else 0
        scan.id_hashes.data.as_ulonglongs[2 * i] = _id_hash(&event, 0)
        scan.id_hashes.data.as_ulonglongs[2 * i + 1] = _id_hash(&event, _HIGH_SEED)
    return 0


cdef inline bint _are_equal(Span one, Span other) noexcept nogil:
    return one.size == other.size and memcmp(one.at, other.at, one.size) == 0


cdef inline uint64_t _id_hash(Event* event, uint64_t seed) noexcept nogil:
    """The hash of the source seeds the hash of the id, so that ("ab", "c") and ("a", "bc") differ."""
    return xxh64_raw(event.id.at, event.id.size, xxh64_raw(event.source.at, event.source.size, seed))


cdef int _topic_id(Event* event, Py_ssize_t index, dict ids, list topics) except -1:
    cdef bytes name = PyBytes_FromStringAndSize(<const char*>event.topic.at, event.topic.size)
    found = ids.get(name)
    if found is None:
        check_topic(event, index)
        found = ids[name] = len(topics)
        topics.append(name.decode("utf-8"))
    return found


cdef bytes _gathered(const uint8_t* at, const uint8_t* end, Py_ssize_t payload):
    """All frames, each in its shortest form, one behind the other."""
    cdef bytes frames = PyBytes_FromStringAndSize(NULL, payload)
    cdef uint8_t* into = <uint8_t*>PyBytes_AS_STRING(frames)
    cdef const uint8_t* full = into + payload
    cdef Py_ssize_t size = 0
    while into < full:
        _next_frame(&at, end, &size)
        into[0] = _EVENT_TAG
        into = put_varint(into + 1, size)
        memcpy(into, at, size)
        into += size
        at += size
    return frames
