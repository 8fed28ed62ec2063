"""Topic, key and identity of a serialized CloudEvent, found without building a message.

Accepted is what protobuf accepts (upb, with trunkline.api.v1.CloudEvent inside a publish request) and the rules of the
contract accept. Refused besides, because two readers could take it differently: a known field that stands twice, two
members of one oneof, an attribute named twice, and an attribute's map entry that holds anything but one key and one
value. This holds at every depth down to Any and Timestamp. A field is known by number and wire type; unknown ones may
stand anywhere else.
"""

from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from trunkline.core.hashing cimport xxh64_raw
from trunkline.core.protowire cimport DEPTH_MAX, read_size, read_tag, skip_value, utf8_is_valid
from trunkline.core.topics cimport words_are_valid

from trunkline.core.errors import InvalidArgument

cdef enum:
    _EVENT_BYTES_MAX = 1 << 20
    _ID_BYTES_MAX = 256
    _SOURCE_BYTES_MAX = 1024
    _TYPE_BYTES_MAX = 256
    _KEY_BYTES_MAX = 256
    _ATTRIBUTES_MAX = 64
    _ATTRIBUTE_NAME_BYTES_MAX = 20

EVENT_BYTES_MAX = _EVENT_BYTES_MAX
KEY_BYTES_MAX = _KEY_BYTES_MAX
ATTRIBUTES_MAX = _ATTRIBUTES_MAX
ATTRIBUTE_NAME_BYTES_MAX = _ATTRIBUTE_NAME_BYTES_MAX

EventScan = namedtuple("EventScan", ["topic", "key", "source", "id"])
EventScan.__doc__ = "What one event is addressed and recognised by; `key` is empty when it has none."


cdef struct Names:  # of the attributes read so far; hashes, so that comparing each with each is cheap
    uint64_t[_ATTRIBUTES_MAX] hashes
    Span[_ATTRIBUTES_MAX] names


def scan_event(const uint8_t[::1] body not None):
    """Check one event's bytes as they would be checked in a publish request.

    Gives an EventScan of strings. Raises InvalidArgument, naming field, rule and value.
    """
    cdef Event event
    cdef const uint8_t* at = _start(body)
    read_event(at, at + body.shape[0], &event, ALONE)
    check_topic(&event, ALONE)
    key = _string(event.key) if event.key.at != NULL else ""
    return EventScan(_string(event.topic), key, _string(event.source), _string(event.id))


def event_identity(const uint8_t[::1] body not None):
    """The (source, id) of an event that was checked before, each as UTF-8.

    Raises InvalidArgument for malformed bytes.
    """
    cdef const uint8_t* at = _start(body)
    cdef const uint8_t* end = at + body.shape[0]
    cdef Span id = Span(NULL, 0)
    cdef Span source = Span(NULL, 0)
    cdef uint32_t tag = 0
    while at < end and (id.at == NULL or source.at == NULL):
        if read_tag(&at, end, &tag) < 0:
            refuse_malformed(ALONE)
        if tag == 0x0A:
            _read_once(&at, end, &id, ALONE, "id")
        elif tag == 0x12:
            _read_once(&at, end, &source, ALONE, "source")
        elif skip_value(&at, end, tag, DEPTH_MAX - 1) < 0:
            refuse_malformed(ALONE)
    return (
        PyBytes_FromStringAndSize(<const char*>source.at, source.size),
        PyBytes_FromStringAndSize(<const char*>id.at, id.size),
    )


cdef const uint8_t* _start(const uint8_t[::1] body) noexcept:
    return &body[0] if body.shape[0] else NULL


cdef str _string(Span span):
    return span.at[:span.size].decode("utf-8")


cdef str shown(Span span):
    """For people: the first 100 bytes, whatever they are."""
    return span.at[:min(span.size, 100)].decode("utf-8", "replace") if span.at != NULL else ""


cdef int refuse(Py_ssize_t index, str field, str rule, object value) except -1:
    cdef str event = "event" if index == ALONE else f"events[{index}]"
    if index != REQUEST:
        field = f"{event}.{field}" if field else event
    raise InvalidArgument.of(field, rule, value)


cdef int refuse_twice(Py_ssize_t index, str field) except -1:
    return refuse(index, field, "must stand once", "it twice")


cdef int refuse_malformed(Py_ssize_t index) except -1:
    return refuse(index, "request" if index == REQUEST else "", "must be well-formed protobuf", "other bytes")


cdef int read_string(const uint8_t** at, const uint8_t* end, Span* into, Py_ssize_t index, str field) except -1:
    """Read a field that may stand once and must be UTF-8."""
    _read_once(at, end, into, index, field)
    if not utf8_is_valid(into.at, into.size):
        return refuse(index, field, "must be UTF-8", into.at[:min(into.size, 100)])
    return 0


cdef int _read_once(const uint8_t** at, const uint8_t* end, Span* into, Py_ssize_t index, str field) except -1:
    """Read bytes, or the bytes of a message, that may stand once."""
    if into.at != NULL:
        return refuse_twice(index, field)
    if read_size(at, end, &into.size) < 0:
        return refuse_malformed(index)
    into.at = at[0]
    at[0] += into.size
    return 0


cdef int read_event(const uint8_t* at, const uint8_t* end, Event* event, Py_ssize_t index) except -1:
    """Read the event at `at` and check all but its topic. `index` is for refusals: its place, or ALONE."""
    cdef Names names
    cdef uint32_t tag
    memset(event, 0, sizeof(Event))
    if end - at > _EVENT_BYTES_MAX:
        return refuse(index, "", f"at most {_EVENT_BYTES_MAX} bytes", f"{end - at} bytes")
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return refuse_malformed(index)
        if tag == 0x0A:
            read_string(&at, end, &event.id, index, "id")
        elif tag == 0x12:
            read_string(&at, end, &event.source, index, "source")
        elif tag == 0x1A:
            read_string(&at, end, &event.spec_version, index, "spec_version")
        elif tag == 0x22:
            read_string(&at, end, &event.type, index, "type")
        elif tag == 0x2A:
            _read_attribute(&at, end, event, &names, index)
        elif tag == 0x32 or tag == 0x3A or tag == 0x42:
            _read_data(&at, end, tag, event, index)
        elif skip_value(&at, end, tag, DEPTH_MAX - 1) < 0:
            return refuse_malformed(index)
    return _check_event(event, index)


cdef int _check_event(Event* event, Py_ssize_t index) except -1:
    _check_length(index, "id", event.id, _ID_BYTES_MAX)
    _check_length(index, "source", event.source, _SOURCE_BYTES_MAX)
    _check_length(index, "type", event.type, _TYPE_BYTES_MAX)
    if not _is(event.spec_version, "1.0", 3):
        return refuse(index, "spec_version", "'1.0'", shown(event.spec_version))
    if event.topic.at == NULL:
        event.topic = event.type
    return 0


cdef int check_topic(Event* event, Py_ssize_t index) except -1:
    """Apart from the other checks, because once per topic is enough for a request."""
    if words_are_valid(event.topic.at, event.topic.size, False):
        return 0
    if event.topic.at == event.type.at:
        return refuse(index, "type", "a topic, unless the attribute 'topic' is one", shown(event.topic))
    return refuse(index, "attributes[topic]", "a topic", shown(event.topic))


cdef int _check_length(Py_ssize_t index, str field, Span span, Py_ssize_t bytes_max) except -1:
    if span.size == 0:
        return refuse(index, field, "required", "nothing")
    if span.size > bytes_max:
        return refuse(index, field, f"at most {bytes_max} bytes", f"{span.size} bytes")
    return 0


cdef inline bint _is(Span text, const char* word, Py_ssize_t size) noexcept nogil:
    return text.size == size and memcmp(text.at, word, size) == 0


cdef int _read_attribute(
    const uint8_t** at, const uint8_t* end, Event* event, Names* names, Py_ssize_t index
) except -1:
    cdef Span entry = Span(NULL, 0)
    cdef Span name = Span(NULL, 0)
    cdef Span value = Span(NULL, 0)
    cdef Span string = Span(NULL, 0)
    cdef uint32_t tag
    _read_once(at, end, &entry, index, "attributes")
    end = entry.at + entry.size
    while entry.at < end:
        if read_tag(&entry.at, end, &tag) < 0:
            return refuse_malformed(index)
        if tag == 0x0A:
            read_string(&entry.at, end, &name, index, "attributes")
        elif tag == 0x12:
            _read_once(&entry.at, end, &value, index, "attributes")
        else:  # parsers disagree whether such an entry is an attribute
            return refuse(index, "attributes", "an entry has a key and a value only", f"field {tag >> 3}")
    _check_name(name, event, names, index)
    if value.at != NULL:
        _read_value(value, &string, index)
    if _is(name, "topic", 5):
        if string.at == NULL:
            return refuse(index, "attributes[topic]", "a ce_string", "another value")
        event.topic = string
    elif _is(name, "partitionkey", 12):
        if string.at == NULL:
            return refuse(index, "attributes[partitionkey]", "a ce_string", "another value")
        _check_length(index, "attributes[partitionkey]", string, _KEY_BYTES_MAX)
        event.key = string
    return 0


cdef int _check_name(Span name, Event* event, Names* names, Py_ssize_t index) except -1:
    """CloudEvents: lower-case letters and digits. That there are at most 20 is a SHOULD there and a must here."""
    cdef uint64_t hash
    cdef Py_ssize_t i
    if name.size == 0 or name.size > _ATTRIBUTE_NAME_BYTES_MAX:
        rule = f"names have 1 to {_ATTRIBUTE_NAME_BYTES_MAX} characters"
        return refuse(index, "attributes", rule, shown(name))
    for i in range(name.size):
        if not (c'a' <= name.at[i] <= c'z' or c'0' <= name.at[i] <= c'9'):
            return refuse(index, "attributes", "names are of lower-case letters and digits", shown(name))
    if event.attributes == _ATTRIBUTES_MAX:
        return refuse(index, "attributes", f"at most {_ATTRIBUTES_MAX}", "more")
    hash = xxh64_raw(name.at, name.size, 0)
    for i in range(event.attributes):
        if names.hashes[i] == hash and names.names[i].size == name.size:
            if memcmp(names.names[i].at, name.at, name.size) == 0:
                return refuse_twice(index, f"attributes[{shown(name)}]")
    names.hashes[event.attributes] = hash
    names.names[event.attributes] = name
    event.attributes += 1
    return 0


cdef int _read_value(Span message, Span* string, Py_ssize_t index) except -1:
    """Check a CloudEventAttributeValue; `string` stays absent unless it is a ce_string."""
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Span other = Span(NULL, 0)
    cdef uint32_t tag
    cdef bint seen = False
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return refuse_malformed(index)
        if tag in (0x08, 0x10, 0x1A, 0x22, 0x2A, 0x32, 0x3A):
            if seen:
                return refuse_twice(index, "attributes")
            seen = True
        if tag == 0x1A:  # ce_string
            read_string(&at, end, string, index, "attributes")
        elif tag == 0x2A or tag == 0x32:  # ce_uri, ce_uri_ref
            read_string(&at, end, &other, index, "attributes")
        elif tag == 0x3A:  # ce_timestamp
            _read_once(&at, end, &other, index, "attributes")
            _check_timestamp(other, index)
        elif skip_value(&at, end, tag, DEPTH_MAX - 3) < 0:
            return refuse_malformed(index)
    return 0


cdef int _check_timestamp(Span message, Py_ssize_t index) except -1:
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef uint32_t tag
    cdef uint32_t seen = 0
    while at < end:
        if read_tag(&at, end, &tag) < 0 or skip_value(&at, end, tag, DEPTH_MAX - 4) < 0:
            return refuse_malformed(index)
        if tag == 0x08 or tag == 0x10:  # seconds, nanos
            if seen & tag:
                return refuse_twice(index, "attributes")
            seen |= tag
    return 0


cdef int _read_data(
    const uint8_t** at, const uint8_t* end, uint32_t tag, Event* event, Py_ssize_t index
) except -1:
    cdef Span data = Span(NULL, 0)
    if event.has_data:
        return refuse_twice(index, "data")
    event.has_data = True
    if tag == 0x32:
        return _read_once(at, end, &data, index, "binary_data")
    if tag == 0x3A:
        return read_string(at, end, &data, index, "text_data")
    _read_once(at, end, &data, index, "proto_data")
    return _check_any(data, index)


cdef int _check_any(Span message, Py_ssize_t index) except -1:
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Span type_url = Span(NULL, 0)
    cdef Span value = Span(NULL, 0)
    cdef uint32_t tag
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return refuse_malformed(index)
        if tag == 0x0A:
            read_string(&at, end, &type_url, index, "proto_data.type_url")
        elif tag == 0x12:
            _read_once(&at, end, &value, index, "proto_data.value")
        elif skip_value(&at, end, tag, DEPTH_MAX - 2) < 0:
            return refuse_malformed(index)
    return 0
