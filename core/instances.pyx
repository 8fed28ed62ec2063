"""Instances from their binary form and back: what a registry reads a hundred thousand of when it starts, and what each
registration is read and written as.

What is read was serialized by protobuf or here, so each field stands once and every text is UTF-8. What many instances
have in common is kept once: names are interned, and places and sets of labels are known again by their bytes.
"""

from sys import intern
from types import MappingProxyType

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject_GenericSetAttr
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from trunkline.core.collector cimport unseen
from trunkline.core.messages cimport Span, read_fixed, read_number, read_span, read_tag, skip, text
from trunkline.core.writing cimport (
    Out, free_out, open_out, put_bytes, put_fixed, put_message, put_number, put_text, put_text_always, taken, written,
)

from trunkline.core.model import NO_LABELS as _NO_LABELS
from trunkline.core.model import WEIGHT_DEFAULT as _WEIGHT_DEFAULT
from trunkline.core.model import Declared, Endpoint, Instance, Locality

cdef enum:
    _SHARED_MAX = 4096  # places, and sets of labels, that are known again; when there are more, it begins anew
    _LABELS = 0x42  # tag of a label's entry

cdef object _new = object.__new__
cdef str _grpc = "grpc"  # what is spoken at an endpoint that does not say
cdef object _nowhere = Locality()
cdef dict _declared = {int(declared): declared for declared in Declared}
cdef dict _places = {}
cdef dict _label_sets = {}


cdef struct Fields:  # of an Instance; labels are its entries with their tags, which lie behind one another
    Span namespace
    Span service
    Span id
    Span version
    Span locality
    Span labels
    Span health_check
    uint64_t weight
    uint64_t declared


def read_instance(bytes data not None, health_check):
    """The instance that protobuf serialized to `data`, with defaults filled in.

    `health_check` makes a health check of its bytes. ValueError when the instance declares itself what is not known, or
    when the bytes are no message.
    """
    cdef Span message
    message.at = <const uint8_t*>PyBytes_AS_STRING(data)
    message.size = PyBytes_GET_SIZE(data)
    return instance_of(message, health_check)


cdef object instance_of(Span message, object health_check):
    cdef Fields fields
    cdef list endpoints = []
    memset(&fields, 0, sizeof(Fields))
    _read_fields(message.at, message.at + message.size, &fields, endpoints)
    made = _new(Instance)
    # As its __init__ would, which takes three times as long: the class is frozen, and goes through object.__setattr__.
    PyObject_GenericSetAttr(made, "namespace", intern(text(fields.namespace)))
    PyObject_GenericSetAttr(made, "service", intern(text(fields.service)))
    PyObject_GenericSetAttr(made, "id", text(fields.id))
    PyObject_GenericSetAttr(made, "endpoints", unseen(tuple(endpoints)))
    PyObject_GenericSetAttr(made, "version", intern(text(fields.version)))
    PyObject_GenericSetAttr(made, "weight", fields.weight if fields.weight else _WEIGHT_DEFAULT)
    PyObject_GenericSetAttr(made, "locality", _locality(fields.locality))
    PyObject_GenericSetAttr(made, "labels", _labels(fields.labels))
    PyObject_GenericSetAttr(made, "declared", _declaration(<int32_t><uint32_t>fields.declared))
    PyObject_GenericSetAttr(made, "health_check", _health_check(fields.health_check, health_check))
    return unseen(made)


cdef int _read_fields(const uint8_t* at, const uint8_t* end, Fields* fields, list endpoints) except -1:
    cdef const uint8_t* start
    cdef Span value
    cdef uint32_t tag
    while at < end:
        start = at
        read_tag(&at, end, &tag)
        if tag == 0x0A:
            read_span(&at, end, &fields.namespace)
        elif tag == 0x12:
            read_span(&at, end, &fields.service)
        elif tag == 0x1A:
            read_span(&at, end, &fields.id)
        elif tag == 0x22:
            read_span(&at, end, &fields.version)
        elif tag == 0x2A:
            read_span(&at, end, &value)
            endpoints.append(_endpoint(value))
        elif tag == 0x30:
            read_number(&at, end, &fields.weight)
        elif tag == 0x3A:
            read_span(&at, end, &fields.locality)
        elif tag == _LABELS:
            read_span(&at, end, &value)
            if fields.labels.at == NULL:
                fields.labels.at = start
            fields.labels.size = at - fields.labels.at
        elif tag == 0x48:
            read_number(&at, end, &fields.declared)
        elif tag == 0x52:
            read_span(&at, end, &fields.health_check)
        else:
            skip(&at, end, tag)
    return 0


cdef _endpoint(Span message):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Span host
    cdef Span protocol
    cdef uint64_t port = 0
    cdef uint32_t tag
    host.size = protocol.size = 0
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x0A:
            read_span(&at, end, &host)
        elif tag == 0x10:
            read_number(&at, end, &port)
        elif tag == 0x1A:
            read_span(&at, end, &protocol)
        else:
            skip(&at, end, tag)
    made = _new(Endpoint)
    PyObject_GenericSetAttr(made, "host", text(host))
    PyObject_GenericSetAttr(made, "port", port)
    PyObject_GenericSetAttr(made, "protocol", intern(text(protocol)) if protocol.size else _grpc)
    return unseen(made)


cdef _locality(Span message):
    cdef bytes data
    if message.size == 0:
        return _nowhere
    data = PyBytes_FromStringAndSize(<const char*>message.at, message.size)
    found = _places.get(data)
    if found is None:
        if len(_places) >= _SHARED_MAX:
            _places.clear()
        found = _places[data] = _new_locality(message)
    return found


cdef _new_locality(Span message):
    cdef const uint8_t* at = message.at
    cdef const uint8_t* end = at + message.size
    cdef Span[3] parts  # region, zone, sub_zone
    cdef uint32_t tag
    memset(parts, 0, sizeof(parts))
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x0A or tag == 0x12 or tag == 0x1A:
            read_span(&at, end, &parts[(tag >> 3) - 1])
        else:
            skip(&at, end, tag)
    return Locality(text(parts[0]), text(parts[1]), text(parts[2]))


cdef _labels(Span entries):
    cdef bytes data
    if entries.size == 0:
        return _NO_LABELS
    data = PyBytes_FromStringAndSize(<const char*>entries.at, entries.size)
    found = _label_sets.get(data)
    if found is None:
        if len(_label_sets) >= _SHARED_MAX:
            _label_sets.clear()
        found = _label_sets[data] = _new_labels(entries)
    return found


cdef _new_labels(Span entries):
    cdef const uint8_t* at = entries.at
    cdef const uint8_t* end = at + entries.size
    cdef const uint8_t* entry_end
    cdef Span entry
    cdef Span[2] pair  # key, value
    cdef uint32_t tag
    cdef dict labels = {}
    while at < end:
        read_tag(&at, end, &tag)
        if tag != _LABELS:
            raise ValueError("labels do not lie behind one another")
        read_span(&at, end, &entry)
        entry_end = at
        at = entry.at
        memset(pair, 0, sizeof(pair))
        while at < entry_end:
            read_tag(&at, entry_end, &tag)
            if tag == 0x0A or tag == 0x12:
                read_span(&at, entry_end, &pair[(tag >> 3) - 1])
            else:
                skip(&at, entry_end, tag)
        labels[intern(text(pair[0]))] = text(pair[1])
    return MappingProxyType(labels)


cdef _health_check(Span message, object make):
    if message.at == NULL:
        return None
    return make(PyBytes_FromStringAndSize(<const char*>message.at, message.size))


cdef _declaration(int32_t declared):
    if declared == 0:
        return Declared.SERVING
    found = _declared.get(declared)
    return Declared(declared) if found is None else found


# Writing.


cdef int put_instance(Out* out, object instance, bytes health_check) except -1:
    """Every default written out. `health_check` is the message of its health check, or None."""
    cdef tuple endpoints = instance.endpoints
    cdef Py_ssize_t mark
    if health_check is not None:
        put_bytes(out, 0x52, health_check)
    put_number(out, 0x48, instance.declared)
    _put_labels(out, instance.labels)
    locality = instance.locality
    if locality is not _nowhere and locality != _nowhere:
        mark = written(out)
        put_text(out, 0x1A, locality.sub_zone)
        put_text(out, 0x12, locality.zone)
        put_text(out, 0x0A, locality.region)
        put_message(out, 0x3A, mark)
    put_number(out, 0x30, instance.weight)
    for endpoint in reversed(endpoints):
        mark = written(out)
        put_text(out, 0x1A, endpoint.protocol)
        put_number(out, 0x10, endpoint.port)
        put_text(out, 0x0A, endpoint.host)
        put_message(out, 0x2A, mark)
    put_text(out, 0x22, instance.version)
    put_text(out, 0x1A, instance.id)
    put_text(out, 0x12, instance.service)
    put_text(out, 0x0A, instance.namespace)
    return 0


cdef int _put_labels(Out* out, object labels) except -1:
    cdef Py_ssize_t mark
    if not labels:
        return 0
    for name in sorted(labels, reverse=True):
        mark = written(out)
        put_text_always(out, 0x12, labels[name])
        put_text_always(out, 0x0A, name)
        put_message(out, _LABELS, mark)
    return 0


# The fact of a registration: trunkline.api.journal.v1.InstanceRegistered.


def write_registration(
    instance, bytes health_check, uint64_t lease_id, bytes secret_hash not None, uint64_t ttl_ms, uint64_t keeper
):
    """The body of the record; equal arguments are the same bytes. `health_check` is the message of a check, or None."""
    cdef Out out
    cdef Py_ssize_t mark
    open_out(&out)
    try:
        put_fixed(&out, 0x29, keeper)
        put_number(&out, 0x20, ttl_ms)
        if secret_hash:
            put_bytes(&out, 0x1A, secret_hash)
        put_fixed(&out, 0x11, lease_id)
        mark = written(&out)
        put_instance(&out, instance, health_check)
        put_message(&out, 0x0A, mark)
        return taken(&out)
    finally:
        free_out(&out)


def read_registration(bytes body not None, health_check):
    """Instance, lease id, hash of its secret, TTL in ms, keeper. As `read_instance`."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(body)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(body)
    cdef Span instance
    cdef Span secret_hash
    cdef uint64_t lease_id = 0
    cdef uint64_t ttl_ms = 0
    cdef uint64_t keeper = 0
    cdef uint32_t tag
    memset(&instance, 0, sizeof(Span))
    memset(&secret_hash, 0, sizeof(Span))
    while at < end:
        read_tag(&at, end, &tag)
        if tag == 0x0A:
            read_span(&at, end, &instance)
        elif tag == 0x11:
            read_fixed(&at, end, &lease_id)
        elif tag == 0x1A:
            read_span(&at, end, &secret_hash)
        elif tag == 0x20:
            read_number(&at, end, &ttl_ms)
        elif tag == 0x29:
            read_fixed(&at, end, &keeper)
        else:
            skip(&at, end, tag)
    return (
        instance_of(instance, health_check),
        lease_id,
        PyBytes_FromStringAndSize(<const char*>secret_hash.at, secret_hash.size),
        <int64_t>ttl_ms,
        keeper,
    )
