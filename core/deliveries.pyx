# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""Deliveries as bytes: a short prefix of the subscription's own, then what is the same for all who get the event.

The layout is trunkline.api.v1.Delivery in field 2, as SubscribeResponse and FetchResponse have it. Indexes and ends are
checked where they come in; the loops rely on that.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from trunkline.core.protowire cimport put_varint, varint_size

cdef enum:
    _DELIVERY = 0x12         # field 2 of the response
    _SUBSCRIPTION_ID = 0x08
    _CREDIT = 0x10
    _ATTEMPT = 0x18
    _OFFSET = 0x20
    _TIME_NS = 0x29          # fixed64
    _TIME_BYTES = 9          # tag included


cdef inline uint8_t* _put_time(uint8_t* at, uint64_t time_ns) noexcept nogil:
    cdef int i
    at[0] = _TIME_NS
    for i in range(8):
        at[1 + i] = <uint8_t>(time_ns >> (8 * i))
    return at + _TIME_BYTES


cdef inline uint8_t* _put_field(uint8_t* at, uint8_t tag, uint64_t value) noexcept nogil:
    at[0] = tag
    return put_varint(at + 1, value)


def subscription_prefix(uint32_t subscription_id):
    """The first field of each of a subscription's deliveries; nothing for id 0."""
    cdef uint8_t out[11]
    if subscription_id == 0:
        return b""
    return <bytes>(<char*>out)[:_put_field(out, _SUBSCRIPTION_ID, subscription_id) - out]


def delivery_suffix(uint64_t offset, uint64_t time_ns, const uint8_t[::1] frame not None):
    """Offset, time and the framed event: the end of every delivery of it."""
    cdef Py_ssize_t size = 1 + varint_size(offset) + _TIME_BYTES + frame.shape[0]
    cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* at = _put_field(<uint8_t*>PyBytes_AS_STRING(out), _OFFSET, offset)
    at = _put_time(at, time_ns)
    if frame.shape[0]:
        memcpy(at, &frame[0], frame.shape[0])
    return out


def delivery(bytes prefix not None, uint64_t credit, uint64_t attempt, bytes suffix not None):
    """One delivery, whole."""
    cdef Py_ssize_t prefix_size = PyBytes_GET_SIZE(prefix)
    cdef Py_ssize_t suffix_size = PyBytes_GET_SIZE(suffix)
    cdef Py_ssize_t inner = prefix_size + 2 + varint_size(credit) + varint_size(attempt) + suffix_size
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 1 + varint_size(inner) + inner)
    cdef uint8_t* at = _put_field(<uint8_t*>PyBytes_AS_STRING(out), _DELIVERY, inner)
    memcpy(at, PyBytes_AS_STRING(prefix), prefix_size)
    at = _put_field(at + prefix_size, _CREDIT, credit)
    at = _put_field(at, _ATTEMPT, attempt)
    memcpy(at, PyBytes_AS_STRING(suffix), suffix_size)
    return out


def first_deliveries(
    const uint8_t[::1] payload not None,
    const uint32_t[::1] ends not None,
    offsets,
    uint64_t time_ns,
    indexes,
    Py_ssize_t first,
    bytes prefix not None,
    uint64_t credit,
    Py_ssize_t bytes_limit,
):
    """Deliveries at their first attempt of the events at `indexes[first:]`, as far as credit goes, and how many.

    The frame of event i is payload[ends[i - 1]:ends[i]], its offset offsets[i]. Each delivery tells the credit left
    after it. The one that reaches `bytes_limit` is the last. IndexError when an index is not one of an event.
    """
    cdef Py_ssize_t count = min(<uint64_t>max(0, len(indexes) - first), credit)
    cdef Py_ssize_t head = PyBytes_GET_SIZE(prefix) + 4 + _TIME_BYTES  # three tags, the attempt, the time
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t inner
    cdef Py_ssize_t k
    cdef Py_ssize_t index
    cdef uint32_t begin
    cdef uint64_t offset
    cdef uint64_t left = credit
    cdef list places = []
    cdef bytes out
    cdef uint8_t* at
    for k in range(first, first + count):
        index = indexes[k]
        if not 0 <= index < ends.shape[0]:
            raise IndexError(f"{index} of {ends.shape[0]} events")
        begin = ends[index - 1] if index else 0
        if not begin <= ends[index] <= <uint64_t>payload.shape[0]:
            raise IndexError(f"frame {begin} to {ends[index]} of {payload.shape[0]} bytes")
        offset = offsets[index]
        places.append((index, offset))
        left -= 1
        inner = head + varint_size(left) + varint_size(offset) + ends[index] - begin
        size += 1 + varint_size(inner) + inner
        if size >= bytes_limit:
            break
    out = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t*>PyBytes_AS_STRING(out)
    left = credit
    for index, offset in places:
        begin = ends[index - 1] if index else 0
        left -= 1
        inner = head + varint_size(left) + varint_size(offset) + ends[index] - begin
        at = _put_field(at, _DELIVERY, inner)
        memcpy(at, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix))
        at = _put_field(at + PyBytes_GET_SIZE(prefix), _CREDIT, left)
        at = _put_field(at, _ATTEMPT, 1)
        at = _put_field(at, _OFFSET, offset)
        at = _put_time(at, time_ns)
        if ends[index] > begin:
            memcpy(at, &payload[begin], ends[index] - begin)
        at += ends[index] - begin
    assert at - <uint8_t*>PyBytes_AS_STRING(out) == size
    return out, len(places)
