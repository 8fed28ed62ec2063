"""Texts of chosen attributes of stored events, found without building messages.

A text is what CloudEvents calls the canonical string encoding of a value (CloudEvents 1.0.2, 3.1 Type System): "true" and
"false", decimal digits, Base64 for bytes, RFC 3339 for times. Events were checked when they were published
(trunkline.core.cloudevent), so nothing stands twice.
"""

from base64 import b64encode
from datetime import datetime, timedelta

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from trunkline.core.cloudevent cimport Span
from trunkline.core.protowire cimport DEPTH_MAX, read_size, read_tag, read_varint, skip_value

cdef object _EPOCH = datetime(1970, 1, 1)
cdef dict _FIELDS = {"id": 0x0A, "source": 0x12, "specversion": 0x1A, "type": 0x22}

cdef enum:
    _ATTRIBUTE = 0x2A
    _NAMES_MAX = 256


def attribute_texts(const uint8_t[::1] payload not None, const uint32_t[::1] ends not None, indexes, tuple names not None):
    """For each event at `indexes` a tuple: the text of each named attribute, None where the event has none.

    The frame of event i is payload[ends[i - 1]:ends[i]]. Raises IndexError when an index is not one of an event,
    ValueError for more than 256 names or for bytes that are no event.
    """
    cdef list wanted = [name.encode() for name in names]
    cdef list tags = [_FIELDS.get(name, 0) for name in names]
    cdef list found = []
    cdef list texts
    cdef Py_ssize_t index
    cdef uint32_t begin
    if len(wanted) > _NAMES_MAX:
        raise ValueError(f"at most {_NAMES_MAX} names, not {len(wanted)}")
    for index in indexes:
        if not 0 <= index < ends.shape[0]:
            raise IndexError(f"{index} of {ends.shape[0]} events")
        begin = ends[index - 1] if index else 0
        if not begin < ends[index] <= <uint64_t>payload.shape[0]:
            raise ValueError("the frames are not those of the payload")
        texts = [None] * len(wanted)
        if _read_event(&payload[begin], &payload[0] + ends[index], wanted, tags, texts) < 0:
            raise ValueError(f"event {index} cannot be read")
        found.append(tuple(texts))
    return found


cdef int _read_event(const uint8_t* at, const uint8_t* end, list wanted, list tags, list texts) except -2:
    """The frame of one event: 7A, length, event. -1 when it is malformed."""
    cdef uint32_t tag = 0
    cdef Span value
    cdef Py_ssize_t i
    if read_tag(&at, end, &tag) < 0 or read_size(&at, end, &value.size) < 0 or value.size != end - at:
        return -1
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return -1
        if tag & 7 != 2:
            if skip_value(&at, end, tag, DEPTH_MAX) < 0:
                return -1
            continue
        if read_size(&at, end, &value.size) < 0:
            return -1
        value.at = at
        at += value.size
        if tag == _ATTRIBUTE:
            if _read_attribute(value, wanted, texts) < 0:
                return -1
        elif tag <= 0x22:
            for i in range(len(tags)):
                if <uint32_t>tags[i] == tag:
                    texts[i] = PyUnicode_DecodeUTF8(<const char*>value.at, value.size, NULL)
    return 0


cdef int _read_attribute(Span entry, list wanted, list texts) except -2:
    cdef const uint8_t* at = entry.at
    cdef const uint8_t* end = at + entry.size
    cdef Span name = Span(NULL, 0)
    cdef Span value = Span(NULL, 0)
    cdef uint32_t tag = 0
    cdef Span read
    cdef bytes one
    cdef Py_ssize_t i
    while at < end:
        if read_tag(&at, end, &tag) < 0 or read_size(&at, end, &read.size) < 0:
            return -1
        read.at = at
        at += read.size
        if tag == 0x0A:
            name = read
        else:
            value = read
    if value.at == NULL:
        return 0
    for i in range(len(wanted)):
        one = <bytes>wanted[i]
        if PyBytes_GET_SIZE(one) == name.size and memcmp(PyBytes_AS_STRING(one), name.at, name.size) == 0:
            texts[i] = _text(value)
    return 0


cdef object _text(Span message):
    """The text of a CloudEventAttributeValue; None when it holds nothing."""
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef uint32_t tag = 0
    cdef uint64_t number = 0
    cdef Span value
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return None
        if tag == 0x08 or tag == 0x10:
            if read_varint(&at, end, &number) < 0:
                return None
            if tag == 0x08:
                return "true" if number else "false"
            return str(<int32_t><uint32_t>number)
        if tag in (0x1A, 0x22, 0x2A, 0x32, 0x3A):
            if read_size(&at, end, &value.size) < 0:
                return None
            if tag == 0x3A:
                return _time_text(at, at + value.size)
            if tag == 0x22:
                return b64encode(PyBytes_FromStringAndSize(<const char*>at, value.size)).decode()
            return PyUnicode_DecodeUTF8(<const char*>at, value.size, NULL)
        if skip_value(&at, end, tag, DEPTH_MAX) < 0:
            return None
    return None


cdef object _time_text(const uint8_t* at, const uint8_t* end):
    """A Timestamp in RFC 3339, with 0, 3, 6 or 9 digits of a second; None when it lies outside of the years 1 to 9999."""
    cdef uint32_t tag = 0
    cdef uint64_t number = 0
    cdef int64_t seconds = 0
    cdef int32_t nanos = 0
    while at < end:
        if read_tag(&at, end, &tag) < 0:
            return None
        if tag == 0x08 or tag == 0x10:
            if read_varint(&at, end, &number) < 0:
                return None
            if tag == 0x08:
                seconds = <int64_t>number
            else:
                nanos = <int32_t><uint32_t>number
        elif skip_value(&at, end, tag, DEPTH_MAX) < 0:
            return None
    if not 0 <= nanos < 1_000_000_000:
        return None
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return None
    if nanos == 0:
        return text + "Z"
    digits = f"{nanos:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"
